"""The triggers: is there a reason to retrain? `retrain` asks them all, and writes reports/triggers.json.

There are Google's five: a demand, a schedule, new data, a degradation of the champion, a change of
distribution. None but a demand fires twice for the same data and recipe, whatever became of it; and
after `triggers.refusals` refusals in a row none does: then it takes an experiment, not more training.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from .. import data, tracking
from ..errors import UserError
from ..evaluate import GREATER_IS_BETTER
from ..params import ROOT, Params
from ..registry import load_model
from ..train import score
from . import decisions, drift
from .settings import Degradation, Settings

HELD = "held back"
EXPERIMENT = "{count} refusals in a row: it takes a new experiment, not more training"
DAY = 24 * 60 * 60 * 1000  # milliseconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A trigger's answer."""

    name: str
    fired: bool
    reason: str


def ask(
    demanded: bool,
    champion: ModelVersion | None,
    state: decisions.State,
    params: Params,
    limits: Settings,
) -> list[Asked]:
    """The answers of demand, schedule, new_data, degradation and drift."""
    rules, last = limits.triggers, next(iter(decisions.past(1)), None)
    known = [run.data.tags for run in (last,) if run] + [v.tags for v in (champion,) if v]
    decided = any((t.get("data"), t.get("recipe")) == (state.data, state.recipe) for t in known)
    asked = [_demand(demanded, last, state)]
    if decided:
        old = "this data and recipe are decided"
        asked += [Asked(n, False, old) for n in ("schedule", "new_data", "degradation", "drift")]
        return asked
    asked.append(_schedule(rules.schedule, last))
    before = last.data.tags["judged_run"] if last else champion and champion.run_id
    asked.append(_new_data(rules.new_data, before, state))
    for name, of in (("degradation", _degradation), ("drift", _drift)):
        try:
            fired, reason = of(champion, params, limits)
        except UserError as error:  # a broken batch: the pipeline will put it aside
            fired, reason = False, f"cannot be told: {error}"
        asked.append(Asked(name, fired, reason))
    if decisions.refusals(state.recipe, rules.refusals) == rules.refusals:
        held = f"{HELD} after {rules.refusals} refusals in a row"
        asked[1:] = [replace(a, fired=False, reason=f"{held}: {a.reason}") for a in asked[1:]]
    return asked


def write(asked: list[Asked]) -> str | None:
    """Write reports/triggers.json, say which fired and why; returns what held them back, if so."""
    held = [answer.reason.split(":")[0] for answer in asked if answer.reason.startswith(HELD)]
    experiment = f"{held[0]}: it takes a new experiment" if held else None
    fired = [{"name": a.name, "reason": a.reason} for a in asked if a.fired]
    content = {"schema": 1, "fired": fired, "asked": [asdict(a) for a in asked]}
    (ROOT / "reports").mkdir(exist_ok=True)
    text = json.dumps(content | {"experiment": experiment}, indent=2) + "\n"
    (ROOT / "reports/triggers.json").write_text(text, encoding="utf-8")
    for answer in asked:
        log.info("%-11s %-7s %s", answer.name, "fired" if answer.fired else "-", answer.reason)
    if experiment:
        log.warning("%s", experiment)
    return experiment


def _demand(demanded: bool, last: Run | None, state: decisions.State) -> Asked:
    if demanded:
        return Asked("demand", True, "asked for")
    if last is None:
        return Asked("demand", True, "the gate has not decided anything yet")
    if last.data.tags["recipe"] != state.recipe:
        version = last.data.tags["version"]
        return Asked("demand", True, f"code or settings changed since version {version}")
    return Asked("demand", False, "nobody asked, and code and settings are as they were")


def _schedule(days: int | None, last: Run | None) -> Asked:
    if days is None or last is None:
        return Asked("schedule", False, "off" if last else "there is no decision to count from")
    passed = (time.time() * 1000 - last.info.end_time) / DAY
    return Asked("schedule", passed >= days, f"{passed:.1f} of {days} days since the last decision")


def _new_data(on: bool, before: str | None, state: decisions.State) -> Asked:
    """Which batches differ from those of the run `before`."""
    known: dict[str, str] = {}
    if before is not None:
        with tracking.artifact(tracking.find_run(before), "batches.json") as path:
            known = json.loads(path.read_text(encoding="utf-8")) if path else {}
    now, newest = state.batches, max((Path(name).stem for name in known), default="")
    unknown = [name for name in now if name not in known]
    found = {
        "new": [name for name in unknown if Path(name).stem > newest],
        "late": [name for name in unknown if Path(name).stem < newest],
        "replaced": [name for name in now if known.get(name, now[name]) != now[name]],
        "gone": [name for name in known if name not in now],
    }
    said = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
    return Asked(
        "new_data", on and bool(said), (said or "no batch changed") + ("" if on else " (off)")
    )


def _degradation(
    champion: ModelVersion | None, params: Params, limits: Settings
) -> tuple[bool, str]:
    """Score the champion on the batches after those that it was fitted on; its run keeps the values."""
    rule: Degradation | None = limits.triggers.degradation
    if champion is None or rule is None:
        return False, "there is no champion" if rule else "off"
    run, metric = tracking.find_run(champion.run_id), params.evaluate.metric
    judged = tracking.find_run(run.data.tags.get("judged_run", champion.run_id))
    usual = judged.data.metrics[f"test_{metric}"]
    sign = 1 if metric in GREATER_IS_BETTER else -1
    limit = usual - sign * rule.tolerance * (1 if sign > 0 else abs(usual))
    paths = data.batches(params.data)
    after = [path for path in paths if path.stem > run.data.params["last_batch"]]
    if not after:
        return False, "there is no batch after those that the champion was fitted on"
    model, store, values = load_model(champion, params).model, data.feature_store(params.data), {}
    for path in after[-rule.batches :]:
        rows = data.read([path], params.data)
        if rows[params.data.target].notna().any():
            rows = data.labelled(rows if store is None else store.add(rows), params)
            values[path.stem] = score(model, rows, params)
    for batch, found in values.items():
        step = tracking.step_of(batch)
        for name, value in found.items():
            if value == value:
                mlflow.MlflowClient().log_metric(run.info.run_id, f"batch_{name}", value, step=step)
    worse = [batch for batch, found in values.items() if sign * (found[metric] - limit) < 0]
    said = ", ".join(f"{batch} {found[metric]:.4g}" for batch, found in values.items())
    said = f"{metric} was {usual:.4g}, may be {limit:.4g}, is {said or 'unknown: no labels'}"
    return len(worse) >= rule.worse, f"worse in {len(worse)} of {rule.worse} batches: {said}"


def _drift(champion: ModelVersion | None, params: Params, limits: Settings) -> tuple[bool, str]:
    if champion is None:
        return False, "there is no champion"
    measured = drift.write(params, limits.drift)
    if measured["batch"] in measured["reference"]["batches"]:
        return False, "there is no batch after those that the champion was fitted on"
    names = [name for name, found in measured["features"].items() if found["drifted"]]
    said = f"drifted: {', '.join(names)}" if names else "no feature has drifted"
    return limits.triggers.drift and bool(names), said + ("" if limits.triggers.drift else " (off)")
