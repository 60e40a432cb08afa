"""Training: fit the model on the older rows, measure it on the newest, log the run in MLflow.

The step `train` prints the id of the run, which `evaluate` and
`register` take.
"""

import logging

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from .. import data
from ..model import build
from . import dataset, labelled_rows, tracking
from .evaluate import metrics, predict
from .params import Params, load

log = logging.getLogger(__name__)


def fit(train: pd.DataFrame, params: Params) -> Pipeline:
    """The pipeline of model.py, fitted on rows that have a target."""
    X, y = data.xy(train, params)
    return build(X, params).fit(X, y)


def score(model: Pipeline, rows: pd.DataFrame, params: Params) -> dict[str, float]:
    """The metrics of evaluate.py for a fitted model on rows that have a target."""
    X, y = data.xy(rows, params, any_classes=True)
    return metrics(y, predict(model, X), getattr(model, "classes_", None))


def run() -> None:
    params = load()
    tracking.connect()  # a store that is away stops the step before the work, not after
    paths, frame = dataset.batches(params.data), labelled_rows.load(params)
    train, test = data.split(frame, params)
    log.info("training on %s rows of %d batches", f"{len(train):,}", len(paths))
    model = fit(train, params)
    metrics_by_rows = {
        f"train_{name}": value for name, value in score(model, train, params).items()
    }
    metrics_by_rows |= {f"test_{name}": value for name, value in score(model, test, params).items()}
    run_id = tracking.log_training(model, train, test, metrics_by_rows, paths, params)
    for name, value in metrics_by_rows.items():
        if name.startswith("test_") and np.isfinite(value):
            log.info("%s %.4f", name, value)
    log.info("run %s: look at it with `make ui`, then evaluate and register it", run_id)
