"""The decision on a challenger: its checks, its version in the registry, then the aliases.

This is no stage, for DVC would skip or replay what moves an alias. A decision is a run in the experiment
`...-decisions`; whatever stops it, the next one completes it.
"""

import json
import logging
import time

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from ...experiment import tracking
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Params
from ...experiment.register import add_version, describe, promote
from ...experiment.registry import find_version, load_model
from .. import pipeline
from ..settings import Settings
from . import challenger, gate, history
from .triggers import EXPERIMENT, Answer

log = logging.getLogger(__name__)


def decide(
    client: mlflow.MlflowClient,
    state: history.State,
    fired: list[Answer],
    params: Params,
    limits: Settings,
) -> None:
    """Promote the pipeline's challenger or refuse it, unless that is decided already."""
    name, judged = params.register_.name, pipeline.record(params, recipe=state.recipe)
    champion = find_version(client, name, "champion")
    settled = _settled(client, judged, champion, state, name)
    if settled is not None:
        log.info("nothing to do: %s", settled)
        history.say(f"nothing to do: {settled}", [])
        if not history.decided(state, champion):
            history.log_unchanged(client, settled, judged, state)
        return
    (ROOT / "reports/gate.json").unlink(missing_ok=True)  # it is of another decision
    rows, loaded = pipeline.prepared(), None if champion is None else load_model(champion, params)
    start = time.perf_counter()
    checks = challenger.checks(judged, champion, loaded, rows, params)
    seconds, chosen = {"gate": time.perf_counter() - start}, judged
    text = (ROOT / "reports/challenger/evaluation.json").read_text(encoding="utf-8")
    evaluation = json.loads(text)
    if all(check.passed for check in checks):
        every = pd.concat(rows, ignore_index=True)
        chosen, others = challenger.refit(judged, loaded, every, state.recipe, params)
        checks += others
        seconds["refit"] = time.perf_counter() - start - seconds["gate"]
        evaluation["notes"].append("after it was judged the model was fitted again, on all rows")
    evaluation["gate"] = [check.message for check in checks]
    promoted, trigger = all(check.passed for check in checks), ",".join(a.name for a in fired)
    version = _registered(client, chosen, evaluation, trigger, params)
    if promoted:
        version = _first_of(client, version, params)
    written = history.as_json(
        "promoted" if promoted else "refused",
        [gate.as_json(check) for check in checks],
        {"version": int(version.version), "run_id": judged.info.run_id},
        {"version": int(champion.version)} if champion else None,
        evaluation["rows"],
    )
    written |= {"trigger": trigger, "data": state.data, "commit": judged.data.tags["commit"]}
    before, more = limits.triggers.refusals - 1, list[str]()
    if not promoted and history.refusals(state.recipe, before) == before:
        more = [EXPERIMENT.format(count=limits.triggers.refusals)]
    with tracking.decision(f"{written['decision']} version {version.version}") as run_id:
        history.log(client, run_id, written, seconds, state)
        client.set_registered_model_alias(name, "challenger", str(version.version))
        now = find_version(client, name, "champion")
        expected = (champion and champion.version, version.version if promoted else None)
        if (now and now.version) not in expected:
            raise UserError("the champion changed meanwhile: run the step again")
        history.write(written, [f"{a.name}: {a.reason}" for a in fired], more, params)
        if promoted:
            promote(client, version, champion)
    _say(written, more)


def _settled(
    client: mlflow.MlflowClient,
    judged: Run,
    champion: ModelVersion | None,
    state: history.State,
    name: str,
) -> str | None:
    """Why there is nothing to decide, if so."""
    refit = judged.data.tags.get("refit_run")
    if champion is not None:
        if champion.run_id in (judged.info.run_id, refit):
            return f"the champion, version {champion.version}, is this challenger"
        if (champion.tags.get("data"), champion.tags.get("recipe")) == (state.data, state.recipe):
            return f"the champion, version {champion.version}, is of this data and recipe"
    before = _version_of(client, refit, name)
    if before is not None and "rolled_back" in before.tags:
        return f"this challenger, version {before.version}, was rolled back"
    return None


def _registered(
    client: mlflow.MlflowClient, run: Run, evaluation: dict, trigger: str, params: Params
) -> ModelVersion:
    """The version of a run, made now or by whoever was stopped before it was decided."""
    version = _version_of(client, run.info.run_id, params.register_.name)
    if version is None:
        return add_version(client, run, evaluation, trigger, params)
    if not version.description:
        describe(client, version, run, evaluation, params)
    return version


def _version_of(client: mlflow.MlflowClient, run: str | None, name: str) -> ModelVersion | None:
    same_run = [v for v in _versions(client, name) if run is not None and v.run_id == run]
    return client.get_model_version(name, str(same_run[0].version)) if same_run else None


def _versions(client: mlflow.MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))  # Unity Catalog knows no more


def _first_of(client: mlflow.MlflowClient, version: ModelVersion, params: Params) -> ModelVersion:
    """The oldest version of the same data and recipe: two that retrain at once promote the same."""
    for other in sorted(_versions(client, version.name), key=lambda v: int(v.version)):
        if int(other.version) >= int(version.version):
            break
        earlier = client.get_model_version(version.name, str(other.version))
        same = all(earlier.tags.get(k) == version.tags.get(k) for k in ("data", "recipe"))
        if same and "judged_run" in earlier.tags and "rolled_back" not in earlier.tags:
            load_model(earlier, params)
            return earlier
    return version


def _say(written: dict, more: list[str]) -> None:
    quiet = [check for check in written["checks"] if check["segment"] and check["passed"]]
    for check in written["checks"]:
        if check not in quiet:
            state = "ok" if check["passed"] else "refused"
            log.info("%-11s %-7s %s", check["name"], state, check["message"])
    if quiet:
        log.info("%-11s %-7s %d segments are not surely worse", "segment", "ok", len(quiet))
    for text in more:
        log.warning("%s", text)
    number = written["challenger"]["version"]
    log.info("%s: version %s; see reports/decision.md", written["decision"], number)
