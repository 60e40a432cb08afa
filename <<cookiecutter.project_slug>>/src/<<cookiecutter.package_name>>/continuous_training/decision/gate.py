"""The gate, model validation: may the challenger take the champion's place?

Both are judged on the rows held out, on which neither was fitted. The default rule protects: promote
unless worse by a tolerance. `gate.strict` asks for an interval that excludes zero (bootstrap.py).
"""

import time
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from ... import data
from ...experiment.column_types import Kinds
from ...experiment.evaluate import GREATER_IS_BETTER, baseline, predict
from ...experiment.params import Params
from ..settings import Gate
from .bootstrap import DayPredictions, day_numbers, gain

SLOWER = 1.2  # times the champion's latency, where that is over the limit now
BUSY = 3  # times the limit, which no model may take


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


def predict_holdout(model: Pipeline, holdout: pd.DataFrame, params: Params) -> DayPredictions:
    """A model's predictions of the rows held out, for the bootstrap over days."""
    X, y = data.xy(holdout, params, any_classes=True)
    X = holdout.reindex(columns=[*X, *params.data.drop])  # an older model may use dropped ones
    classes = getattr(model, "classes_", None)
    return DayPredictions(y, predict(model, X), classes, day_numbers(holdout, params))


def against_champion(
    challenger: DayPredictions,
    champion: DayPredictions,
    segments: pd.DataFrame,
    params: Params,
    gate: Gate,
) -> list[Check]:
    """The checks `metric`, `calibration` and `segment`; `segments` are columns of the rows held out."""
    name: str = params.evaluate.metric
    value, interval, own = gain(name, challenger, champion)
    limit = -gate.tolerance * (1 if name in GREATER_IS_BETTER else abs(own))
    few = too_little(challenger, params, gate)
    strict = gate.strict or few is not None
    passed = interval[0] > 0 if strict else value >= limit
    rule = "must be better with 95 % confidence" if strict else f"may be worse by {-limit:.4g}"
    message = f"{name} is {_signed(value)} than the champion's {own:.4g}; it {rule}"
    if few:
        message += f", for so little is held out: {few} (gate.at_least)"
    checks = [Check("metric", passed, value, 0.0 if strict else limit, message, interval)]

    name = "bias" if params.task == "regression" else "brier"
    value, interval, own = gain(name, challenger, champion)
    scale = gain("mae", challenger, champion)[2] if params.task == "regression" else own
    limit = -gate.calibration_tolerance * scale
    message = f"{name} is {_signed(value)} than the champion's {own:.4g}; it may be worse by"
    message += f" {-limit:.4g}" + (", or by chance, for so little is held out" if few else "")
    passed = value >= limit or (few is not None and interval[1] >= 0)
    checks.append(Check("calibration", passed, value, limit, message, interval))

    name = params.evaluate.metric
    for part, rows in segments_of(segments, params, gate).items():
        value, interval, own = gain(name, challenger.of(rows), champion.of(rows))
        limit = -gate.segment_tolerance * (1 if name in GREATER_IS_BETTER else abs(own))
        passed = not interval[1] < limit  # a metric that is undefined there is no reason
        message = f"{part}: {name} is {_signed(value)} than the champion's {own:.4g};"
        message += f" it may not be worse by {-limit:.4g} with 95 % confidence"
        checks.append(Check("segment", passed, value, limit, message, interval, part))
    return checks


def too_little(judged: DayPredictions, params: Params, gate: Gate) -> str | None:
    """What of `gate.at_least` the rows held out do not have; then chance would decide between two models."""
    numbers = {"rows": len(judged.y)}
    if params.data.time is not None:
        numbers["days"] = len(np.unique(judged.day))
    if judged.classes is not None:
        numbers["minority"] = len(judged.y) - int(np.unique(judged.y, return_counts=True)[1].max())
    least = gate.at_least.model_dump()
    few = [f"{n:,} of {least[name]:,} {name}" for name, n in numbers.items() if n < least[name]]
    return ", ".join(few) or None


def segments_of(segments: pd.DataFrame, params: Params, gate: Gate) -> dict[str, np.ndarray]:
    """The segments that are large enough to judge: "column = value" -> whether a row is in it (n,)."""
    large = {}
    for column in params.evaluate.segments:
        for part, count in segments[column].value_counts().head(10).items():
            if count >= gate.segment_rows:
                large[f"{column} = {part}"] = (segments[column] == part).to_numpy(bool)
    return large


def doubt_rows(
    champion: DayPredictions,
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
    better, other = (
        before["candidate"] > before["baseline"],
        predict_holdout(dummy, holdout, params),
    )
    lost = []
    for part, rows in {
        "all": np.ones(len(holdout), bool),
        **segments_of(holdout, params, gate),
    }.items():
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


def against_baseline(
    judged: DayPredictions, train: pd.DataFrame, holdout: pd.DataFrame, params: Params
) -> list[Check]:
    """The checks that need no champion: `baseline` and `sanity`."""
    name, dummy = params.evaluate.metric, baseline(train, params)
    value, interval, own = gain(name, judged, predict_holdout(dummy, holdout, params), tail=0.05)
    passed = interval[0] > 0 if np.isfinite(interval[0]) else value > 0
    message = f"{name} is {_signed(value)} than the baseline's {own:.4g}"
    message += "; it must be better with 95 % confidence"
    return [Check("baseline", passed, value, 0.0, message, interval), sanity(judged)]


def sanity(judged: DayPredictions) -> Check:
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
    models = [challenger, champion] if champion else [challenger]
    for _ in range(3):
        value, *others = milliseconds(models, rows)
        allowed = limit
        if others:
            allowed = max(limit, min(SLOWER * others[0], BUSY * limit))
        if value <= allowed:
            break
    message = f"one row takes {value:.1f} ms, allowed are {allowed:.4g}"
    if others:
        message += f" (the champion takes {others[0]:.1f} ms now)"
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
