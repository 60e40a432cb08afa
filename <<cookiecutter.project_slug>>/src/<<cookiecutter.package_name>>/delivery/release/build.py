"""Build a release of the commit that is checked out; the step `build` prints its digest."""

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from ...experiment import tracking
from ...experiment.errors import UserError
from ...experiment.params import ROOT
from .releases import digest_of, home, lock, path_of, python, run_tool

PINS = "requirements/service.txt"  # what runs in production, also in the image
SETTINGS = ("params.yaml", "continuous_training.yaml", "delivery.yaml")


def build() -> str:
    """Build a release of the checked-out commit; returns its digest, which is the same for the same commit.

    Raises UserError if there are changes that are not committed.
    """
    commit = tracking.commit()
    if commit["dirty"] == "true":
        raise UserError("commit your changes first: a release is built from a commit")
    with lock("releases"), tempfile.TemporaryDirectory(dir=home()) as folder:
        source = Path(folder) / "source"
        release = Path(folder) / "release"
        run_tool(
            "git", "archive", "--format=zip", f"--output={folder}/source.zip", "HEAD", cwd=ROOT
        )
        _unpack(Path(folder) / "source.zip", source)
        commit_time = run_tool("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        run_tool(*command, cwd=source, SOURCE_DATE_EPOCH=commit_time)
        _unpack(next(Path(folder).glob("*.whl")), release / "site")
        for name in SETTINGS:
            shutil.copy(source / name, release)
        shutil.copy(source / PINS, release / "requirements.txt")
        (release / "commit").write_text(commit["commit"] + "\n", encoding="utf-8")
        digest = digest_of(release)
        path = path_of(digest)
        if not path.exists() or digest_of(path) != digest:  # somebody has changed it
            shutil.rmtree(path, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(release, path)
    return digest


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def run() -> None:
    digest = build()
    python(digest)
    print(digest)
