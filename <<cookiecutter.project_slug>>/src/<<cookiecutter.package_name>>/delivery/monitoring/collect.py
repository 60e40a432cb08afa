"""What can be seen of an environment: traffic, live metrics, drift, the service, staleness; no judgement.

The prediction log is read within bounds: `monitor.days`, and the newest `monitor.rows` of a version.
"""

import math
from typing import Any, NamedTuple

import httpx
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from prometheus_client.parser import text_string_to_metric_families

from ... import feature_views
from ...continuous_training.decision import challenger, degradation
from ...continuous_training.settings import Settings as Rules
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
VERSIONS = 6  # the newest ones that are looked at


class Found(dict[str, Any]):
    """What reports/monitor.json holds, and beside it what only the page shows."""

    observed: live_drift.Observed | None = None
    traffic: pd.DataFrame  # as of `Log.traffic`, in bins of `step` seconds
    step: int
    events: list[dict[str, Any]]


class Seen(NamedTuple):
    """A version that has predicted: its rows as they were logged, and as they were sent."""

    version: ModelVersion
    logged: pd.DataFrame
    sent: pd.DataFrame
    asked: label_join.Asked
    classes: Any


def look(
    env: str,
    table: PredictionTable,
    now: float,
    params: Params,
    limits: settings.Settings,
    rules: Rules,
) -> Found:
    """All that can be measured of an environment at a moment (seconds since 1970)."""
    watch, client = limits.monitor, tracking.connect()
    since = now - watch.days * DAY
    logged = label_join.Log(table, env, since)
    span = logged.span()
    seconds = span[1] - max(span[0], since) if span else 0
    step = live_metrics.width(seconds, 60)
    traffic = logged.traffic(step)
    alias = find_version(client, params.register_.name, env)
    answered = traffic.loc[~traffic["shadow"].astype(bool), "version"]
    main = int(alias.version if alias else answered.iloc[-1] if len(answered) else 0)
    found = Found(schema=1, environment=env, version=main or None, time=now)
    found |= {"metric": params.evaluate.metric, "versions": {}, "drift": {}, "notes": []}
    found.traffic, found.step, found.events = traffic, step, events(env, since)
    seen = {}
    for number in traffic.groupby("version")["time"].max().sort_values().index[-VERSIONS:]:
        try:
            its = _version(int(number), logged, found, params, watch)
            seen[int(number)] = its
        except UserError as error:
            found["notes"].append(f"version {number}: {error}")
    stale = found["staleness"] = {"trained": None, "prediction": None, "label": None}
    if main in seen:
        stale["trained"] = _age(seen[main], params, now)
        try:
            version, rows, sent, *_ = seen[main]
            found.observed = live_drift.observe(version, sent, rows, watch.rows, params)
            found["drift"] = live_drift.report(found.observed, rules.drift)
        except UserError as error:
            found["notes"].append(f"drift: {error}")
    asked = {number: its.asked for number, its in seen.items()}
    joined = label_join.join(asked, params, found["notes"])
    arms = {number: live_metrics.Arm(its, seen[number].classes) for number, its in joined.items()}
    for number, arm in arms.items():
        about = found["versions"][str(number)]
        about |= _judged(seen[number].version, arm, found["notes"], params, watch, rules)
        if len(arm.joined.rows):
            (judged,), moments = (
                live_metrics.judged([arm], params),
                arm.joined.rows["time"].to_numpy(),
            )
            wide = live_metrics.width(seconds, 32)
            about["over_time"] = live_metrics.over_time(judged, moments, found["metric"], wide)
        first = arms.get(main, arm)
        if number != main and len(first.joined.rows) and len(arm.joined.rows):
            about["beside"] = live_metrics.beside(first, arm, main, watch.labelled, params)
    if span:
        newest = [arm.joined.rows["time"].max() for arm in arms.values() if len(arm.joined.rows)]
        stale["prediction"] = (now - span[1]) / DAY
        stale["label"] = (now - max(newest, default=span[0])) / DAY
    found["service"] = service(targets.of(env, limits).url) if alias else None
    return found


