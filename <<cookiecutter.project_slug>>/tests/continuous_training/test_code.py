"""What a stage depends on: every module that it imports, a helper of the owner's too, and the pins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from << cookiecutter.package_name >>.continuous_training.decision import history
from << cookiecutter.package_name >>.continuous_training.settings import Settings
from << cookiecutter.package_name >>.continuous_training.stages import code
from << cookiecutter.package_name >>.experiment.params import load

LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
print(json.dumps([file for file in files if file]))
"""


@pytest.fixture
def package(pipeline: Path) -> Path:
    return next((pipeline / "src").glob("*/data.py")).parent


@pytest.mark.parametrize("stage", code.STAGES)
def test_whatever_a_stage_imports_is_known(stage, pipeline):
    """As Python itself imports it."""
    name = f"{code.PACKAGE}.continuous_training.stages.{stage}"
    done = subprocess.run(
        [sys.executable, "-c", LOADED, name],
        cwd=pipeline,
        check=True,
        capture_output=True,
        text=True,
    )
    source = (pipeline / "src").resolve()
    loaded = {Path(file).resolve() for file in json.loads(done.stdout)}
    own = {path for path in loaded if path.is_relative_to(source)}
    own = {path for path in own if path.name != "artifacts.py"}  # which MLflow looks for by itself
    assert own and own <= {path.resolve() for path in code.reached(name).values()}


def test_each_stage_depends_on_its_code(pipeline):
    stages = yaml.safe_load((pipeline / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert {*stages} == {"code", *code.STAGES}
    for stage in code.STAGES:
        assert f"{code.FOLDER}/{stage}.json" in stages[stage]["deps"]


EDITS = {
    "data.py": {"prepare", "train", "evaluate"},
    "features.py": {"train", "evaluate"},
    "model.py": {"train", "evaluate"},
    "feature_views.py": {"build_views", "prepare"},
    "helper.py": {"train", "evaluate"},  # which features.py imports
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_owner_is_another_recipe(name, pipeline, package):
    """The stages that use a file run again, and no stage before them."""
    params, settings = load(pipeline / "params.yaml"), Settings()
    features, path = package / "features.py", package / name
    written = features.read_text(encoding="utf-8")
    helper = package / "helper.py"
    helper.write_text("HOURS = 24\n", encoding="utf-8")
    features.write_text("from .helper import HOURS\n" + written, encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    try:
        before = {stage: code.digests(stage) for stage in code.STAGES}
        recipe = history.recipe(params, settings)
        path.write_text(text + "\nMINE = 1\n", encoding="utf-8")
        assert history.recipe(params, settings) != recipe
        changed = {stage for stage in code.STAGES if code.digests(stage) != before[stage]}
        assert EDITS[name] <= changed
        assert not changed & {"extract", "validate"}
        if name in ("features.py", "model.py", "helper.py"):
            assert not changed & {"build_views", "prepare"}
    finally:
        path.write_text(text, encoding="utf-8")
        features.write_text(written, encoding="utf-8")
        helper.unlink()


def test_another_pin_is_another_recipe(pipeline):
    params, settings = load(pipeline / "params.yaml"), Settings()
    pins = pipeline / code.PINS[0]
    pins.parent.mkdir(exist_ok=True)
    before = history.recipe(params, settings)
    pins.write_text("scikit-learn==9.9.9\n", encoding="utf-8")
    try:
        assert history.recipe(params, settings) != before
    finally:
        pins.unlink()
