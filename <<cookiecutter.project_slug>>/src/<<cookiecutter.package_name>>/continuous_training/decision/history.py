"""Decisions: what was decided, and on which data and recipe.

The experiment `...-decisions` keeps each of them; reports/gate.json and reports/decision.md, which is
for reading, tell the last one.
"""

import hashlib
import json
from typing import Any, NamedTuple

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from ...experiment import dataset, reports, tracking
from ...experiment.markdown import plain
from ...experiment.params import ROOT, Params
from ..settings import Settings
from ..stages import code

UNCHANGED = "unchanged"  # the decision, if there was nothing to decide


class State(NamedTuple):
    """What a decision depends on: the batches (name -> SHA-256), their digest, that of the recipe."""

    batches: dict[str, str]
    data: str
    recipe: str


def state(params: Params, limits: Settings) -> State:
    """The batches and the recipe as they are now."""
    batches = dataset.digests(dataset.batches(params.data))
    return State(batches, dataset.combined(batches), recipe(params, limits))


def recipe(params: Params, limits: Settings) -> str:
    """SHA-256 over the stages' code, the pins and the settings, but for which batches are used."""
    reached: dict[str, str] = {}
    for stage in code.STAGES:
        reached |= code.digests(stage)
    flat = {key: value for key, value in params.flat().items() if key != "data.through"}
    content = json.dumps([sorted(reached.items()), flat, limits.gate.model_dump()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def last() -> Run | None:
    """The last decision: a promotion, a refusal, or that there was nothing to decide."""
    return tracking.last_run("tags.recipe != ''", "-decisions")


def decided(state: State, champion: ModelVersion | None) -> bool:
    """Whether the last decision, or the champion, is about this data and recipe."""
    before = last()
    tags = [before.data.tags] if before else []
    tags += [champion.tags] if champion else []
    return any((t.get("data"), t.get("recipe")) == (state.data, state.recipe) for t in tags)


def refusals(recipe: str, enough: int) -> int:
    """How many refusals of this recipe there were in a row until now, counted up to `enough`."""
    wanted = f"tags.recipe != '' and tags.decision != '{UNCHANGED}'"
    runs = tracking.last_runs(wanted, enough, "-decisions") if enough else []
    same = [r.data.tags["decision"] == "refused" and r.data.tags["recipe"] == recipe for r in runs]
    return [*same, False].index(False)


def as_json(
    decision: str, checks: list[dict], challenger: dict, champion: dict | None, rows: dict
) -> dict[str, Any]:
    """What reports/gate.json holds beside trigger, commit and data; `rows` are those held out."""
    holdout = {"from": rows["from"], "to": rows["to"], "rows": rows["count"]}
    holdout["digest"] = dataset.digest([ROOT / "data/prepared/holdout.parquet"])
    return {
        "schema": 1,
        "decision": decision,
        "checks": checks,
        "challenger": challenger,
        "champion": champion,
        "holdout": holdout,
    }


def write(written: dict[str, Any], why: list[str], more: list[str], params: Params) -> None:
    """Write reports/gate.json, and reports/decision.md with the words for it."""
    reports.write_json("gate.json", written)
    number, champion = written["challenger"]["version"], written["champion"]
    holdout, checks = written["holdout"], written["checks"]
    period = f", {holdout['from']} to {holdout['to']}" if holdout["from"] else ""
    before = f"version {champion['version']}" if champion else "none"
    lines = [
        f"- Champion before: {before}",
        f"- Judged on {holdout['rows']:,} rows held out{period}",
        *(f"- Trigger: {plain(reason)}" for reason in why),
        *(f"- **{plain(text)}**" for text in more),
        "",
        "| check | | why |",
        "|---|---|---|",
        *(
            f"| {c['name']} | {'ok' if c['passed'] else '**refused**'} | {plain(c['message'])} |"
            for c in checks
        ),
    ]
    say(f"{written['decision']}: {params.register_.name} version {number}", lines)


def say(title: str, lines: list[str]) -> None:
    """Write reports/decision.md."""
    reports.write("decision.md", "\n".join([f"# {title}", "", *lines, ""]))


def log(
    client: mlflow.MlflowClient, run_id: str, written: dict, seconds: dict[str, float], state: State
) -> None:
    """Keep a decision in its run."""
    tracking.keep_text(client, run_id, "gate.json", reports.as_json(written))
    for name, value in seconds.items():
        client.log_metric(run_id, f"seconds_{name}", value)
    tags = {key: written[key] for key in ("decision", "trigger", "commit")}
    tags |= {"version": str(written["challenger"]["version"])}
    _tag(client, run_id, tags | {"judged_run": written["challenger"]["run_id"]}, state)


def log_unchanged(client: mlflow.MlflowClient, why: str, judged: Run, state: State) -> None:
    """Keep that there was nothing to decide about this data and recipe, so that no trigger fires for them."""
    with tracking.decision("nothing to do") as run_id:
        tags = {"decision": UNCHANGED, "reason": why, "judged_run": judged.info.run_id}
        _tag(client, run_id, tags, state)


def _tag(client: mlflow.MlflowClient, run_id: str, tags: dict[str, str], state: State) -> None:
    tracking.keep_text(client, run_id, "batches.json", reports.as_json(state.batches))
    for key, value in (tags | {"data": state.data, "recipe": state.recipe}).items():
        client.set_tag(run_id, key, value)
