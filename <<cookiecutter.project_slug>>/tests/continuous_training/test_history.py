"""Decisions and settings: values stay text, and a mistake in a file is told."""

import pytest

from << cookiecutter.package_name >>.continuous_training import settings
from << cookiecutter.package_name >>.continuous_training.decision import history
from << cookiecutter.package_name >>.experiment import reports
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import parse


def test_the_decision_escapes_what_comes_from_the_data(params, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "ROOT", tmp_path)
    bad = "place = <img src=x>|\n`b` [c](d)"
    check = {"name": "segment", "passed": False, "message": bad}
    about = {"from": None, "to": None, "rows": 1}
    written = {"decision": "refused", "challenger": {"version": 1}, "champion": None}
    history.write(written | {"holdout": about, "checks": [check]}, [bad], [bad], params)
    text = (tmp_path / "reports/decision.md").read_text(encoding="utf-8")
    assert text.count(r"place = &lt;img src=x&gt;\| \`b\` \[c\](d)") == 3


def test_a_pipeline_that_is_no_yaml_is_told(tmp_path):
    """As a merge leaves it that is not resolved."""
    (tmp_path / "dvc.yaml").write_text("stages:\n=======\n  x: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"dvc\.yaml is not valid YAML"):
        parse(tmp_path / "dvc.yaml")


def test_a_key_that_is_no_setting_gets_a_hint(tmp_path):
    """In a section that may be null, too."""
    path = tmp_path / "continuous_training.yaml"
    path.write_text("triggers: {degradation: {batch: 1}}", encoding="utf-8")
    with pytest.raises(UserError, match=r"batch is not a setting; did you mean batches"):
        settings.load(path)
