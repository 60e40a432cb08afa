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

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from ...experiment import reports, tracking
from ...experiment.errors import UserError
from ...experiment.params import Params
from ..settings import Settings
from . import history

HELD = "held back"
EXPERIMENT = "{count} refusals in a row: it takes a new experiment, not more training"
DAY = 24 * 60 * 60 * 1000  # milliseconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A trigger's answer."""

    name: str
    fired: bool
    reason: str


def ask(
    demanded: bool,
    champion: ModelVersion | None,
    state: history.State,
    params: Params,
    limits: Settings,
    reported: Answer | None = None,
) -> list[Answer]:
    """The answers of demand, schedule, new_data, degradation and drift; `reported` is monitoring's."""
    rules, last = limits.triggers, history.last()
    answers = [_demand(demanded, last, state)]
    if history.decided(state, champion):
        old = "this data and recipe are decided"
        answers += [Answer(n, False, old) for n in ("schedule", "new_data", "degradation", "drift")]
        return answers
    answers.append(_schedule(rules.schedule, last))
    answers.append(_new_data(rules.new_data, _batches_before(champion, last), state))
    from ..drift import drift  # which import much; when nothing is new they are not asked
    from . import degradation

    for name, of in (("degradation", degradation.trigger), ("drift", drift.asked)):
        try:
            fired, reason = of(champion, params, limits)
        except UserError as error:  # a broken batch: the pipeline will put it aside
            fired, reason = False, f"cannot be told: {error}"
        answers.append(
            reported if reported and reported.name == name else Answer(name, fired, reason)
        )
    if history.refusals(state.recipe, rules.refusals) == rules.refusals:
        held = f"{HELD} after {rules.refusals} refusals in a row"
        answers[1:] = [replace(a, fired=False, reason=f"{held}: {a.reason}") for a in answers[1:]]
    return answers


def from_monitoring(because: str | None) -> Answer | None:
    """What `--because "degradation: ..."` says: monitoring has seen it on what was served."""
    if because is None:
        return None
    name, _, reason = (" ".join(part.split()) for part in because.partition(":"))
    if name not in ("degradation", "drift") or not reason:
        raise UserError('--because takes "degradation: reason" or "drift: reason"')
    return Answer(name, True, reason)


def write(answers: list[Answer]) -> str | None:
    """Write reports/triggers.json, say which fired and why; returns what held them back, if so."""
    held = [answer.reason.split(":")[0] for answer in answers if answer.reason.startswith(HELD)]
    experiment = f"{held[0]}: it takes a new experiment" if held else None
    fired = [{"name": a.name, "reason": a.reason} for a in answers if a.fired]
    content = {"schema": 1, "fired": fired, "asked": [asdict(a) for a in answers]}
    reports.write_json("triggers.json", content | {"experiment": experiment})
    for answer in answers:
        log.info("%-11s %-7s %s", answer.name, "fired" if answer.fired else "-", answer.reason)
    if experiment:
        log.warning("%s", experiment)
    return experiment


def _demand(demanded: bool, last: Run | None, state: history.State) -> Answer:
    if demanded:
        return Answer("demand", True, "asked for")
    if last is None:
        return Answer("demand", True, "the gate has not decided anything yet")
    if last.data.tags["recipe"] != state.recipe:
        version = last.data.tags.get("version")
        since = f"version {version}" if version else "the last decision"
        return Answer("demand", True, f"code or settings changed since {since}")
    return Answer("demand", False, "nobody asked, and code and settings are as they were")


def _schedule(days: int | None, last: Run | None) -> Answer:
    if days is None or last is None:
        return Answer("schedule", False, "off" if last else "there is no decision to count from")
    passed = (time.time() * 1000 - last.info.end_time) / DAY
    return Answer(
        "schedule", passed >= days, f"{passed:.1f} of {days} days since the last decision"
    )


def _batches_before(champion: ModelVersion | None, last: Run | None) -> dict[str, str]:
    """The batches of the last decision, else of the champion: name -> SHA-256."""
    runs = [champion.run_id] if champion else []
    if last is not None:  # a decision of version 0.1.0 has none; the run that it judged has them
        runs = [last.info.run_id, last.data.tags["judged_run"]]
    for run in runs:
        with tracking.artifact(tracking.find_run(run), "batches.json") as path:
            if path:
                return json.loads(path.read_text(encoding="utf-8"))
    return {}


def _new_data(on: bool, known: dict[str, str], state: history.State) -> Answer:
    """Which batches differ from those that were known before (name -> SHA-256)."""
    now, newest = state.batches, max((Path(name).stem for name in known), default="")
    unknown = [name for name in now if name not in known]
    changes = {
        "new": [name for name in unknown if Path(name).stem > newest],
        "late": [name for name in unknown if Path(name).stem < newest],
        "replaced": [name for name in now if known.get(name, now[name]) != now[name]],
        "gone": [name for name in known if name not in now],
    }
    listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names)
    return Answer(
        "new_data", on and bool(listed), (listed or "no batch changed") + ("" if on else " (off)")
    )
