"""Experiment tracking: the project's MLflow store, and what a run keeps of a training.

Without MLFLOW_TRACKING_URI the store is mlflow.db and mlartifacts/ at the project's root, wherever
a command or a notebook starts.
"""

import contextlib
import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import mlflow
import mlflow.data.pandas_dataset as datasets
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Run
from sklearn.pipeline import Pipeline

from .. import data
from . import dataset, floors, reports
from .column_types import Kinds
from .errors import UserError
from .params import ROOT, Params, load
from .redaction import redact
from .registry import fingerprint, save_options


def quiet() -> None:
    """Let the libraries say errors only."""
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


def experiment_name(part: str = "") -> str:
    """The experiment of the project's runs: MLFLOW_EXPERIMENT_NAME, else that of params.yaml."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not name:
        params = load()
        name = params.experiment or params.register_.name
    return name + part


def open_store() -> str:
    """Point MLflow to the store, and return its address; nothing is asked of it yet."""
    quiet()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT / 'mlflow.db'}"
    if redact(uri) != uri:  # of each run MLflow would print the whole address
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    mlflow.set_tracking_uri(uri)
    return uri


def connect(part: str = "") -> mlflow.MlflowClient:
    """Point MLflow to the store and the project's experiment; raises UserError if it is away.

    `part` is added to the experiment's name.
    """
    uri, name = open_store(), experiment_name(part)
    try:
        client = mlflow.MlflowClient()
        if client.get_experiment_by_name(name) is None:
            location = "project:/mlartifacts" if uri.startswith("sqlite:") else None
            client.create_experiment(name, artifact_location=location)
        mlflow.set_experiment(name)
    except Exception as error:
        reason = redact(" ".join(str(error).split()))[:200]
        raise UserError(f"MLFLOW_TRACKING_URI: cannot use the store {uri}: {reason}") from None
    return client


def log_training(
    model: Pipeline,
    train: pd.DataFrame,
    test: pd.DataFrame | None,
    metrics: dict[str, float],
    paths: list[Path],
    params: Params,
    **tags: str,
) -> str:
    """Log one training with everything that it takes to repeat it; returns the id of the run."""
    client = connect()
    X, _ = data.xy(train, params)
    kinds = Kinds(model.named_steps["tidy"].kinds)
    digest = dataset.digest(paths)
    warnings.filterwarnings("ignore", "(?s).*integer column", module="mlflow")
    source = CodeDatasetSource({"data.source": params.data.source, "last_batch": paths[-1].stem})
    with mlflow.start_run(run_name=f"train {paths[-1].stem}") as run:
        mlflow.log_params(params.flat() | _period(train, params) | {"last_batch": paths[-1].stem})
        mlflow.set_tags({"step": "train", "data": digest, **commit(run.info.run_id), **tags})
        for file in [
            file
            for name in (*floors.gathered("WRITTEN"), "params.yaml")
            for file in ROOT.glob(name)
        ]:
            keep(client, run.info.run_id, file)
        _log_code(client, run.info.run_id)
        for name, rows in {"train": train, "test": test}.items():
            if rows is None:
                continue
            logged_rows = datasets.from_pandas(
                rows, source, targets=params.data.target, name=name, digest=digest[:16]
            )
            # MLflow infers a schema value by value: a hundred rows say the same in no time.
            vars(logged_rows)["schema"] = datasets.from_pandas(rows.head(100), source).schema
            mlflow.log_input(logged_rows, context=name)
        batches = reports.as_json(dataset.digests(paths))
        keep_text(client, run.info.run_id, "batches.json", batches)
        keep_text(client, run.info.run_id, "environment.txt", environment())
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=X[list(kinds)].head(5),
            **save_options(model, kinds, params),
        )
        mlflow.log_metrics({k: v for k, v in metrics.items() if v == v}, model_id=logged.model_id)
        with tempfile.TemporaryDirectory() as folder:
            local = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=folder)
            mlflow.set_tag("model_sha256", fingerprint(Path(local)))
        mlflow.set_tag("model_uri", logged.model_uri)
    return run.info.run_id


def _period(train: pd.DataFrame, params: Params) -> dict[str, str]:
    time = params.data.time
    if time is None:
        return {}
    return {"fitted_from": str(train[time].min()), "fitted_until": str(train[time].max())}


def commit(run_id: str | None = None) -> dict[str, str]:
    """The commit that trains; with changes on top it is `dirty`: the run gets them as changes.diff."""
    places = [".", *(f":(exclude){name}" for name in floors.gathered("WRITTEN"))]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", *places)
        if changed and run_id:
            text = redact(changed + "\n\n" + git("diff", "HEAD", "--", *places))
            keep_text(mlflow.MlflowClient(), run_id, "changes.diff", text)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "none", "dirty": "true"}
    return {"commit": head, "dirty": str(bool(changed)).lower()}


def _log_code(client: mlflow.MlflowClient, run_id: str) -> None:
    """Keep the committed code: a commit can be gone after a squash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code.zip"
        if archive("HEAD", path):
            keep(client, run_id, path)


