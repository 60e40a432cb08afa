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
from .releases import digest_of, home, one_at_a_time, path_of, python, run_tool

PINS = "requirements/service.txt"  # what runs in production, also in the image
SETTINGS = ("params.yaml", "continuous_training.yaml", "delivery.yaml")


def build() -> str:
    """A release of the commit that is checked out; returns its digest. Equal commits make equal ones."""
    commit = tracking.commit()
    if commit["dirty"] == "true":
        raise UserError("commit your changes first: a release is built from a commit")
    home().mkdir(parents=True, exist_ok=True)
    with one_at_a_time(), tempfile.TemporaryDirectory(dir=home()) as folder:
        source, place = Path(folder) / "source", Path(folder) / "release"
        run_tool(
            "git", "archive", "--format=zip", f"--output={folder}/source.zip", "HEAD", cwd=ROOT
        )
        _unpack(Path(folder) / "source.zip", source)
        when = run_tool("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        run_tool(*command, cwd=source, SOURCE_DATE_EPOCH=when)
        _unpack(next(Path(folder).glob("*.whl")), place / "site")
        for name in SETTINGS:
            shutil.copy(source / name, place)
        shutil.copy(source / PINS, place / "requirements.txt")
        (place / "commit").write_text(commit["commit"] + "\n", encoding="utf-8")
        digest = digest_of(place)
        found = path_of(digest)
        if not found.exists() or digest_of(found) != digest:  # somebody has changed it
            shutil.rmtree(found, ignore_errors=True)
            found.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, found)
    return digest


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def run() -> None:
    digest = build()
    python(digest)
    print(digest)
