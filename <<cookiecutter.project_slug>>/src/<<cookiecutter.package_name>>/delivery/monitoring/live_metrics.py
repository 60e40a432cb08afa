"""Live metrics: how the versions of an environment do on the predictions that have a label by now.

Intervals come from the gate's bootstrap over days. A verdict takes enough labelled rows on at least
DAYS days: rows of one day are alike, so that fewer say little.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...continuous_training.decision import gate
from ...experiment.evaluate import GREATER_IS_BETTER, metrics
from ...experiment.params import Params
from .label_join import Joined

DAYS = 5
SHARED = 0.1  # of a version's rows; with fewer it was not beside the other, but before or after it
HOUR, DAY = 3600, 24 * 3600  # seconds
WIDTHS = [60, 300, 900, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 28 * DAY]
FEW = 30  # rows below which a bin has no metric


class Arm(NamedTuple):
    """A version's labelled predictions, side by side, and the classes of the model."""

    joined: Joined
    classes: np.ndarray | None


def width(seconds: float, bins: int) -> int:
    """The narrowest width of which so many seconds hold no more than `bins`."""
    return next((w for w in WIDTHS if seconds / w <= bins), WIDTHS[-1])


def judged(arms: list[Arm], params: Params) -> list[gate.Judged]:
    """The predictions of each arm as the gate judges them; a day has the same number in all."""
    from ... import data

    labels = pd.concat([arm.joined.labels for arm in arms])
    day, start, found = gate.days(labels, params), 0, []
    for arm in arms:
        rows, part = arm.joined.labels, slice(start, start + len(arm.joined.labels))
        predicted = np.array([json.loads(p) for p in arm.joined.rows["prediction"]], float)
        _, y = data.xy(rows.assign(**{"": 0.0}), params, any_classes=True)
        found.append(gate.Judged(y, predicted, arm.classes, day[part]))
        start += len(rows)
    return found


def enough(its: gate.Judged, rows: int) -> bool:
    return len(its.y) >= rows and len(np.unique(its.day)) >= DAYS


def worse(name: str, interval: tuple[float, float], value: float, limit: float) -> bool | None:
    """Whether a metric is surely worse than its limit; None if that cannot be told."""
    sign = 1 if name in GREATER_IS_BETTER else -1
    best = interval[1] if sign > 0 else interval[0]
    if sign * (best - limit) < 0:
        return True
    return False if sign * (value - limit) >= 0 else None


def whole(its: gate.Judged, params: Params) -> dict[str, Any]:
    """All metrics, and that of `evaluate.metric` with its interval."""
    value, interval = gate.measure(params.evaluate.metric, its)
    found = metrics(its.y, its.predicted, its.classes)
    return {"value": value, "interval": interval, "metrics": found}


def segments(
    its: gate.Judged,
    labels: pd.DataFrame,
    record: pd.DataFrame | None,
    limits: gate.Gate,
    params: Params,
) -> list[dict[str, Any]]:
    """The metric of each segment beside that when the version was judged (`record`, if it was kept).

    Of so many segments one is worse by chance: their intervals together hold with 95 % confidence.
    """
    name, before = params.evaluate.metric, {}
    if record is not None:
        own = record[(record["model"] == "candidate") & (record["rows"] >= limits.segment_rows)]
        before = own.set_index("segment")[name].to_dict()
    parts, found = gate.parts(labels, params, limits), []
    for part, chosen in parts.items():
        its_own = its.of(chosen)
        value, interval = gate.measure(name, its_own, 0.025 / len(parts))
        usual = before.get(part, np.nan)
        scale = 1 if name in GREATER_IS_BETTER else -abs(usual)
        limit = usual - limits.segment_tolerance * scale
        sure = worse(name, interval, value, limit) if enough(its_own, 1) else None
        found.append(
            {"segment": part, "rows": int(chosen.sum()), "value": value, "interval": interval}
            | {"judged": usual, "limit": limit, "worse": sure}
        )
    return found


def over_time(its: gate.Judged, time: np.ndarray, name: str, least: int) -> list[dict[str, Any]]:
    """The metric by the time of the prediction (n,), in bins of `least` seconds, or of rows enough.

    Within a few days the interval is by row: narrower than it would be by day.
    """
    for wide in (w for w in WIDTHS if w >= least):
        _, counts = np.unique(time // wide, return_counts=True)
        if np.median(counts) >= 5 * FEW:
            break
    found = []
    for place in np.unique(time // wide):
        chosen = its.of(time // wide == place)
        if len(chosen.y) >= FEW:
            if len(np.unique(chosen.day)) < DAYS:
                groups = np.random.default_rng(0).integers(gate.GROUPS, size=len(chosen.y))
                chosen = gate.Judged(chosen.y, chosen.predicted, chosen.classes, groups)
            value, interval = gate.measure(name, chosen)
            if np.isfinite(value):
                at = {"from": float(place * wide), "to": float((place + 1) * wide)}
                found.append(at | {"rows": len(chosen.y), "value": value, "interval": interval})
    return found


def beside(main: Arm, other: Arm, number: int, least: int, params: Params) -> dict[str, Any] | None:
    """A version beside the main one: the difference of the metric, and whether it is better.

    A shadow is compared on the rows that both scored, an arm of its own on those of the same time.
    """
    same = ["request", "row"]
    mine, its = (arm.joined.rows for arm in (main, other))
    if its["shadow"].any():
        left = mine[same].merge(its[same])
        keep = [pd.MultiIndex.from_frame(rows[same]) for rows in (mine, its)]
        chosen = [index.isin(pd.MultiIndex.from_frame(left)) for index in keep]
    else:
        first = max(mine["time"].min(), its["time"].min())
        last = min(mine["time"].max(), its["time"].max())
        chosen = [rows["time"].between(first, last).to_numpy() for rows in (mine, its)]
    if not chosen[0].any() or chosen[1].mean() < SHARED:
        return None
    arms = [
        Arm(Joined(arm.joined.rows[rows], arm.joined.labels[rows], 0, 0), arm.classes)
        for arm, rows in zip((main, other), chosen, strict=True)
    ]
    before, now = judged(arms, params)
    name = params.evaluate.metric
    value, interval, own = gate.gain(name, now, before)
    verdict = "not told apart yet"
    if all(enough(one, least) for one in (before, now)):
        verdict = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else verdict
    said = (
        f"{verdict}: {name} {value:+.4g} (95 %: {interval[0]:+.4g} to {interval[1]:+.4g}) against"
    )
    said += f" version {number}'s {own:.4g}, on {len(now.y):,} and {len(before.y):,} labelled rows"
    return {"better": value, "interval": interval, "verdict": verdict, "said": said}
