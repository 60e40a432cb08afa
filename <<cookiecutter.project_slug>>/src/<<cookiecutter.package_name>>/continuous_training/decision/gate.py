"""The gate, model validation: may the challenger take the champion's place?

Both are judged on the rows held out, on which neither was fitted. The default rule protects: promote
unless worse by a tolerance. `gate.strict` asks for an interval that excludes zero. Intervals come from
a bootstrap over *days* (rows of one day are alike: by row they would be far too narrow).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from sklearn import metrics as sk
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from ... import data
from ...experiment.column_types import Kinds
from ...experiment.evaluate import GREATER_IS_BETTER, baseline, predict
from ...experiment.params import Params
from ..settings import Gate

SAMPLES = 2000  # of the bootstrap
GROUPS = 50  # in place of days, where rows have no time
SLOWER = 1.2  # times the champion's latency, where that is over the limit now
BUSY = 3  # times the limit, which no model may take
# How often each day counts (samples, days) -> the metric (samples,)
Metric = Callable[[np.ndarray], np.ndarray]


@dataclass
class Check:
    """One reason to refuse: `value` was measured, `limit` is what it had to keep."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    message: str
    interval: tuple[float, float] | None = None
    segment: str | None = None


@dataclass
class Judged:
    """A model's predictions of the rows held out, by day (n,)."""

    y: np.ndarray
    predicted: np.ndarray
    classes: np.ndarray | None
    day: np.ndarray

    def of(self, rows: np.ndarray) -> "Judged":
        return Judged(self.y[rows], self.predicted[rows], self.classes, self.day[rows])


def days(holdout: pd.DataFrame, params: Params) -> np.ndarray:
    """The number of each row's day; of a random group without a time column."""
    if params.data.time is None:
        return np.random.default_rng(params.seed).integers(GROUPS, size=len(holdout))
    return pd.factorize(holdout[params.data.time].dt.normalize(), sort=True)[0]


def judge(model: Pipeline, holdout: pd.DataFrame, params: Params) -> Judged:
    X, y = data.xy(holdout, params, any_classes=True)
    X = holdout.reindex(columns=[*X, *params.data.drop])  # an older model may use dropped ones
    classes = getattr(model, "classes_", None)
    return Judged(y, predict(model, X), classes, days(holdout, params))


def by_day(name: str, judged: Judged, days: int | None = None) -> Metric:
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
    name: str, challenger: Judged, champion: Judged, tail: float = 0.025
) -> tuple[float, tuple[float, float], float]:
    """How much better the challenger is, an interval without the tails, and the champion's value."""
    size = int(max(challenger.day.max(), champion.day.max())) + 1
    with np.errstate(invalid="ignore"):  # a sample may leave nothing to measure
        values = [by_day(name, judged, size)(_draws(size)) for judged in (challenger, champion)]
    values = [np.abs(value) if name == "bias" else value for value in values]
    better = (values[0] - values[1]) * (1 if name in GREATER_IS_BETTER else -1)
    return float(better[0]), _interval(better, tail, size), float(values[1][0])


def measure(name: str, judged: Judged, tail: float = 0.025) -> tuple[float, tuple[float, float]]:
    """A metric of a model, and its interval without the tails."""
    days, place = np.unique(judged.day, return_inverse=True)
    with np.errstate(invalid="ignore"):
        values = by_day(name, replace(judged, day=place))(_draws(len(days)))
    return float(values[0]), _interval(values, tail, len(days))


def _draws(days: int) -> np.ndarray:
    """How often each day counts: once, and in each sample of the bootstrap (1 + SAMPLES, days)."""
    random = np.random.default_rng(0).multinomial(days, np.full(days, 1 / days), size=SAMPLES)
    return np.vstack([np.ones(days), random])


def _interval(values: np.ndarray, tail: float, days: int) -> tuple[float, float]:
    """What is left of the samples without the tails; NaN where there is but one day."""
    if days == 1 or not np.isfinite(values[1:]).any():
        return np.nan, np.nan
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return float(low), float(high)


