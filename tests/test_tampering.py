"""What somebody else has changed where the project keeps things is not taken for its own."""

import shutil
from pathlib import Path

import pytest
from conftest import generate, run


@pytest.fixture
def versioned(environment: Path, tmp_path: Path) -> Path:
    """A project with a batch that is in DVC's cache and its remote."""
    project = generate(tmp_path, maturity_level="1")
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/own.csv").write_text("y,x\n1,2\n")
    dvc(environment, project, "add", "data/raw")
    dvc(environment, project, "push")
    return project


def dvc(environment: Path, project: Path, *words: str, check: bool = True):
    return run(
        environment / "bin/dvc", *words, "-q", cwd=project, check=check, DVC_NO_ANALYTICS="1"
    )


def change(folder: Path) -> None:
    """The batch, with another number of as many digits, and the modes as they were."""
    (path,) = (p for p in folder.rglob("*") if p.is_file() and p.read_bytes() == b"y,x\n1,2\n")
    path.chmod(0o644)
    path.write_text("y,x\n1,9\n")
    path.chmod(0o444)


@pytest.mark.slow
def test_a_batch_that_was_changed_in_the_remote_is_not_taken(versioned, environment):
    shutil.rmtree(versioned / ".dvc/cache")
    shutil.rmtree(versioned / "data/raw")
    dvc(environment, versioned, "pull", "data/raw.dvc")
    assert (versioned / "data/raw/own.csv").read_text() == "y,x\n1,2\n"
    change(versioned / ".dvc/remote")
    shutil.rmtree(versioned / ".dvc/cache")
    shutil.rmtree(versioned / "data/raw")
    assert dvc(environment, versioned, "pull", "data/raw.dvc", check=False).returncode
    assert not (versioned / "data/raw/own.csv").exists()
