"""The pipeline of dvc.yaml: run what has changed, quarantine what breaks the schema, log the run.

The step `pipeline` is `dvc repro` with four things around it that are
no stages, for they read or move what lies outside: the schema is inferred if there is none; a batch
that stopped the pipeline goes to data/quarantine; the batches are versioned (`dvc add`); and the
training gets its run in MLflow.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from ..experiment import dataset, tables, tracking
from ..experiment.errors import UserError
from ..experiment.params import ROOT, Params, load, parse
from ..experiment.redaction import relay
from ..experiment.registry import read_model
from ..experiment.train import score
from . import incoming, settings
from .__main__ import TIMES
from .decision import history
from .lock import alone
from .settings import QUARANTINE
from .stages import validate
from .stages.train import FOLDER

log = logging.getLogger(__name__)


class QuarantineError(UserError):
    """Which batches were put aside, and why."""

    code = 3


def dvc(*arguments: str) -> int:
    """Run DVC with this Python's programs first on the path; returns its exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true"}
    # What it says on stdout is for those who call it themselves; errors and the stages use stderr.
    quiet = subprocess.DEVNULL
    return relay(command, cwd=ROOT, env=environment, stdout=quiet)


def reproduce(params: Params) -> None:
    """Bring data/, models/ and reports/ up to date; raises QuarantineError or UserError."""
    if tracking.commit()["commit"] == "none":
        raise UserError("there is no commit yet (git init): DVC needs a git repository")
    folder = _raw(params)
    paths = dataset.batches(params.data)
    if not (ROOT / validate.SCHEMA).exists():
        columns = validate.infer(tables.read(paths, params.data), params.data)
        validate.write(columns, [path.stem for path in paths], ROOT / validate.SCHEMA)
        log.warning("%s is inferred from the batches: review and commit it", validate.SCHEMA)
    skew = ROOT / "reports" / validate.SKEW
    skew.unlink(missing_ok=True)
    if dvc("repro"):
        if skew.exists():
            message = _quarantine(json.loads(skew.read_text(encoding="utf-8")), paths)
            dvc("add", folder)  # `dvc repro` took the broken batch into the version of the batches
            raise QuarantineError(message)
        raise UserError("the pipeline stopped: see above which stage, and why")
    if _digest(ROOT / f"{folder}.dvc") != _locked("extract", "deps", folder) and dvc("add", folder):
        raise UserError(f"the batches in {folder} were not versioned: see above")


def _raw(params: Params) -> str:
    """The folder of the batches, which the stage extract must depend on."""
    stages = parse(ROOT / "dvc.yaml")["stages"]
    folder = Path(params.data.source).parent.as_posix()
    if folder not in stages["extract"]["deps"]:
        raise UserError(
            f"dvc.yaml: the stage extract does not depend on {folder}, the folder of data.source: put"
            " it there in place of data/raw"
        )
    return folder


def _locked(stage: str, kind: str, path: str) -> str | None:
    """The digest that dvc.lock has of a stage's file or folder."""
    lock = parse(ROOT / "dvc.lock")
    digests = {entry["path"]: entry["md5"] for entry in lock["stages"][stage][kind]}
    return digests.get(path)


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    return parse(path)["outs"][0]["md5"]


def _quarantine(broken: dict[str, list[str]], paths: list[Path]) -> str:
    """Move the batches and their reasons to data/quarantine; returns the sentence for it."""
    folder, reports = ROOT / QUARANTINE, []
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for path in paths if path.stem in broken):
        shutil.move(path, folder / path.name)
        incoming.set_aside(path.name)
        reasons = "\n".join(broken[path.stem]) + "\n"
        (folder / f"{path.name}.txt").write_text(reasons, encoding="utf-8")
        reports.append(f"{path.name}: {'; '.join(broken[path.stem])}")
    return f"quarantined in {QUARANTINE}: {' | '.join(reports)}; the champion stays as it is"


def prepared() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that the challenger was fitted on, and those held out."""
    folder = ROOT / "data/prepared"
    return pd.read_parquet(folder / "train.parquet"), pd.read_parquet(folder / "holdout.parquet")


def record(params: Params, **tags: str) -> Run:
    """The challenger's run in MLflow: found by the digests of model and rows, else logged now with `tags`.

    The same model on other rows held out, whose labels came late, is another challenger. A model can
    come out of DVC's cache or remote, into a store that has never seen its training.
    """
    client = tracking.connect()
    tags["dvc_model"] = str(_locked("train", "outs", FOLDER))
    tags["dvc_prepared"] = str(_locked("prepare", "outs", "data/prepared"))
    same = [f"tags.{key} = '{tags[key]}'" for key in ("dvc_model", "dvc_prepared")]
    if tracking.commit()["dirty"] == "false":
        same.append("tags.dirty = 'false'")
    training = tracking.last_run(" and ".join([*same, "tags.step = 'train'"]))
    if training is not None:
        return training
    train, holdout = prepared()
    model = read_model(ROOT / FOLDER, params).model
    metrics = {f"train_{name}": value for name, value in score(model, train, params).items()}
    metrics |= {f"test_{name}": value for name, value in score(model, holdout, params).items()}
    paths = dataset.batches(params.data)
    run_id = tracking.log_training(model, train, holdout, metrics, paths, params, **tags)
    for file in sorted((ROOT / "reports/challenger").iterdir()):
        tracking.keep(client, run_id, file, "evaluation/test")
    times = ROOT / TIMES
    if times.exists():  # not where the stages came out of the cache, such as in a fresh clone
        for stage, seconds in json.loads(times.read_text(encoding="utf-8")).items():
            client.log_metric(run_id, f"seconds_{stage}", seconds)
    return client.get_run(run_id)


def run() -> None:
    params = load()
    tracking.connect()  # a store that is away stops the step before the work, not after
    with alone():
        reproduce(params)
        training = record(params, recipe=history.recipe(params, settings.load()))
    metric = params.evaluate.metric
    value = training.data.metrics.get(f"test_{metric}", float("nan"))
    log.info("run %s: %s %.4f", training.info.run_id, metric, value)
