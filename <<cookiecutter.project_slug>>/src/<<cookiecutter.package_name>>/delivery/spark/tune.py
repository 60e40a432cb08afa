"""Hyperparameter tuning as at level 0, in process or on Spark: a task for each candidate and fold.

The step `tune --engine spark` finds the same best parameters: the
candidates, the folds and the metric are the same.
"""

import json
from collections.abc import Iterator

import pandas as pd

from ...experiment import tune
from ...experiment.params import Params
from . import tasks


def run(engine: str) -> None:
    engines = {"local": tune.in_turn, "spark": scores}
    tune.run(engines[engine])


def scores(train: pd.DataFrame, parts: list[tune.Fold], tried: list[Params]) -> Iterator[float]:
    """What `in_turn` of level 0 makes one after the other."""
    count = len(tried) * len(parts)
    for answer in tasks.answers(scored, (train, parts, tried), count):
        yield json.loads(answer)


def scored(shared: tuple, number: int) -> Iterator[bytes]:
    """A task: the score of one candidate on one fold."""
    train, parts, tried = shared
    candidate, fold = divmod(number, len(parts))
    yield json.dumps(tune.fold_score(train, parts[fold], tried[candidate])).encode()
