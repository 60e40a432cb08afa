"""Model evaluation: one run against the baseline and the champion, on the same rows.

The step `evaluate` looks at the test rows, with `--batch 2013-04`
at a later batch: monitoring by hand. It writes reports/evaluation.json and the plots beside it, and
logs both in the evaluated run.
"""

import json
import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline

from .. import data
from . import labelled_rows, reports, tracking
from .calibration import calibration
from .column_types import json_rows
from .errors import UserError
from .params import ROOT, Params, load
from .registry import find_version, load_model

log = logging.getLogger(__name__)

GREATER_IS_BETTER = {"roc_auc", "average_precision", "accuracy", "r2"}


def predict(model: Pipeline, X: pd.DataFrame) -> np.ndarray:
    """Probabilities (n, classes) of a classifier, or the values (n,) of a regressor."""
    return model.predict_proba(X) if hasattr(model, "classes_") else model.predict(X)


def metrics(y: np.ndarray, predicted: np.ndarray, classes: np.ndarray | None) -> dict[str, float]:
    """Metrics of `predict`'s answer; NaN where the rows allow none, such as AUC of one class.

    Rows of a class that the model has never seen count as errors in `accuracy` and are left out of
    the rest. `calibration_error` is the expected calibration error over ten equal-count bins.
    """
    if classes is None:
        error = predicted - y
        return {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "r2": float(sk.r2_score(y, predicted)) if len(y) > 1 else np.nan,
            "bias": float(error.mean()),
        }
    accuracy = float((classes[predicted.argmax(axis=1)] == y).mean())
    known = np.isin(y, classes)
    y, predicted = y[known], predicted[known]
    truth = (y[:, None] == classes[None, :]).astype(float)
    values = {
        "accuracy": accuracy,
        "log_loss": np.nan,
        "brier": np.nan,
        "calibration_error": np.nan,
    }
    values |= {"roc_auc": np.nan, "average_precision": np.nan}
    if len(y):
        likelihood = (predicted * truth).sum(axis=1)
        values["log_loss"] = float(-np.log(likelihood.clip(1e-15)).mean())
        halved = 2 if len(classes) == 2 else 1  # two classes: the usual score of one of them
        values["brier"] = float(((predicted - truth) ** 2).sum(axis=1).mean() / halved)
        values["calibration_error"] = calibration(truth[:, -1], predicted[:, -1])[1]
    present = truth.any(axis=0) & ~truth.all(axis=0)
    if present.any():  # one class against the others; the mean over classes if more than two
        columns = [len(classes) - 1] if len(classes) == 2 else np.flatnonzero(present)
        pairs = [(truth[:, k], predicted[:, k]) for k in columns]
        values["roc_auc"] = float(np.mean([sk.roc_auc_score(*pair) for pair in pairs]))
        values["average_precision"] = float(
            np.mean([sk.average_precision_score(*pair) for pair in pairs])
        )
    return values


def baseline(train: pd.DataFrame, params: Params) -> DummyClassifier | DummyRegressor:
    """What a model must beat: the shares of the classes, or the median, of the training rows."""
    X, y = data.xy(train, params)
    dummy = DummyClassifier(strategy="prior")
    if params.task == "regression":
        dummy = DummyRegressor(strategy="median")
    return dummy.fit(np.zeros((len(X), 1)), y)


def compare(models: dict[str, Pipeline], rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Metrics by model and segment on the same rows.

    Returns the columns model, segment ("all" or "column = value", the ten largest a column), rows
    and one column a metric.
    """
    X, y = data.xy(rows, params, any_classes=True)
    segments = {"all": np.ones(len(rows), bool)}
    for column in params.evaluate.segments:
        if column not in rows:
            raise UserError(f"params.yaml: evaluate.segments: no column is called {column!r}")
        for value in rows[column].value_counts().index[:10]:
            segments[f"{column} = {value}"] = (rows[column] == value).to_numpy(bool)
    table = []
    for name, model in models.items():
        predicted, classes = predict(model, X), getattr(model, "classes_", None)
        for segment, chosen in segments.items():
            values = metrics(y[chosen], predicted[chosen], classes)
            table.append({"model": name, "segment": segment, "rows": int(chosen.sum()), **values})
    return pd.DataFrame(table)


def report(
    table: pd.DataFrame, rows: pd.DataFrame, of: str, params: Params, notes: Sequence[str] = ()
) -> dict:
    """What evaluation.json keeps: the table of `compare`, and which rows it is about."""
    time = pd.Series() if params.data.time is None else rows[params.data.time]
    first, last = (str(time.min()), str(time.max())) if len(time) else (None, None)
    return {
        "rows": {"of": of, "count": len(rows), "from": first, "to": last},
        "metric": params.evaluate.metric,
        "notes": list(notes),
        "table": [json.loads(row) for row in json_rows(table)],
    }


def run(run: str = "last", batch: str | None = None) -> None:
    from . import plots  # matplotlib takes a second, and the service has none

    params = load()
    client, candidate = tracking.connect(), tracking.find_run(run)
    champion = find_version(client, params.register_.name, "champion")
    frame = labelled_rows.load(params)
    train, rows = data.split(frame, params)
    if batch is not None:
        rows = labelled_rows.load(params, batch)
    models = {"candidate": load_model(candidate, params).model, "baseline": baseline(train, params)}
    other = champion
    if champion is not None and champion.run_id == candidate.info.run_id:
        other = None  # this run is the champion itself
    if other is not None:
        models["champion"] = load_model(other, params).model
    table = compare(models, rows, params)
    metric = params.evaluate.metric
    notes = _notes(candidate, other, rows, params)
    if champion is not None and other is None:
        notes.append(f"this run is the champion, version {champion.version}")
    written = report(table, rows, batch or "test", params, notes)
    written |= {"run": candidate.info.run_id}
    written |= {"champion": int(champion.version) if champion else None}
    folder = ROOT / "reports"
    reports.write_json("evaluation.json", written)
    figures = plots.evaluation(models["candidate"], rows, table, params)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    files = [folder / "evaluation.json", *(folder / f"{name}.png" for name in figures)]
    tracking.log_evaluation(candidate, table, batch, files)
    shown = table[["model", "segment", "rows", metric]]
    log.info("%s", shown.pivot_table(metric, ["segment", "rows"], "model", sort=False).round(4))
    for note in notes:
        log.warning("%s", note)
    log.info("wrote reports/evaluation.json and %s", ", ".join(f"{n}.png" for n in figures))


def _notes(candidate, champion, rows: pd.DataFrame, params: Params) -> list[str]:
    """A model looks better than it is on rows that it was fitted on: say which, and how many."""
    if params.data.time is None:
        return []
    notes, fits = [], {"candidate": candidate}
    if champion is not None:
        fits["champion"] = tracking.find_run(champion.run_id)
    for name, fitted in fits.items():
        until = fitted.data.params.get("fitted_until")
        share = (rows[params.data.time] <= pd.Timestamp(until)).mean() if until else 0
        if share:
            notes.append(f"the {name} was fitted until {until}, on {share:.0%} of these rows")
    return notes