def against(
    challenger: Judged, champion: Judged, segments: pd.DataFrame, params: Params, gate: Gate
) -> list[Check]:
    """The checks `metric`, `calibration` and `segment`; `segments` are columns of the rows held out."""
    name: str = params.evaluate.metric
    value, interval, own = gain(name, challenger, champion)
    limit = -gate.tolerance * (1 if name in GREATER_IS_BETTER else abs(own))
    passed = interval[0] > 0 if gate.strict else value >= limit
    rule = "must be better with 95 % confidence" if gate.strict else f"may be worse by {-limit:.4g}"
    message = f"{name} is {_signed(value)} than the champion's {own:.4g}; it {rule}"
    checks = [Check("metric", passed, value, 0.0 if gate.strict else limit, message, interval)]

    name = "bias" if params.task == "regression" else "brier"
    value, interval, own = gain(name, challenger, champion)
    scale = gain("mae", challenger, champion)[2] if params.task == "regression" else own
    limit = -gate.calibration_tolerance * scale
    message = (
        f"{name} is {_signed(value)} than the champion's {own:.4g}; it may be worse by {-limit:.4g}"
    )
    checks.append(Check("calibration", value >= limit, value, limit, message, interval))

    name = params.evaluate.metric
    for part, rows in parts(segments, params, gate).items():
        value, interval, own = gain(name, challenger.of(rows), champion.of(rows))
        limit = -gate.segment_tolerance * (1 if name in GREATER_IS_BETTER else abs(own))
        passed = not interval[1] < limit  # a metric that is undefined there is no reason
        message = f"{part}: {name} is {_signed(value)} than the champion's {own:.4g};"
        message += f" it may not be worse by {-limit:.4g} with 95 % confidence"
        checks.append(Check("segment", passed, value, limit, message, interval, part))
    return checks


def parts(segments: pd.DataFrame, params: Params, gate: Gate) -> dict[str, np.ndarray]:
    """The segments that are large enough to judge: "column = value" -> whether a row is in it (n,)."""
    large = {}
    for column in params.evaluate.segments:
        for part, count in segments[column].value_counts().head(10).items():
            if count >= gate.segment_rows:
                large[f"{column} = {part}"] = (segments[column] == part).to_numpy(bool)
    return large


def suspect(
    champion: Judged,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    record: pd.DataFrame,
    params: Params,
    gate: Gate,
) -> Check:
    """The check `sanity` of the rows held out: the champion is not suddenly worthless on them.

    If it beat the baseline when it was judged (`record`: the table of that evaluation) and is now surely
    worse, as a whole or in a segment, labels or inputs are likely wrong, as the labels of one place
    inverted. A challenger that has learnt them only looks better than the champion.
    """
    name = params.evaluate.metric if params.task == "regression" else "brier"
    sign, dummy = (1 if name in GREATER_IS_BETTER else -1), baseline(train, params)
    before = record.pivot_table(name, "segment", "model") * sign
    better, other = before["candidate"] > before["baseline"], judge(dummy, holdout, params)
    lost = []
    for part, rows in {"all": np.ones(len(holdout), bool), **parts(holdout, params, gate)}.items():
        _, interval, own = gain(name, champion.of(rows), other.of(rows))
        limit = -gate.segment_tolerance * (1 if name in GREATER_IS_BETTER else abs(own))
        if better.get(part, False) and interval[1] < limit:
            lost.append(part)
    message = "the champion is nowhere suddenly worse than the baseline"
    if lost:
        message = "are these rows right? The champion, better than the baseline when it was judged,"
        message += (
            f" is surely worse now ({name}): {', '.join(lost)}; if they are, unset gate.doubt_rows"
        )
    return Check("sanity", not lost, float(len(lost)), 0.0, message)