def _version(
    number: int, log: label_join.Log, found: Found, params: Params, watch: settings.Monitor
) -> Seen:
    """What the log says of a version; UserError if the version cannot be loaded."""
    rows, cut = log.newest(number, watch.rows)
    counted = found.traffic[found.traffic["version"] == number][["rows", "failures"]].sum()
    taken = rows.drop_duplicates("request")["seconds"] * 1000
    about: dict[str, Any] = {name: int(count) for name, count in counted.items()}
    about |= {"cut": cut, "shadow": bool(rows["shadow"].any()), "requests": len(taken)}
    about |= {f"p{q}": float(taken.quantile(q / 100)) for q in (50, 99)}
    found["versions"][str(number)] = about
    if cut:
        said = f"version {number}: only the newest {watch.rows:,} of {about['rows']:,} predictions"
        found["notes"].append(f"{said} are looked at (monitor.rows)")
    version = require_version(tracking.connect(), params.register_.name, str(number))
    loaded, views = load_model(version, params), {view.name for view in feature_views.VIEWS}
    sent = label_join.inputs(rows, loaded.kinds, params.data.id)
    key = Kinds({c: k for c, k in loaded.kinds.items() if c in sent and c not in views})
    if not key and params.data.id not in sent:
        raise UserError("its rows were sent without any input")
    asked = label_join.ask(rows, sent, key, params)
    return Seen(version, rows, sent, asked, getattr(loaded.model, "classes_", None))


def _judged(
    version: ModelVersion,
    arm: live_metrics.Arm,
    notes: list[str],
    params: Params,
    watch: settings.Monitor,
    rules: Rules,
) -> dict[str, Any]:
    """A version's metrics on what is labelled by now, beside those when it was judged."""
    its, metric, rule = arm.joined, params.evaluate.metric, rules.triggers.degradation
    about: dict[str, Any] = {"labelled": len(its.rows), "waiting": its.waiting}
    about["ambiguous"] = its.ambiguous
    if its.ambiguous:
        said = f"version {version.version}: {its.ambiguous:,} predictions fit several labelled rows"
        notes.append(f"{said} and are left out; data.id would tell them apart")
    about["judged"] = usual = degradation.metric_when_judged(version, metric)
    about["limit"] = degradation.allowed(usual, metric, rule.tolerance) if rule else math.nan
    if len(its.rows):
        (judged,) = live_metrics.judged([arm], params)
        about |= live_metrics.whole(judged, params)
        about["enough"] = live_metrics.enough(judged, watch.labelled)
        about["worse"] = live_metrics.worse(
            metric, about["interval"], about["value"], about["limit"]
        )
        record = challenger.record(version)
        about["segments"] = live_metrics.segments(judged, its.labels, record, rules.gate, params)
    return about


def service(url: str) -> dict[str, Any]:
    """What the service says of itself; `answers` is False if it does not. Counts are of its process."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=5).raise_for_status().text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    except (httpx.HTTPError, ValueError):
        return {"url": redact(url), "answers": False}
    values = {s.name: s.value for s in samples if not s.labels}
    asked = {s.labels["status"]: s.value for s in samples if s.name == "requests_total"}
    names = ("prediction_log_dropped", "prediction_log_rejected", "prediction_log_size")
    found = {name: int(values.get(name, 0)) for name in names}
    found["refused_versions"] = int(values.get("refused_versions_total", 0))
    failed = sum(value for status, value in asked.items() if status.startswith("5"))
    counts = {**found, "requests": sum(asked.values()), "failed": failed}
    return {"url": redact(url), "answers": True, **counts}


def _age(its: Seen, params: Params, now: float) -> float | None:
    """How many days the newest row that was predicted lies after those that the version learnt from."""
    until = tracking.find_run(its.version.run_id).data.params.get("fitted_until")
    if until is None:
        return None
    time = its.sent[params.data.time] if params.data.time in its.sent else pd.Series(dtype="object")
    newest = time.max() if time.notna().any() else pd.Timestamp(now, unit="s")
    return float((newest - pd.Timestamp(until)).total_seconds() / DAY)


def events(env: str, since: float) -> list[dict[str, Any]]:
    """Promotions, refusals, rollbacks and deployments since then, oldest first."""
    found = []
    for run in tracking.last_runs("tags.decision != ''", 200, "-decisions", failed=True):
        when, tags = (run.info.end_time or run.info.start_time) / 1000, run.data.tags
        if when >= since and tags.get("environment", env) == env:
            version = tags.get("version", "?")
            found.append({"time": when, "decision": tags["decision"], "version": version})
    return found[::-1]
