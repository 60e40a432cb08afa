"""Retraining: the triggers, the pipeline, the gate, then the aliases of the registry.

`python -m << cookiecutter.package_name >> retrain` promotes the challenger or refuses it, or does
nothing if no trigger fires; all are exit code 0, and reports/decision.md says why. What passes is
fitted again on all rows, so that the champion knows the newest ones too.
"""

import json
import logging
import time

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline

from .. import data, feature_views, tracking
from ..errors import UserError
from ..evaluate import predict
from ..params import ROOT, Params, load
from ..register import add_version, describe, promote
from ..registry import Loaded, find_version, load_model
from ..train import fit
from . import decisions, fetch, gate, pipeline, settings, triggers

log = logging.getLogger(__name__)


def rival(
    version: ModelVersion,
    champion: Pipeline,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    params: Params,
) -> Pipeline:
    """The champion as it may be judged on rows held out: it, or its recipe, fitted without them.

    That is the champion itself if it was fitted before them; else the run that the gate judged then,
    if that was; else its settings, fitted now on those of its rows that are not held out.
    """
    run = tracking.find_run(version.run_id)
    if _before(run, holdout, params):
        return champion
    if "judged_run" in run.data.tags:
        judged = tracking.find_run(run.data.tags["judged_run"])
        if _before(judged, holdout, params):
            return load_model(judged, params).model
    until, rows = run.data.params.get("fitted_until"), train
    if until is not None and params.data.time is not None:
        rows = train[train[params.data.time] <= pd.Timestamp(until)]
    kept = [*champion.named_steps["tidy"].kinds, params.data.target]
    return fit(rows[kept], _recipe(run, params))


def _before(run: Run, holdout: pd.DataFrame, params: Params) -> bool:
    """Whether a run was fitted on rows before those held out only."""
    if params.data.time is None:
        newest = data.batches(params.data)[-1].stem
        return run.data.params["last_batch"] < newest
    until = run.data.params.get("fitted_until")
    return until is not None and pd.Timestamp(until) < holdout[params.data.time].min()


def _recipe(run: Run, params: Params) -> Params:
    """The settings of the model with which a run was trained."""
    with tracking.artifact(run, "params.yaml") as path:
        if path is None:
            return params
        old = load(path)
    none_dropped = params.data.model_copy(update={"drop": []})
    changes = {"model": old.model, "seed": old.seed, "data": none_dropped}
    return params.model_copy(update=changes)


def decide(
    run: Run,
    version: ModelVersion | None,
    champion: Loaded | None,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    params: Params,
) -> list[gate.Check]:
    """The checks on a challenger's run; `rows` are those it was fitted on, and those held out."""
    limits, holdout = settings.load().gate, rows[1]
    loaded = load_model(run, params)
    judged = gate.judge(loaded.model, holdout, params)
    checks = gate.alone(judged, *rows, params)
    if version is not None and champion is not None:
        other = gate.judge(rival(version, champion.model, *rows, params), holdout, params)
        checks = gate.against(judged, other, holdout, params, limits) + checks
        record = _record(version)
        if record is not None and limits.doubt_rows:
            checks.append(gate.suspect(other, *rows, record, params, limits))
    X, _ = data.xy(holdout, params, any_classes=True)
    checks.append(gate.latency(loaded.model, X, limits.latency))
    checks.append(_signature(loaded, champion, limits))
    return checks


def _record(version: ModelVersion) -> pd.DataFrame | None:
    """The table of `evaluate.compare` from when a version was judged, if its run kept that."""
    run = tracking.find_run(version.run_id)
    judged = tracking.find_run(run.data.tags.get("judged_run", version.run_id))
    with tracking.artifact(judged, "evaluation/test/evaluation.json") as path:
        return path and pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["table"])


def _signature(challenger: Loaded, champion: Loaded | None, limits: settings.Gate) -> gate.Check:
    supplied = [view.name for view in feature_views.VIEWS]
    return gate.signature(challenger.kinds, champion and champion.kinds, supplied, limits)


def refit(
    judged: Run, champion: Loaded | None, rows: pd.DataFrame, recipe: str, params: Params
) -> tuple[Run, list[gate.Check]]:
    """The recipe that passed, fitted on all rows and logged; and the checks on its stored model."""
    model, run_id = fit(rows, params), judged.data.tags.get("refit_run")
    if run_id is None:  # else whoever logged it was stopped later
        tags = {"step": "refit", "judged_run": judged.info.run_id, "recipe": recipe}
        batches = data.batches(params.data)
        run_id = tracking.log_training(model, rows, None, {}, batches, params, **tags)
        mlflow.MlflowClient().set_tag(judged.info.run_id, "refit_run", run_id)
    run = tracking.find_run(run_id)
    some, stored = rows.tail(1000), load_model(run, params)
    found = gate.judge(stored.model, some, params)
    sane = gate.sanity(found)
    if not np.allclose(found.predicted, predict(model, data.xy(some, params, True)[0])):
        sane = gate.Check("sanity", False, None, None, "the stored model answers differently")
    checks = [sane, _signature(stored, champion, settings.load().gate)]
    for check in checks:
        check.message = f"fitted on all rows: {check.message}"
    return run, checks