def alone(
    judged: Judged, train: pd.DataFrame, holdout: pd.DataFrame, params: Params
) -> list[Check]:
    """The checks that need no champion: `baseline` and `sanity`."""
    name, dummy = params.evaluate.metric, baseline(train, params)
    value, interval, own = gain(name, judged, judge(dummy, holdout, params), tail=0.05)
    passed = interval[0] > 0 if np.isfinite(interval[0]) else value > 0
    message = f"{name} is {_signed(value)} than the baseline's {own:.4g}"
    message += "; it must be better with 95 % confidence"
    return [Check("baseline", passed, value, 0.0, message, interval), sanity(judged)]


def sanity(judged: Judged) -> Check:
    """Predictions are finite, differ from row to row, and are probabilities where they should be."""
    answers = judged.predicted
    if not np.isfinite(answers).all():
        wrong = f"{(~np.isfinite(answers)).sum():,} predictions are no finite numbers"
    elif len(answers) > 1 and np.ptp(answers.reshape(len(answers), -1), axis=0).max() == 0:
        wrong = "every row gets the same prediction"
    elif judged.classes is not None and np.abs(answers.sum(axis=1) - 1).max() > 1e-6:
        wrong = "the probabilities of a row do not add up to 1"
    else:
        return Check("sanity", True, None, None, "predictions are finite and differ")
    return Check("sanity", False, None, None, wrong)


def latency(
    challenger: Pipeline, champion: Pipeline | None, rows: pd.DataFrame, limit: float
) -> Check:
    """The median milliseconds that one row takes, in one thread as in the service.

    A busy machine makes every model slow, so the champion is measured in turn: where it is over the limit
    too, a fifth more than it takes now is allowed, but never BUSY times the limit. Before it refuses, it
    measures twice more.
    """
    for _ in range(3):
        value, own = milliseconds([challenger, champion or challenger], rows)
        allowed = max(limit, min(SLOWER * own, BUSY * limit)) if champion else limit
        if value <= allowed:
            break
    message = f"one row takes {value:.1f} ms, allowed are {allowed:.4g}"
    if champion:
        message += f" (the champion takes {own:.1f} ms now)"
    return Check("latency", value <= allowed, value, allowed, message)


def milliseconds(models: list[Pipeline], rows: pd.DataFrame) -> list[float]:
    """The median time that each model takes for one row, of twenty, in turn and in one thread."""
    taken: list[list[float]] = []
    with threadpool_limits(1):
        for number in range(21):
            row, times = rows.iloc[[number % len(rows)]], []
            for model in models:
                start = time.perf_counter()
                predict(model, row)
                times.append((time.perf_counter() - start) * 1000)
            taken.append(times)
    return [float(median) for median in np.median(taken[1:], axis=0)]  # the first one warms up


def signature(challenger: Kinds, champion: Kinds | None, supplied: list[str], gate: Gate) -> Check:
    """Whoever calls the champion can call the challenger: no new input, none of another kind.

    But for those that are `supplied`: the feature store has them.
    """
    given = {c: kind for c, kind in challenger.items() if c not in supplied}
    new = [c for c, kind in given.items() if (champion or given).get(c) != kind]
    allowed = gate.new_inputs or not new
    message = "the inputs are the champion's" if champion else "there is no champion to replace"
    if new:
        message = f"inputs that the champion does not take: {', '.join(new)} (gate.new_inputs)"
    return Check("signature", allowed, float(len(new)), None if gate.new_inputs else 0.0, message)


def _signed(value: float) -> str:
    if np.isnan(value):
        return "neither better nor worse (it cannot be told on these rows)"
    return f"{abs(value):.4g} {'better' if value >= 0 else 'worse'}"


def as_json(check: Check) -> dict:
    """A check for gate.json, in which a number that is undefined is null."""
    content = asdict(check)
    for key in ("value", "limit"):
        if content[key] is not None and not np.isfinite(content[key]):
            content[key] = None
    if content["interval"] is not None:
        content["interval"] = [float(v) if np.isfinite(v) else None for v in content["interval"]]
    return content | {"passed": bool(check.passed)}
