"""Collect what is known of an environment: traffic, live metrics, drift, the service, staleness.

Nothing is judged here. The prediction log is read within bounds: `monitor.days`, and the newest
`monitor.rows` of a version.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from prometheus_client.parser import text_string_to_metric_families

from ... import feature_views
from ...continuous_training import settings as training
from ...continuous_training.decision import challenger, degradation, history
from ...experiment import tracking
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from ...experiment.params import Params
from ...experiment.redaction import redact
from ...experiment.registry import find_version, load_model, require_version
from .. import settings
from ..release import targets
from ..service.prediction_log import PredictionTable
from . import label_join, live_drift, live_metrics

DAY = 24 * 60 * 60  # seconds
MAX_VERSIONS = 6  # the newest ones, which are reported
MAX_DECISIONS = 200  # the newest ones, which are read
TRAFFIC_BINS = 60
METRIC_BINS = 32
SERVICE_COUNTS = ["prediction_log_dropped", "prediction_log_rejected", "prediction_log_size"]
SERVICE_COUNTS += ["refused_versions"]


class Config(NamedTuple):
    """The settings that monitoring reads."""

    params: Params  # params.yaml
    delivery: settings.Settings  # delivery.yaml
    training: training.Settings  # continuous_training.yaml


@dataclass
class EnvironmentReport:
    """What reports/monitor.json holds (`content`), and what only the page shows."""

    content: dict[str, Any]
    traffic: pd.DataFrame  # as of `PredictionLog.traffic`
    bin_seconds: int  # of the traffic
    events: list[dict[str, Any]]  # as of `decisions`
    drift_counts: live_drift.LiveCounts | None = None


class VersionLog(NamedTuple):
    """A version that has predicted: the rows (n,) as they were logged, and as they were sent."""

    version: ModelVersion
    logged: pd.DataFrame
    sent: pd.DataFrame
    predictions: label_join.Predictions


def observe_environment(
    env: str, table: PredictionTable, now: float, config: Config
) -> EnvironmentReport:
    """All that can be measured of an environment at a moment (seconds since 1970)."""
    params, limits = config.params, config.delivery.monitor
    since = now - limits.days * DAY
    log = label_join.PredictionLog(table, env, since)
    span = log.span()
    seconds = span[1] - max(span[0], since) if span else 0
    bin_seconds = live_metrics.bin_width(seconds, TRAFFIC_BINS)
    traffic = log.traffic(bin_seconds)
    alias = find_version(tracking.connect(), params.register_.name, env)
    answered = traffic.loc[~traffic["shadow"].astype(bool), "version"]
    main = int(alias.version if alias else answered.iloc[-1] if len(answered) else 0)
    notes: list[str] = []
    versions: dict[str, dict[str, Any]] = {}
    content = {
        "schema": 2,
        "environment": env,
        "version": main or None,
        "time": now,
        "metric": params.evaluate.metric,
        "versions": versions,
        "drift": {},
        "service": service_counts(targets.of(env, config.delivery).url) if alias else None,
        "notes": notes,
    }
    report = EnvironmentReport(content, traffic, bin_seconds, decisions(env, since))
    logs = {}
    for number in traffic.groupby("version")["time"].max().sort_values().index[-MAX_VERSIONS:]:
        rows, more = log.newest(int(number), limits.rows)
        versions[str(number)] = entry = _traffic_entry(traffic[traffic["version"] == number], rows)
        if more:
            text = f"version {number}: only the newest {limits.rows:,} of {entry['rows']:,}"
            notes.append(f"{text} predictions are read (monitor.rows)")
        entry["truncated"] = more
        try:
            logs[int(number)] = _version_log(number, rows, params)
        except UserError as error:
            notes.append(f"version {number}: {error}")
    if main in logs:
        try:
            own = logs[main]
            counts = live_drift.count_live(own.version, own.sent, own.logged, limits.rows, params)
            content["drift"] = live_drift.report(counts, config.training.drift)
            report.drift_counts = counts
        except UserError as error:
            notes.append(f"drift: {error}")
    predictions = {number: own.predictions for number, own in logs.items()}
    labelled = label_join.join(predictions, params, notes)
    min_width = live_metrics.bin_width(seconds, METRIC_BINS)
    for number, rows in labelled.items():
        versions[str(number)] |= _live_entry(logs[number], rows, min_width, config)
        if rows.ambiguous:
            text = f"version {number}: {rows.ambiguous:,} predictions fit several labelled rows"
            notes.append(f"{text} and are left out; data.id would tell them apart")
        if number != main and main in labelled and len(rows.rows) and len(labelled[main].rows):
            versions[str(number)]["comparison"] = live_metrics.compare_versions(
                labelled[main], rows, main, limits.labelled, params
            )
    newest = [rows.rows["time"].max() for rows in labelled.values() if len(rows.rows)]
    content["staleness"] = {
        "trained": _days_since_fitted(logs[main], params, now) if main in logs else None,
        "prediction": (now - span[1]) / DAY if span else None,
        "label": (now - max(newest, default=span[0])) / DAY if span else None,
    }
    return report


def main_version(content: dict[str, Any]) -> dict[str, Any]:
    """The entry of the version that answers; {} if it has not predicted anything."""
    return content["versions"].get(str(content["version"]), {})


def _traffic_entry(traffic: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Counts of a version, from its traffic; times of its requests (ms), from its newest rows."""
    milliseconds = rows.drop_duplicates("request")["seconds"] * 1000
    return {
        "rows": int(traffic["rows"].sum()),
        "failures": int(traffic["failures"].sum()),
        "shadow": bool(rows["shadow"].any()),
        "requests": len(milliseconds),
        "p50": float(milliseconds.quantile(0.5)),
        "p99": float(milliseconds.quantile(0.99)),
        "over_time": [],
    }


