"""A small project with a champion, committed, whose environments are free ports of this machine."""

import importlib
import os
import pkgutil
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import << cookiecutter.package_name >> as package
from << cookiecutter.package_name >>.delivery import settings
from << cookiecutter.package_name >>.delivery.release import targets
from << cookiecutter.package_name >>.experiment.params import ROOT

CODE = ("src", "pyproject.toml", "README.md", "requirements/service.txt", ".gitignore")
CODE += ("continuous_training.yaml", *(path.name for path in ROOT.glob("LICENSE")))


def git(folder: Path, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    command = ["git", "-C", str(folder), "-c", "core.hooksPath=", *arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | who)


def commit_all(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-q", "--allow-empty", "-m", "test: a state to release")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def commit(released: Path) -> Callable[[], None]:
    return lambda: commit_all(released)


@pytest.fixture(scope="module")
def released(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its root; what it deployed is stopped in the end."""
    root = tmp_path_factory.mktemp("released") / "project"
    shutil.copytree(trained, root)
    for name in CODE:
        (root / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    about = yaml.safe_load((ROOT / "delivery.yaml").read_text(encoding="utf-8"))
    about["environments"] = {
        name: {"target": "local", "port": free_port()} for name in ("dev", "staging")
    }
    about["checks"] |= {"requests": 40, "p99": 5000, "ready": 120}
    about["canary"] |= {"steps": [50, 100], "rows": 100, "minutes": 2, "p99": 5000, "psi": 50}
    about["service"]["follow"] = 0.5
    (root / "delivery.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    git(root, "init", "-q")
    commit_all(root)
    home, kept = tmp_path_factory.mktemp("home"), ROOT / ".delivery/environments"
    kept.mkdir(parents=True, exist_ok=True)  # that of a release takes a while to make
    (home / "environments").symlink_to(kept, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it where it connects: put it back
        patch.setenv("DELIVERY_HOME", str(home))
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            if hasattr(module, "ROOT"):
                patch.setattr(module, "ROOT", root)
        yield root
        for name in about["environments"]:
            targets.of(name, settings.load()).stop()