def archive(commit: str, path: Path) -> bool:
    """Write the project's code of a commit into a zip; False if this repository has no such commit."""
    command = ["git", "archive", "--format=zip", "-9", f"--output={path}", commit]
    with contextlib.suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    return False


def keep(client: mlflow.MlflowClient, run_id: str, path: Path, folder: str = "") -> None:
    """Add a file to a run, and its digest as a tag, by which `artifact` checks what is read back."""
    client.log_artifact(run_id, str(path), folder or None)
    name = f"{folder}/{path.name}".lstrip("/")
    client.set_tag(run_id, _digest_of(name), hashlib.sha256(path.read_bytes()).hexdigest())


def keep_text(client: mlflow.MlflowClient, run_id: str, name: str, text: str) -> None:
    """`keep` for a text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        keep(client, run_id, path)


def _digest_of(name: str) -> str:
    """The tag with the SHA-256 of a run's file; MLflow allows no other letters."""
    return "sha256/" + re.sub(r"[^\w./ -]", "_", name)


def environment() -> str:
    """The packages and their versions, a line each; the first line is Python's."""
    lines = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
    return "\n".join([f"# Python {sys.version.split()[0]}, {sys.platform}", *lines, ""])


def log_evaluation(run: Run, table: pd.DataFrame, batch: str | None, files: list[Path]) -> None:
    """Add an evaluation to its run: the plots, and each metric of the candidate.

    A metric of the test rows is `evaluated_...`; that of a later batch is `batch_...`, which MLflow
    draws over the months.
    """
    client, run_id = connect(), run.info.run_id
    candidate = table[(table["model"] == "candidate") & (table["segment"] == "all")].iloc[0]
    prefix = "evaluated" if batch is None else "batch"
    for name, value in candidate.iloc[3:].dropna().items():
        client.log_metric(run_id, f"{prefix}_{name}", float(value), step=step_of(batch or ""))
    for file in files:
        keep(client, run_id, file, f"evaluation/{batch or 'test'}")


def step_of(batch: str) -> int:
    """Where a batch is on MLflow's axis: the number that its digits make."""
    return int("".join(c for c in batch if c.isdigit())[:18] or 0)


@contextlib.contextmanager
def artifact(run: Run, name: str) -> Iterator[Path | None]:
    """A file that the run keeps, for as long as the block; None if it keeps none of that name.

    Raises UserError if it is not the file that was logged: whoever can write to the artifacts alone
    changes no code and no verdict.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = mlflow.artifacts.download_artifacts(
                run_id=run.info.run_id, artifact_path=name, dst_path=folder
            )
        except (mlflow.MlflowException, OSError):
            local = None
        if local is not None:
            digest = hashlib.sha256(Path(local).read_bytes()).hexdigest()
            tags = mlflow.MlflowClient().get_run(run.info.run_id).data.tags
            # Of a run from before there were such tags, all but the code is taken.
            known = any(tag.startswith("sha256/") for tag in tags) or name == "code.zip"
            if known and tags.get(_digest_of(name)) != digest:
                raise UserError(
                    f"run {run.info.run_id}: its file {name} is refused: it is not the one that was logged"
                )
        yield Path(local) if local else None


@contextlib.contextmanager
def decision(name: str) -> Iterator[str]:
    """A run in the experiment of decisions, for as long as the block; failed if the block fails."""
    connect("-decisions")
    try:
        with mlflow.start_run(run_name=name) as run:
            yield run.info.run_id
    finally:
        connect()


def find_run(run: str | None) -> Run:
    """The training run of this id, or the last that finished; UserError if there is none."""
    client = connect()
    if run is not None and run != "last":
        try:
            return client.get_run(run)
        except mlflow.MlflowException:
            raise UserError(f"no run has the id {run}: see `make ui`, or name `last`") from None
    last = last_run("tags.step = 'train'")
    if last is None:
        raise UserError("there is no finished run: run the step `train` first")
    return last


def last_run(wanted: str, part: str = "") -> Run | None:
    """The last run that finished, of those that an MLflow filter finds; `part` as in `connect`."""
    return next(iter(last_runs(wanted, 1, part)), None)


def last_runs(wanted: str, count: int, part: str = "", failed: bool = False) -> list[Run]:
    """The last runs that finished (or failed), newest first; `part` as in `connect`."""
    client = connect()
    name = experiment_name(part)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return []
    return client.search_runs(
        [experiment.experiment_id],
        wanted if failed else f"{wanted} and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=count,
    )