def _version_log(number: int, rows: pd.DataFrame, params: Params) -> VersionLog:
    """The logged rows with their inputs and keys; UserError if the version cannot be loaded."""
    version = require_version(tracking.connect(), params.register_.name, str(number))
    loaded = load_model(version, params)
    views = {view.name for view in feature_views.VIEWS}
    sent = label_join.inputs(rows, loaded.kinds, params.data.id)
    key = Kinds({c: k for c, k in loaded.kinds.items() if c in sent and c not in views})
    if not key and params.data.id not in sent:
        raise UserError("no input was sent with its rows")
    predictions = label_join.with_keys(rows, sent, key, params)
    predictions = predictions._replace(classes=getattr(loaded.model, "classes_", None))
    return VersionLog(version, rows, sent, predictions)


def _live_entry(
    own: VersionLog, labelled: label_join.Labelled, min_width: int, config: Config
) -> dict[str, Any]:
    """A version's metrics on what is labelled by now, beside `reference`, that when it was judged."""
    params, rule = config.params, config.training.triggers.degradation
    metric = params.evaluate.metric
    reference = degradation.metric_when_judged(own.version, metric)
    allowed = degradation.allowed(reference, metric, rule.tolerance) if rule else math.nan
    entry: dict[str, Any] = {"labelled": len(labelled.rows), "waiting": labelled.waiting}
    entry |= {"ambiguous": labelled.ambiguous, "reference": reference, "allowed": allowed}
    if labelled.rows.empty:
        return entry
    (judged,) = live_metrics.for_gate([labelled], params)
    entry |= live_metrics.all_metrics(judged, params)
    value, interval = entry["value"], entry["interval"]
    times = labelled.rows["time"].to_numpy()
    record = challenger.record(own.version)
    gate = config.training.gate
    return entry | {
        "worse": live_metrics.surely_worse(metric, value, interval, allowed),
        "enough_labels": live_metrics.enough_labels(judged, config.delivery.monitor.labelled),
        "segments": live_metrics.segments(judged, labelled.labels, record, gate, params),
        "over_time": live_metrics.over_time(judged, times, metric, min_width),
    }


def service_counts(url: str) -> dict[str, Any]:
    """What the service counts since its process began; `answers` is False if it does not answer."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=5).raise_for_status().text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    except (httpx.HTTPError, ValueError):
        return {"url": redact(url), "answers": False}
    values = {s.name.removesuffix("_total"): s.value for s in samples if not s.labels}
    by_status = {s.labels["status"]: s.value for s in samples if s.name == "requests_total"}
    failed = sum(count for status, count in by_status.items() if status.startswith("5"))
    counts: dict[str, float] = {name: int(values.get(name, 0)) for name in SERVICE_COUNTS}
    counts |= {"requests": sum(by_status.values()), "failed": failed}
    return {"url": redact(url), "answers": True} | counts


def _days_since_fitted(own: VersionLog, params: Params, now: float) -> float | None:
    """How many days the newest row that was predicted lies after those that the version was fitted on."""
    until = tracking.find_run(own.version.run_id).data.params.get("fitted_until")
    if until is None:
        return None
    newest = own.sent[params.data.time].max() if params.data.time in own.sent else pd.NaT
    newest = pd.Timestamp(now, unit="s") if pd.isna(newest) else newest
    return float((newest - pd.Timestamp(until)).total_seconds() / DAY)


def decisions(env: str, since: float) -> list[dict[str, Any]]:
    """Promotions, refusals, rollbacks and deployments since then: `{time, decision, version}`, oldest first."""
    events = []
    wanted = f"tags.decision != '' and tags.decision != '{history.UNCHANGED}'"
    runs = tracking.last_runs(wanted, MAX_DECISIONS, "-decisions", failed=True)
    for run in reversed(runs):
        seconds = (run.info.end_time or run.info.start_time) / 1000
        tags = run.data.tags
        if seconds >= since and tags.get("environment", env) == env:
            version = tags.get("version", "?")
            events.append({"time": seconds, "decision": tags["decision"], "version": version})
    return events
