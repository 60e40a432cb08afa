"""The conditions of the alerts: what of that which monitoring has seen takes somebody's attention."""

import math

from ..settings import Monitor
from .alerts import Conditions, Key
from .collect import Found

REQUESTS = 100  # below this many their slowest hundredth says nothing


def conditions(found: Found, limits: Monitor) -> Conditions:
    """What would be an alert; None where it cannot be told, and an alert stays as it is."""
    number, stale, about = found["version"] or 0, found["staleness"], found["service"]
    its, metric = found["versions"].get(str(number), {}), found["metric"]
    wanted: Conditions = {}
    limit = its.get("limit") if its else math.nan
    if limit is None or not math.isnan(limit):
        said = "too few labels to tell"
        if "value" in its:
            said = f"version {number}: {metric} is {_with(its['value'], its['interval'])} on"
            said += f" {its['labelled']:,} labelled predictions; it was {its['judged']:.4g} when"
            said += f" the version was judged, and may be {its['limit']:.4g}"
        sure = its["worse"] if its.get("enough") else None
        wanted[Key("degradation", number)] = (sure, said)
    for part in its.get("segments", []):
        said = f"version {number}, {part['segment']}: {metric} is"
        said += f" {_with(part['value'], part['interval'])} on {part['rows']:,} rows; it was"
        said += f" {part['judged']:.4g}, and may be {part['limit']:.4g}"
        sure = part["worse"] if its["enough"] and not its["worse"] else None  # or all of it is
        wanted[Key("segment", number, part["segment"])] = (sure, said)
    if limits.drift is not None:
        names = [name for name, measures in found["drift"].items() if measures["drifted"]]
        known = bool(found["drift"]) and its["rows"] >= limits.labelled
        said = f"version {number}: drifted from the rows that it was fitted on: {', '.join(names)}"
        wanted[Key("drift", number)] = (bool(names) if known else None, said)
    if its:
        slow = its["p99"] > limits.p99 if its["requests"] >= REQUESTS else None
        said = f"version {number}: p99 is {its['p99']:.0f} ms, allowed are {limits.p99:g}"
        wanted[Key("latency", number)] = (slow, said)
    for other, one in found["versions"].items():
        share = one["failures"] / one["rows"]
        said = f"version {other} failed on {share:.1%} of its rows, allowed are {limits.errors:.1%}"
        wanted[Key("errors", int(other))] = (share > limits.errors, said)
    if about is not None:
        there, answers = about["answers"], max(about.get("requests", 0), 1)
        said = f"{found['environment']} does not answer at {about['url']}"
        wanted[Key("service")] = (not there, said)
        share = about.get("failed", 0) / answers
        said = f"{share:.1%} of requests failed, allowed are {limits.errors:.1%}"
        wanted[Key("errors")] = (share > limits.errors if there else None, said)
        lost = about.get("prediction_log_dropped", 0) + about.get("prediction_log_rejected", 0)
        said = f"{lost:,} requests or rows are lost to the prediction log: is its database there?"
        wanted[Key("prediction_log")] = (lost > 0 if there else None, said)
    if limits.staleness is not None:
        texts = {
            "trained": f"version {number} is asked about rows {{:.0f}} days after those it learnt from",
            "label": "no label has come for the predictions of the last {:.0f} days",
        }
        old = {name: stale[name] or 0 for name in texts}
        told = [texts[name].format(days) for name, days in old.items() if days > limits.staleness]
        wanted[Key("staleness", number)] = (bool(told), "; ".join(told))
    return wanted


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4g} (95 %: {interval[0]:.4g} to {interval[1]:.4g})"
