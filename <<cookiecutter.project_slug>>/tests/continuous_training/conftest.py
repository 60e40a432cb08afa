"""A small project for the pipeline: this one's code and settings, a sample of its data, git and DVC."""

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import << cookiecutter.package_name >> as package
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.params import ROOT

NO_BETTER = "on a sample of this data the model is no better than the baseline"
CODE = ("src", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")
CODE += ("continuous_training.yaml",)


def git(folder: Path, *arguments: str) -> str:
    who = {
        f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    command = ["git", "-C", str(folder), "-c", "core.hooksPath=", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | who)
    return done.stdout


@pytest.fixture(scope="module")
def pipeline(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its root, committed; the batch after `data.through` waits in incoming/, if there is one."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in CODE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    settings = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    through = settings["data"]["through"]
    settings["data"] |= {"source": "data/raw/*", "through": None}
    settings["register"]["name"] += "-pipeline"  # MLflow caches where a version's files are
    (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    stages["stages"]["extract"]["deps"][0] = "data/raw"
    (root / "dvc.yaml").write_text(yaml.safe_dump(stages), encoding="utf-8")
    for folder in ("data/raw", "incoming"):
        (root / folder).mkdir(parents=True)
    for path in sorted((project / "data/raw").iterdir()):
        late = through is not None and path.stem[: len(through)] > through
        shutil.copy(path, root / ("incoming" if late else "data/raw"))
    git(root, "init", "-q")
    commit(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it where it connects: put it back
        # All modules: one that is imported later would keep this root.
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            if hasattr(module, "ROOT"):
                patch.setattr(module, "ROOT", root)
        path = f"{root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        patch.setenv("PYTHONPATH", path.rstrip(os.pathsep))  # for the stages, which are processes
        yield root


@pytest.fixture(scope="module")
def first_retraining(pipeline: Path) -> int:
    """The exit code of the first retraining; without a champion there is nothing to test."""
    code = main(["retrain"])
    gate = json.loads((pipeline / "reports/gate.json").read_text(encoding="utf-8"))
    if [check["name"] for check in gate["checks"] if not check["passed"]] == ["baseline"]:
        pytest.skip(NO_BETTER)
    return code


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-q", "--allow-empty", "-m", "test: a state to train from")


@pytest.fixture(scope="module")
def change(pipeline: Path) -> Callable[..., None]:
    """Change settings of a file, as `("params.yaml", {"seed": 1})`, and commit."""

    def apply(file: str, changes: dict) -> None:
        path = pipeline / file
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *sections, key = name.split(".")
            place = document
            for section in sections:
                place = place[section]
            place[key] = value
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        commit(pipeline)

    return apply
