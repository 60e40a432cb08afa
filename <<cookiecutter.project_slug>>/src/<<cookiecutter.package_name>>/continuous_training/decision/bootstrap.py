"""The bootstrap over days: intervals of a metric, and of the difference between two models.

Whole days are drawn, for the rows of one day are alike: intervals by row would be far too narrow. An
interval is what is left of the samples without their tails. A few days spread less than they should: there
it is one of Student's t (Hesterberg, What Teachers Should Know about the Bootstrap, 2015).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from sklearn import metrics as sk

from ...experiment.evaluate import GREATER_IS_BETTER
from ...experiment.params import Params

SAMPLES = 2000  # of the bootstrap
GROUPS = 50  # in place of days, where rows have no time
FEW_DAYS = 10
# How often each day counts (samples, days) -> the metric (samples,)
Metric = Callable[[np.ndarray], np.ndarray]


@dataclass
class DayPredictions:
    """A model's predictions of rows (n,), with the number of each row's day."""

    y: np.ndarray
    predicted: np.ndarray
    classes: np.ndarray | None
    day: np.ndarray

    def of(self, rows: np.ndarray) -> "DayPredictions":
        """The same for some of the rows; `rows` are their numbers, or whether each is one of them (n,)."""
        return DayPredictions(self.y[rows], self.predicted[rows], self.classes, self.day[rows])

    def with_classes(self, classes: np.ndarray) -> "DayPredictions":
        """The same with these classes; one that the model does not know has probability 0."""
        places = np.searchsorted(classes, np.asarray(self.classes))
        predicted = np.zeros((len(self.y), len(classes)))
        predicted[:, places] = self.predicted
        return replace(self, predicted=predicted, classes=classes)


def day_numbers(holdout: pd.DataFrame, params: Params) -> np.ndarray:
    """The number of each row's day; of a random group without a time column."""
    if params.data.time is None:
        return np.random.default_rng(params.seed).integers(GROUPS, size=len(holdout))
    return pd.factorize(holdout[params.data.time].dt.normalize(), sort=True)[0]


def metric_by_day(name: str, judged: DayPredictions, days: int | None = None) -> Metric:
    """A metric of evaluate.py, or `bias`, as a function of how often each day counts.

    Sums by day make a sample of the bootstrap a product of small matrices. For ROC AUC these are the
    pairs of a positive of one day with a negative of another that are ranked rightly.
    """
    y, predicted, classes, day = judged.y, judged.predicted, judged.classes, judged.day
    size = days or int(day.max()) + 1

    def sums(values: np.ndarray, of: np.ndarray = day) -> np.ndarray:
        return np.bincount(of, weights=values, minlength=size)

    def mean(values: np.ndarray, of: np.ndarray = day) -> Metric:
        total, rows = sums(values, of), sums(np.ones(len(of)), of)
        return lambda weights: weights @ total / (weights @ rows)

    if classes is None:
        error = predicted - y
        if name == "r2":
            square, values, squares = mean(error**2), mean(y), mean(y.astype(float) ** 2)
            return lambda w: 1 - square(w) / (squares(w) - values(w) ** 2)
        if name == "rmse":
            square = mean(error**2)
            return lambda weights: np.sqrt(square(weights))
        return mean(np.abs(error) if name == "mae" else error)
    if name == "accuracy":
        return mean((classes[predicted.argmax(axis=1)] == y).astype(float))
    known = np.isin(y, classes)
    y, predicted, day = y[known], predicted[known], day[known]
    truth = y[:, None] == classes[None, :]
    if name == "log_loss":
        return mean(-np.log((predicted * truth).sum(axis=1).clip(1e-15)), day)
    if name == "brier":
        halved = 2 if len(classes) == 2 else 1
        return mean(((predicted - truth) ** 2).sum(axis=1) / halved, day)
    present = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    columns = [k for k in present if len(classes) > 2 or k == 1]
    if not columns:
        return lambda weights: np.full(len(weights), np.nan)
    one = _auc if name == "roc_auc" else _precision
    parts = [one(truth[:, k], predicted[:, k], day, size) for k in columns]
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def _auc(truth: np.ndarray, score: np.ndarray, day: np.ndarray, size: int) -> Metric:
    positive, pairs = score[truth], np.zeros((size, size))
    for other in np.unique(day[~truth]):
        negative = np.sort(score[~truth & (day == other)])
        right = (
            sum(np.searchsorted(negative, positive, side=side) for side in ("left", "right")) / 2
        )
        pairs[:, other] = np.bincount(day[truth], weights=right, minlength=size)
    ups, downs = (np.bincount(day[side], minlength=size) for side in (truth, ~truth))
    return lambda w: np.einsum("si,ij,sj->s", w, pairs, w) / ((w @ ups) * (w @ downs))


def _precision(truth: np.ndarray, score: np.ndarray, day: np.ndarray, size: int) -> Metric:
    def metric(weights: np.ndarray) -> np.ndarray:
        rows = weights[:500, day]  # sorting each sample takes its time
        return np.array([sk.average_precision_score(truth, score, sample_weight=w) for w in rows])

    return metric


def gain(
    name: str, challenger: DayPredictions, champion: DayPredictions, tail: float = 0.025
) -> tuple[float, tuple[float, float], float]:
    """How much better the challenger is, an interval without the tails, and the champion's value.

    Both are judged on all classes that one of them knows.
    """
    pair = [challenger, champion]
    if challenger.classes is not None and champion.classes is not None:
        classes = np.union1d(challenger.classes, champion.classes)
        pair = [judged.with_classes(classes) for judged in pair]
    days = np.unique(np.concatenate([judged.day for judged in pair]))
    values = [_sampled(name, judged, days) for judged in pair]
    values = [np.abs(value) if name == "bias" else value for value in values]
    better = (values[0] - values[1]) * (1 if name in GREATER_IS_BETTER else -1)
    return float(better[0]), _interval(better, tail, len(days)), float(values[1][0])


def measure(
    name: str, judged: DayPredictions, tail: float = 0.025
) -> tuple[float, tuple[float, float]]:
    """A metric of a model, and its interval without the tails."""
    days = np.unique(judged.day)
    values = _sampled(name, judged, days)
    return float(values[0]), _interval(values, tail, len(days))


def _sampled(name: str, judged: DayPredictions, days: np.ndarray) -> np.ndarray:
    """The metric over days with these numbers: each once, then each sample (1 + SAMPLES,)."""
    judged = replace(judged, day=np.searchsorted(days, judged.day))
    with np.errstate(invalid="ignore"):  # a sample may leave nothing to measure
        return metric_by_day(name, judged, len(days))(_draws(len(days)))


def _draws(days: int) -> np.ndarray:
    """How often each day counts: once, and in each sample of the bootstrap (1 + SAMPLES, days)."""
    random = np.random.default_rng(0).multinomial(days, np.full(days, 1 / days), size=SAMPLES)
    return np.vstack([np.ones(days), random])


def _interval(values: np.ndarray, tail: float, days: int) -> tuple[float, float]:
    """The interval without the tails, of Student's t for a few days; NaN where there is but one."""
    if days == 1 or not np.isfinite(values[1:]).any():
        return np.nan, np.nan
    if days >= FEW_DAYS:
        low, high = np.nanquantile(values[1:], [tail, 1 - tail])
        return float(low), float(high)
    deviation = np.nanstd(values[1:]) * np.sqrt(days / (days - 1))
    width = stdtrit(days - 1, 1 - tail) * deviation
    return float(values[0] - width), float(values[0] + width)
