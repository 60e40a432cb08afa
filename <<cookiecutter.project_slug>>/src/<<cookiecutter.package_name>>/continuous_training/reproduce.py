"""Reproduction: make a version again, from its code and its data, and compare.

The step `reproduce --version 3` takes the code that the version's run
keeps and the batches that its data/*.dvc names, runs the whole pipeline in a folder of its own, fits
on all rows, and compares metrics and predictions: they must be equal to the last digit.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from dvc.config import Config
from dvc.repo import Repo
from mlflow.entities import Run

from .. import data
from ..experiment import tracking
from ..experiment.errors import UserError
from ..experiment.evaluate import predict
from ..experiment.params import ROOT, load
from ..experiment.redaction import relay
from ..experiment.registry import load_model, require_version
from ..experiment.train import fit
from .pipeline import prepared

REBUILT = "rebuilt.parquet"
COMMIT = re.compile("[0-9a-f]{40,64}")

log = logging.getLogger(__name__)


def checkout(run: Run, folder: Path) -> None:
    """The code of the run's commit, or as the run keeps it if that is gone; the pipeline's state."""
    with tempfile.TemporaryDirectory() as place, tracking.artifact(run, "code.zip") as kept:
        commit, path = run.data.tags["commit"], Path(place) / "code.zip"
        if not (COMMIT.fullmatch(commit) and tracking.archive(commit, path)):
            if kept is None:
                raise UserError(f"run {run.info.run_id} keeps no code: it was trained without git")
            path = kept
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    for name in ("dvc.lock", "schema.yaml", "params.yaml", *_pointers(run)):
        with tracking.artifact(run, name) as file:
            if file is not None:
                target = folder / ("data" if file.suffix == ".dvc" else "")
                target.mkdir(exist_ok=True)
                shutil.copy(file, target)


def _pointers(run: Run) -> list[str]:
    artifacts = tracking.connect().list_artifacts(run.info.run_id)
    return [entry.path for entry in artifacts if entry.path.endswith(".dvc")]


def run_in(folder: Path, *command: str) -> None:
    """Run this Python in the folder, on the folder's code; raises UserError if it fails."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "true"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command, quiet = (sys.executable, *command), subprocess.DEVNULL
    if relay(list(command), stdout=quiet, cwd=folder, env=environment):
        raise UserError(f"`{' '.join(command[2:4])}` failed in the clean folder: see above")


def pull(folder: Path, pointers: list[str]) -> None:
    """The batches, out of this project's cache or remote."""
    local = ROOT / ".dvc/config.local"  # what is there is secret, or of this machine
    if local.exists():
        shutil.copy(local, folder / ".dvc")
    here = Repo(str(ROOT))
    # Not by DVC's commands: an address may hold a password, which all see in a list of processes.
    with Config(str(folder / ".dvc"), validate=False).edit("local") as config:
        config.setdefault("core", {})["no_scm"] = True
        config.setdefault("cache", {})["dir"] = str(Path(here.cache.local.path).parents[1])
        # A folder's address is relative in the file alone.
        for name, remote in here.config["remote"].items():
            config.setdefault("remote", {}).setdefault(name, {})["url"] = remote["url"]
    run_in(folder, "-m", "dvc", "pull", "--quiet", *(f"data/{name}" for name in pointers))


def rebuild() -> None:
    """In the clean folder: fit on all rows; keep the metrics and what is predicted of those held out."""
    params, rows = load(), prepared()
    model = fit(pd.concat(rows, ignore_index=True), params)
    X, _ = data.xy(rows[1], params, any_classes=True)
    predictions = predict(model, X).reshape(len(X), -1)
    pd.DataFrame(predictions, columns=[str(k) for k in range(predictions.shape[1])]).to_parquet(
        ROOT / REBUILT
    )


def run(version: str) -> None:
    params = load()
    model_version = require_version(tracking.connect(), params.register_.name, version)
    fitted = tracking.find_run(model_version.run_id)
    if "judged_run" not in fitted.data.tags:
        raise UserError(
            f"version {model_version.version} is not the pipeline's: see its model card"
        )
    judged = tracking.find_run(fitted.data.tags["judged_run"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkout(fitted, folder)
        pull(folder, _pointers(fitted))
        run_in(folder, "-m", "dvc", "repro", "--quiet", "--force", "--no-commit")
        code = f"from {__name__} import rebuild; rebuild()"
        run_in(folder, "-c", code)
        metrics = json.loads((folder / "reports/metrics.json").read_text(encoding="utf-8"))
        again = pd.read_parquet(folder / REBUILT).to_numpy()
        holdout = pd.read_parquet(folder / "data/prepared/holdout.parquet")
    model = load_model(fitted, params)
    answers = predict(model.model, holdout[list(model.kinds)]).reshape(len(holdout), -1)
    logged = {name: judged.data.metrics.get(f"test_{name}") for name in metrics}
    wrong = [f"{name} {metrics[name]!r}, was {logged[name]!r}" for name in metrics]
    wrong = [
        message
        for name, message in zip(metrics, wrong, strict=True)
        if metrics[name] != logged[name]
    ]
    if not np.array_equal(again, answers):
        wrong.append(f"predictions differ by up to {np.abs(again - answers).max():.3g}")
    if wrong:
        raise UserError(
            f"version {model_version.version} is not reproduced: {'; '.join(wrong)}{_other(fitted)}"
        )
    message = "version %s is reproduced: %d metrics and the predictions of %s rows are equal"
    log.info(message, model_version.version, len(metrics), f"{len(holdout):,}")


def _other(run: Run) -> str:
    """Which packages are not those of then, if any."""
    with tracking.artifact(run, "environment.txt") as path:
        then = set(path.read_text(encoding="utf-8").splitlines()) if path else set()
    other = sorted(then - set(tracking.environment().splitlines()))
    return f"; it was made with {', '.join(other[:10])}" if other else ""
