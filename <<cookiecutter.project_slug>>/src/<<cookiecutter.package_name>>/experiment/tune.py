"""Hyperparameter tuning: a random search over `candidates()` of model.py, by cross-validation.

The step `tune` logs a run a candidate, nested in one, and prints
the best as lines for params.yaml: taking them over is a person's decision. With a time column each
fold is validated on rows later than those it was fitted on.
"""

import logging
from collections.abc import Callable, Iterator

import mlflow
import numpy as np
import pandas as pd
import yaml
from sklearn.model_selection import KFold, ParameterSampler, TimeSeriesSplit
from tqdm import tqdm

from .. import data
from ..model import candidates
from . import labelled_rows, tracking
from .evaluate import GREATER_IS_BETTER
from .params import Params, load
from .train import fit, score

log = logging.getLogger(__name__)


Fold = tuple[np.ndarray, np.ndarray]  # row numbers to fit on, and to validate on


def folds(rows: int, params: Params) -> list[Fold]:
    """The folds of so many rows, which must be in order of time if there is one."""
    if params.data.time is not None:
        return list(TimeSeriesSplit(params.tune.folds).split(np.empty(rows)))
    splitter = KFold(params.tune.folds, shuffle=True, random_state=params.seed)
    return list(splitter.split(np.empty(rows)))


def with_arguments(params: Params, arguments: dict) -> Params:
    """The settings with other `model.arguments`."""
    merged = params.model.arguments | arguments
    return params.model_copy(
        update={"model": params.model.model_copy(update={"arguments": merged})}
    )


def fold_score(train: pd.DataFrame, fold: Fold, params: Params) -> float:
    """`evaluate.metric` on the rows to validate on, of a model that is fitted on the others."""
    fitted, validated = fold
    model = fit(train.iloc[fitted], params)
    return score(model, train.iloc[validated], params)[params.evaluate.metric]


def in_turn(train: pd.DataFrame, parts: list[Fold], tried: list[Params]) -> Iterator[float]:
    """The scores, candidate by candidate and fold by fold: each is fitted when it is asked for."""
    return (fold_score(train, fold, params) for params in tried for fold in parts)


Engine = Callable[[pd.DataFrame, list[Fold], list[Params]], Iterator[float]]


def run(engine: Engine = in_turn) -> None:
    params = load()
    tracking.connect()  # a store that is away stops the step before the work, not after
    frame = labelled_rows.load(params)
    train, _ = data.split(frame, params)
    if params.data.time is not None:
        train = train.sort_values(params.data.time, kind="stable")
    metric, parts = params.evaluate.metric, folds(len(train), params)
    drawn = list(ParameterSampler(candidates(), params.tune.candidates, random_state=params.seed))
    tried = [with_arguments(params, arguments) for arguments in drawn]
    fold_scores, means = engine(train, parts, tried), []
    with mlflow.start_run(run_name="tune"):
        mlflow.set_tags({"step": "tune"})
        mlflow.log_params(params.flat())
        for number, candidate in enumerate(tqdm(tried, desc="tune", unit="candidate")):
            scores = []
            with mlflow.start_run(run_name=f"candidate {number}", nested=True):
                mlflow.set_tags({"step": "candidate"})
                mlflow.log_params(candidate.model.arguments)
                for fold in range(len(parts)):
                    scores.append(next(fold_scores))
                    mlflow.log_metric(f"fold_{metric}", scores[-1], step=fold)
                means.append(float(np.mean(scores)))
                mlflow.log_metric(f"mean_{metric}", means[-1])
        sign = 1 if metric in GREATER_IS_BETTER else -1
        best = int(np.nanargmax(sign * np.array(means)))
        mlflow.log_metric(f"best_mean_{metric}", means[best])
        mlflow.log_dict(drawn[best], "best.yaml")
    log.info("best of %d: %s %.4f; for params.yaml:", len(drawn), metric, means[best])
    arguments = tried[best].model.arguments
    log.info("%s", yaml.safe_dump({"model": {"arguments": arguments}}, sort_keys=False).strip())
