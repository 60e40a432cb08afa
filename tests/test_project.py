"""A generated project does what its README says: own data, mistakes, stores, its own commands."""

import pytest
from conftest import run_inside


@pytest.mark.parametrize(
    ("module", "level", "which"),
    [
        ("test_mistakes.py", "0", ""),
        ("test_own_data.py", "0", ""),
        ("test_store.py", "0", ""),
        ("test_faults.py", "1", "not long"),
        pytest.param("test_faults.py", "1", "long", marks=pytest.mark.nightly),
    ],
)
def test_inside(module, level, which, make_project):
    run_inside(make_project(maturity_level=level), module, "-m", which)
