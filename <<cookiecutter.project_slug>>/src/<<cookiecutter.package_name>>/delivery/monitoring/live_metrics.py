"""Live metrics: how well the versions of an environment predict, on the predictions that have a label by now.

Intervals come from the gate's bootstrap over days. A verdict takes enough labelled rows on at least
MIN_DAYS days: rows of one day are alike, so that fewer days say little.
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from ... import data
from ...continuous_training.decision import bootstrap, gate
from ...experiment.evaluate import GREATER_IS_BETTER, metrics
from ...experiment.params import Params
from .label_join import Labelled

MIN_DAYS = 5  # for a verdict
MIN_BIN_ROWS = 30  # for the metric of a time bin
MIN_SHARED = 0.1  # of a version's rows; with fewer it did not run beside the other version
HOUR, DAY = 3600, 24 * 3600  # seconds
BIN_SECONDS = [60, 300, 900, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR]
BIN_SECONDS += [DAY, 2 * DAY, 7 * DAY, 28 * DAY]


def bin_width(seconds: float, bins: int) -> int:
    """The narrowest of BIN_SECONDS of which so many seconds take no more than `bins`."""
    return next((width for width in BIN_SECONDS if seconds / width <= bins), BIN_SECONDS[-1])


def for_gate(versions: list[Labelled], params: Params) -> list[bootstrap.DayPredictions]:
    """The labelled predictions of each version as the gate takes them; a day has one number in all."""
    days = bootstrap.day_numbers(pd.concat([version.labels for version in versions]), params)
    converted = []
    start = 0
    for version in versions:
        end = start + len(version.labels)
        predicted = np.array([json.loads(p) for p in version.rows["prediction"]], float)
        _, y = data.xy(version.labels.assign(**{"": 0.0}), params, any_classes=True)
        converted.append(bootstrap.DayPredictions(y, predicted, version.classes, days[start:end]))
        start = end
    return converted


def enough_labels(judged: bootstrap.DayPredictions, rows: int) -> bool:
    """Whether so many rows, on MIN_DAYS days, have a label."""
    return len(judged.y) >= rows and len(np.unique(judged.day)) >= MIN_DAYS


def surely_worse(
    name: str, value: float, interval: tuple[float, float], allowed: float
) -> bool | None:
    """Whether all of a metric's interval is worse than allowed; None if only its value is worse."""
    sign = 1 if name in GREATER_IS_BETTER else -1
    best = interval[1] if sign > 0 else interval[0]
    if sign * (best - allowed) < 0:
        return True
    return False if sign * (value - allowed) >= 0 else None


def all_metrics(judged: bootstrap.DayPredictions, params: Params) -> dict[str, Any]:
    """`metrics`, and `value` and `interval` of the one that `evaluate.metric` names."""
    value, interval = bootstrap.measure(params.evaluate.metric, judged)
    every = metrics(judged.y, judged.predicted, judged.classes)
    return {"value": value, "interval": interval, "metrics": every}


def segments(
    judged: bootstrap.DayPredictions,
    labels: pd.DataFrame,
    record: pd.DataFrame | None,
    limits: gate.Gate,
    params: Params,
) -> list[dict[str, Any]]:
    """The metric of each segment, beside that when the version was judged (`record`, if it was kept).

    Their intervals together hold with 95 % confidence: of many segments one is worse by chance.
    """
    name = params.evaluate.metric
    references = {}
    if record is not None:
        own = record[(record["model"] == "candidate") & (record["rows"] >= limits.segment_rows)]
        references = own.set_index("segment")[name].to_dict()
    parts = gate.segments_of(labels, params, limits)
    measured = []
    for segment, chosen in parts.items():
        part = judged.of(chosen)
        value, interval = bootstrap.measure(name, part, 0.025 / len(parts))
        reference = references.get(segment, np.nan)
        scale = 1 if name in GREATER_IS_BETTER else -abs(reference)
        allowed = reference - limits.segment_tolerance * scale
        worse = surely_worse(name, value, interval, allowed) if enough_labels(part, 1) else None
        entry = {"segment": segment, "rows": int(chosen.sum()), "value": value}
        entry |= {"interval": interval, "reference": reference, "allowed": allowed, "worse": worse}
        measured.append(entry)
    return measured


def over_time(
    judged: bootstrap.DayPredictions, time: np.ndarray, name: str, min_width: int
) -> list[dict[str, Any]]:
    """A metric by the time of the prediction (n,), in seconds since 1970.

    The bins are `min_width` seconds wide, or wider, to hold enough rows. If a bin has fewer than MIN_DAYS
    days its interval is by row: narrower than it would be by day.
    """
    for width in (width for width in BIN_SECONDS if width >= min_width):
        _, counts = np.unique(time // width, return_counts=True)
        if np.median(counts) >= 5 * MIN_BIN_ROWS:
            break
    measured = []
    for place in np.unique(time // width):
        part = judged.of(time // width == place)
        rows = len(part.y)
        if rows < MIN_BIN_ROWS:
            continue
        if len(np.unique(part.day)) < MIN_DAYS:
            part.day = np.random.default_rng(0).integers(bootstrap.GROUPS, size=rows)
        value, interval = bootstrap.measure(name, part)
        if np.isfinite(value):
            start = float(place * width)
            entry = {"from": start, "to": start + width, "rows": rows}
            measured.append(entry | {"value": value, "interval": interval})
    return measured


def compare_versions(
    main: Labelled, other: Labelled, main_number: int, min_rows: int, params: Params
) -> dict[str, Any] | None:
    """`{better, interval, verdict, message}` of another version; None if both did not run together.

    A shadow is compared on the rows that both scored, a canary on those of the same time.
    """
    rows = [version.rows for version in (main, other)]
    if other.rows["shadow"].any():
        keys = [pd.MultiIndex.from_frame(frame[["request", "row"]]) for frame in rows]
        chosen = [keys[0].isin(keys[1]), keys[1].isin(keys[0])]
    else:
        first = max(frame["time"].min() for frame in rows)
        last = min(frame["time"].max() for frame in rows)
        chosen = [frame["time"].between(first, last).to_numpy() for frame in rows]
    if not chosen[0].any() or chosen[1].mean() < MIN_SHARED:
        return None
    shared = [
        version._replace(rows=version.rows[mask], labels=version.labels[mask])
        for version, mask in zip((main, other), chosen, strict=True)
    ]
    before, now = for_gate(shared, params)
    name = params.evaluate.metric
    better, interval, reference = bootstrap.gain(name, now, before)
    verdict = "not told apart yet"
    if enough_labels(before, min_rows) and enough_labels(now, min_rows):
        verdict = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else verdict
    message = f"{verdict}: {name} {better:+.4g} (95 %: {interval[0]:+.4g} to {interval[1]:+.4g})"
    message += f" against version {main_number}'s {reference:.4g},"
    message += f" on {len(now.y):,} and {len(before.y):,} labelled rows"
    return {"better": better, "interval": interval, "verdict": verdict, "message": message}