def run(demand: bool = False) -> None:
    params, limits = load(), settings.load()
    client, name = tracking.connect(), params.register_.name
    with pipeline.alone():
        if tracking.commit()["dirty"] == "true":
            raise UserError(
                "commit your changes first (git status; git init): a model is promoted from a commit"
            )
        folder = (ROOT / params.data.source).parent
        if limits.incoming is not None:
            fetch.fetch(limits.incoming, folder, ROOT / pipeline.QUARANTINE)
        state = decisions.state(params, limits)
        asked = triggers.ask(demand, find_version(client, name, "champion"), state, params, limits)
        experiment = triggers.write(asked)
        fired = [answer for answer in asked if answer.fired]
        if not fired:
            log.info("nothing to do: no trigger fired")
            decisions.say("nothing to do: no trigger fired", [experiment] if experiment else [])
            return
        try:
            pipeline.reproduce(params)
        except pipeline.QuarantineError as error:
            decisions.say("quarantined: the champion stays as it is", [str(error)])
            raise
        _decide(client, state, fired, params, limits)


def _decide(
    client: mlflow.MlflowClient,
    state: decisions.State,
    fired: list[triggers.Asked],
    params: Params,
    limits: settings.Settings,
) -> None:
    name, trigger = params.register_.name, ",".join(answer.name for answer in fired)
    challenger = pipeline.record(params, recipe=state.recipe)
    champion = find_version(client, name, "champion")
    before = _version_of(client, challenger.data.tags.get("refit_run"), name)
    settled = None
    if champion is not None and champion.run_id in _runs(challenger):
        settled = f"the champion, version {champion.version}, is this challenger"
    elif champion is not None and _of(champion) == (state.data, state.recipe):
        settled = f"the champion, version {champion.version}, is of this data and recipe"
    elif before is not None and before.tags.get("rolled_back"):
        settled = f"this challenger, version {before.version}, was rolled back"
    if settled is not None:
        log.info("nothing to do: %s", settled)
        decisions.say(f"nothing to do: {settled}", [])
        return
    (ROOT / "reports/gate.json").unlink(missing_ok=True)  # it is of another decision
    rows = pipeline.prepared()
    loaded = None if champion is None else load_model(champion, params)
    start = time.perf_counter()
    checks = decide(challenger, champion, loaded, rows, params)
    seconds = {"gate": time.perf_counter() - start}
    text = (ROOT / "reports/challenger/evaluation.json").read_text(encoding="utf-8")
    evaluation, chosen = json.loads(text), challenger
    if all(check.passed for check in checks):
        every = pd.concat(rows, ignore_index=True)
        chosen, more = refit(challenger, loaded, every, state.recipe, params)
        checks += more
        seconds["refit"] = time.perf_counter() - start - seconds["gate"]
        evaluation["notes"].append("after it was judged the model was fitted again, on all rows")
    evaluation["gate"] = [check.message for check in checks]
    promoted = all(check.passed for check in checks)
    version = _version_of(client, chosen.info.run_id, name)
    if version is None:
        version = add_version(client, chosen, evaluation, trigger, params)
    elif not version.description:  # whoever made it was stopped before its model card
        describe(client, version, chosen, evaluation, params)
    if promoted:
        version = _first_of(client, version, params)
    written = decisions.as_json(
        "promoted" if promoted else "refused",
        checks,
        {"version": int(version.version), "run_id": challenger.info.run_id},
        {"version": int(champion.version)} if champion else None,
        evaluation["rows"],
    )
    written |= {"trigger": trigger, "data": state.data, "commit": challenger.data.tags["commit"]}
    before = limits.triggers.refusals - 1
    more = []
    if not promoted and decisions.refusals(state.recipe, before) == before:
        more = [triggers.EXPERIMENT.format(count=limits.triggers.refusals)]
    with tracking.decision(f"{written['decision']} version {version.version}") as run_id:
        decisions.log(client, run_id, written, seconds, state)
        client.set_registered_model_alias(name, "challenger", str(version.version))
        now = find_version(client, name, "champion")
        expected = (champion and champion.version, version.version if promoted else None)
        if (now and now.version) not in expected:
            raise UserError("the champion changed meanwhile: run the step again")
        reasons = [f"{answer.name}: {answer.reason}" for answer in fired]
        decisions.write(written, reasons, more, params)
        if promoted:
            promote(client, version, champion)
    _say(written, more)


def _of(version: ModelVersion) -> tuple[str | None, str | None]:
    return version.tags.get("data"), version.tags.get("recipe")


def _runs(challenger: Run) -> tuple[str, str | None]:
    return challenger.info.run_id, challenger.data.tags.get("refit_run")


def _version_of(client: mlflow.MlflowClient, run: str | None, name: str) -> ModelVersion | None:
    found = [v for v in _versions(client, name) if run is not None and v.run_id == run]
    return client.get_model_version(name, str(found[0].version)) if found else None


def _versions(client: mlflow.MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))  # Unity Catalog knows no more


def _first_of(client: mlflow.MlflowClient, version: ModelVersion, params: Params) -> ModelVersion:
    """The oldest version of the same data and recipe: two that retrain at once promote the same."""
    for other in sorted(_versions(client, version.name), key=lambda v: int(v.version)):
        if int(other.version) >= int(version.version):
            break
        found = client.get_model_version(version.name, str(other.version))
        same = all(found.tags.get(k) == version.tags.get(k) for k in ("data", "recipe"))
        if same and "judged_run" in found.tags and "rolled_back" not in found.tags:
            load_model(found, params)
            return found
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
