"""The challenger beside the champion: what the gate judges, and the refit of what passes.

Neither is judged on rows that it was fitted on. What passes is fitted again on all rows, so that the
champion knows the newest ones too; the stored model is checked once more.
"""

import json

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline

from ... import data, feature_views
from ...experiment import dataset, tracking
from ...experiment.evaluate import predict
from ...experiment.params import Params, load
from ...experiment.registry import Loaded, load_model
from ...experiment.train import fit
from .. import settings
from . import gate


def rival(
    version: ModelVersion,
    champion: Pipeline,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    params: Params,
) -> Pipeline:
    """The champion as it may be judged on rows held out: it, or its recipe, fitted without them.

    That is the champion itself if it was fitted before them; else the run that the gate judged then,
    if that was; else its settings, fitted now on those of its rows that are not held out.
    """
    run = tracking.find_run(version.run_id)
    if _before(run, holdout, params):
        return champion
    if "judged_run" in run.data.tags:
        judged = tracking.find_run(run.data.tags["judged_run"])
        if _before(judged, holdout, params):
            return load_model(judged, params).model
    until, rows = run.data.params.get("fitted_until"), train
    if until is not None and params.data.time is not None:
        rows = train[train[params.data.time] <= pd.Timestamp(until)]
    kept = [*champion.named_steps["tidy"].kinds, params.data.target]
    return fit(rows[kept], _recipe(run, params))


def _before(run: Run, holdout: pd.DataFrame, params: Params) -> bool:
    """Whether a run was fitted on rows before those held out only."""
    if params.data.time is None:
        newest = dataset.batches(params.data)[-1].stem
        return run.data.params["last_batch"] < newest
    until = run.data.params.get("fitted_until")
    return until is not None and pd.Timestamp(until) < holdout[params.data.time].min()


def _recipe(run: Run, params: Params) -> Params:
    """The settings of the model with which a run was trained."""
    with tracking.artifact(run, "params.yaml") as path:
        if path is None:
            return params
        old = load(path)
    none_dropped = params.data.model_copy(update={"drop": []})
    changes = {"model": old.model, "seed": old.seed, "data": none_dropped}
    return params.model_copy(update=changes)


def checks(
    run: Run,
    version: ModelVersion | None,
    champion: Loaded | None,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    params: Params,
) -> list[gate.Check]:
    """The checks on a challenger's run; `rows` are those it was fitted on, and those held out."""
    limits, holdout = settings.load().gate, rows[1]
    loaded = load_model(run, params)
    judged = gate.predict_holdout(loaded.model, holdout, params)
    results = gate.against_baseline(judged, *rows, params)
    if version is not None and champion is not None:
        other = gate.predict_holdout(rival(version, champion.model, *rows, params), holdout, params)
        results = gate.against_champion(judged, other, holdout, params, limits) + results
        evaluated = record(version)
        if evaluated is not None and limits.doubt_rows:
            results.append(gate.doubt_rows(other, *rows, evaluated, params, limits))
    X, _ = data.xy(holdout, params, any_classes=True)
    inputs = holdout.reindex(columns=[*X, *params.data.drop])  # an older model may use dropped ones
    before = champion and champion.model
    results.append(gate.latency(loaded.model, before, inputs, limits.latency))
    return [*results, _signature(loaded, champion, limits)]


def record(version: ModelVersion) -> pd.DataFrame | None:
    """The table of `evaluate.compare` from when a version was judged, if its run kept that."""
    run = tracking.find_run(version.run_id)
    judged = tracking.find_run(run.data.tags.get("judged_run", version.run_id))
    with tracking.artifact(judged, "evaluation/test/evaluation.json") as path:
        return path and pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["table"])


def _signature(challenger: Loaded, champion: Loaded | None, limits: settings.Gate) -> gate.Check:
    supplied = [view.name for view in feature_views.VIEWS]
    return gate.signature(challenger.kinds, champion and champion.kinds, supplied, limits)


def refit(
    judged: Run, champion: Loaded | None, rows: pd.DataFrame, recipe: str, params: Params
) -> tuple[Run, list[gate.Check]]:
    """The recipe that passed, fitted on all rows and logged; and the checks on its stored model."""
    model, run_id = fit(rows, params), judged.data.tags.get("refit_run")
    if run_id is None:  # else whoever logged it was stopped later
        tags = {"step": "refit", "judged_run": judged.info.run_id, "recipe": recipe}
        batches = dataset.batches(params.data)
        run_id = tracking.log_training(model, rows, None, {}, batches, params, **tags)
        mlflow.MlflowClient().set_tag(judged.info.run_id, "refit_run", run_id)
    run = tracking.find_run(run_id)
    some, stored = rows.tail(1000), load_model(run, params)
    answers = gate.predict_holdout(stored.model, some, params)
    sane = gate.sanity(answers)
    if not np.allclose(answers.predicted, predict(model, data.xy(some, params, True)[0])):
        sane = gate.Check("sanity", False, None, None, "the stored model answers differently")
    results = [sane, _signature(stored, champion, settings.load().gate)]
    for check in results:
        check.message = f"fitted on all rows: {check.message}"
    return run, results
