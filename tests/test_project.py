"""A generated project does what its README says: own data, mistakes, stores, its own commands."""

import pytest
from conftest import run_inside


@pytest.mark.parametrize("module", ["test_mistakes.py", "test_own_data.py", "test_store.py"])
def test_inside(module, make_project):
    run_inside(make_project(), module)
