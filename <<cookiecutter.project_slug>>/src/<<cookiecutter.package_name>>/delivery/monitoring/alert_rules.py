"""The alert rules: which of the measured values need attention."""

import math
from typing import Any

from ..settings import Monitor
from .alerts import AlertKey, Conditions
from .collect import main_version

MIN_REQUESTS = 100  # below so many their p99 says nothing


def conditions(content: dict[str, Any], limits: Monitor) -> Conditions:
    """Whether each alert holds, from what reports/monitor.json holds; None where it cannot be told."""
    number = content["version"] or 0
    main = main_version(content)
    rules: Conditions = {}
    if main:
        rules |= _metric(number, main, content["metric"])
        slow = main["p99"] > limits.p99 if main["requests"] >= MIN_REQUESTS else None
        message = f"version {number}: p99 is {main['p99']:.0f} ms, allowed are {limits.p99:g}"
        rules[AlertKey("latency", number)] = (slow, message)
    if limits.drift is not None:
        names = [name for name, measures in content["drift"].items() if measures["drifted"]]
        enough = bool(content["drift"]) and main["rows"] >= limits.labelled
        message = f"version {number}: drifted from the rows that it was fitted on: "
        drifted = bool(names) if enough else None
        rules[AlertKey("drift", number)] = (drifted, message + ", ".join(names))
    for version, entry in content["versions"].items():
        share = entry["failures"] / entry["rows"]
        message = f"version {version} failed on {share:.1%} of its rows,"
        message += f" allowed are {limits.errors:.1%}"
        rules[AlertKey("errors", int(version))] = (share > limits.errors, message)
    if content["service"] is not None:
        rules |= _service(content["environment"], content["service"], limits)
    if limits.staleness is not None:
        stale = _stale(number, content["staleness"], limits.staleness)
        rules[AlertKey("staleness", number)] = stale
    return rules


def _metric(number: int, main: dict[str, Any], metric: str) -> Conditions:
    """Degradation of the main version, or of segments if it is not worse as a whole."""
    rules: Conditions = {}
    allowed = main.get("allowed")  # None: the version cannot be loaded
    worse = main["worse"] if main.get("enough_labels") else None
    message = "too few labels to tell"
    if "value" in main:
        message = f"version {number}: {metric} is {_value(main)} on {main['labelled']:,} labelled"
        message += f" predictions; it was {main['reference']:.4g} when the version was judged,"
        message += f" and may be {allowed:.4g}"
    if allowed is None or not math.isnan(allowed):
        rules[AlertKey("degradation", number)] = (worse, message)
    for part in main.get("segments", []):
        message = f"version {number}, {part['segment']}: {metric} is {_value(part)} on"
        message += f" {part['rows']:,} rows; it was {part['reference']:.4g}, and may be"
        message += f" {part['allowed']:.4g}"
        part_worse = part["worse"] if main["enough_labels"] and not main["worse"] else None
        rules[AlertKey("segment", number, part["segment"])] = (part_worse, message)
    return rules


def _service(env: str, counts: dict[str, Any], limits: Monitor) -> Conditions:
    """Whether the service answers, without too many errors, and loses nothing of its log."""
    answers = counts["answers"]
    silent = (not answers, f"{env} does not answer at {counts['url']}")
    rules: Conditions = {AlertKey("service"): silent}
    share = counts.get("failed", 0) / max(counts.get("requests", 0), 1)
    message = f"{share:.1%} of requests failed, allowed are {limits.errors:.1%}"
    rules[AlertKey("errors")] = (share > limits.errors if answers else None, message)
    lost = counts.get("prediction_log_dropped", 0) + counts.get("prediction_log_rejected", 0)
    message = f"{lost:,} requests or rows are lost to the prediction log: is its database there?"
    rules[AlertKey("prediction_log")] = (lost > 0 if answers else None, message)
    return rules


def _stale(number: int, days: dict[str, float | None], limit: int) -> tuple[bool, str]:
    """Whether the training or the newest label is older than so many days."""
    trained, label = days["trained"] or 0, days["label"] or 0
    messages = []
    if trained > limit:
        text = f"version {number} predicts rows {trained:.0f} days after those it was fitted on"
        messages.append(text)
    if label > limit:
        messages.append(f"no label has come for the predictions of the last {label:.0f} days")
    return bool(messages), "; ".join(messages)


def _value(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{entry['value']:.4g} (95 %: {low:.4g} to {high:.4g})"
