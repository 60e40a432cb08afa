"""Retraining: the pipeline, then the gate, then the aliases of the registry.

`python -m << cookiecutter.package_name >> retrain` promotes the challenger or refuses it; both are
exit code 0, and reports/gate.json says why. What passes is fitted again on all rows, so the champion
knows the newest ones too. Every decision is a run in the experiment `...-decisions`.
"""

import json
import logging
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline

from .. import data, tracking
from ..errors import UserError
from ..evaluate import predict
from ..params import ROOT, Params, load
from ..register import add_version, promote
from ..registry import Loaded, find_version, load_model
from ..train import fit
from . import gate, pipeline, settings

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
    return fit(rows, _recipe(run, params))


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
    columns = {"drop": old.data.drop, "text": old.data.text}
    changes = {"model": old.model, "seed": old.seed, "data": params.data.model_copy(update=columns)}
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
    X, _ = data.xy(holdout, params, any_classes=True)
    checks.append(gate.latency(loaded.model, X, limits.latency))
    checks.append(gate.signature(loaded.kinds, champion and champion.kinds, limits))
    return checks


def refit(
    judged: Run, champion: Loaded | None, rows: pd.DataFrame, params: Params
) -> tuple[Run, list[gate.Check]]:
    """The recipe that passed, fitted on all rows and logged; and the checks on its stored model."""
    model = fit(rows, params)
    tags = {"step": "refit", "judged_run": judged.info.run_id}
    run_id = tracking.log_training(model, rows, None, {}, data.batches(params.data), params, **tags)
    mlflow.MlflowClient().set_tag(judged.info.run_id, "refit_run", run_id)
    run = tracking.find_run(run_id)
    some, stored = rows.tail(1000), load_model(run, params)
    found = gate.judge(stored.model, some, params)
    sane = gate.sanity(found)
    if not np.allclose(found.predicted, predict(model, data.xy(some, params, True)[0])):
        sane = gate.Check("sanity", False, None, None, "the stored model answers differently")
    limits = settings.load().gate
    checks = [sane, gate.signature(stored.kinds, champion and champion.kinds, limits)]
    for check in checks:
        check.message = f"fitted on all rows: {check.message}"
    return run, checks


def run() -> None:
    params = load()
    client = tracking.connect()
    if tracking.commit()["dirty"] == "true":
        raise UserError(
            "commit your changes first (git status; git init): a model is promoted from a commit"
        )
    pipeline.reproduce(params)
    challenger = pipeline.record(params)
    name = params.register_.name
    champion = find_version(client, name, "champion")
    if champion is not None and _is_of(champion, challenger):
        log.info("nothing to do: the champion, version %s, is this challenger", champion.version)
        return
    before = _version_of(client, challenger.data.tags.get("refit_run"), name)
    if before is not None and before.tags.get("rolled_back"):
        log.info("nothing to do: this challenger, version %s, was rolled back", before.version)
        return
    rows = pipeline.prepared()
    loaded = None if champion is None else load_model(champion, params)
    checks = decide(challenger, champion, loaded, rows, params)
    text = (ROOT / "reports/challenger/evaluation.json").read_text(encoding="utf-8")
    evaluation, chosen = json.loads(text), challenger
    if all(check.passed for check in checks):
        chosen, more = refit(challenger, loaded, pd.concat(rows, ignore_index=True), params)
        checks += more
        evaluation["notes"].append("after it was judged the model was fitted again, on all rows")
    promoted = all(check.passed for check in checks)
    version = _version_of(client, chosen.info.run_id, name) or add_version(
        client, chosen, evaluation, "demand", params
    )
    decision = "promoted" if promoted else "refused"
    written = _report(decision, checks, challenger, version, champion, evaluation)
    _conclude(client, written, version if promoted else None, champion, params)


def _is_of(version: ModelVersion, run: Run) -> bool:
    return version.run_id in (run.info.run_id, run.data.tags.get("refit_run"))


def _version_of(client: mlflow.MlflowClient, run: str | None, name: str) -> ModelVersion | None:
    if run is None:
        return None
    versions = client.search_model_versions(f"name = '{name}'")  # not by run: Unity Catalog cannot
    found = [str(version.version) for version in versions if version.run_id == run]
    return client.get_model_version(name, found[0]) if found else None


def _report(
    decision: str,
    checks: list[gate.Check],
    challenger: Run,
    version: ModelVersion,
    champion: ModelVersion | None,
    evaluation: dict,
) -> dict[str, Any]:
    """What reports/gate.json keeps of a decision."""
    rows = evaluation["rows"]
    return {
        "schema": 1,
        "decision": decision,
        "checks": [gate.as_json(check) for check in checks],
        "challenger": {"version": int(version.version), "run_id": challenger.info.run_id},
        "champion": {"version": int(champion.version)} if champion else None,
        "holdout": {
            "from": rows["from"],
            "to": rows["to"],
            "rows": rows["count"],
            "digest": data.digest([ROOT / "data/prepared/holdout.parquet"]),
        },
        "trigger": "demand",
        "commit": challenger.data.tags["commit"],
        "data": challenger.data.tags["data"],
    }


def _conclude(
    client, written: dict, version: ModelVersion | None, champion, params: Params
) -> None:
    """Log the decision, move the aliases if `version` is to be champion, write reports/gate.json."""
    name, number = params.register_.name, str(written["challenger"]["version"])
    with tracking.decision(f"{written['decision']} version {number}") as run_id:
        client.log_dict(run_id, written, "gate.json")
        for key in ("decision", "trigger", "commit", "data"):
            client.set_tag(run_id, key, written[key])
        client.set_tag(run_id, "version", number)
        client.set_registered_model_alias(name, "challenger", number)
        now = find_version(client, name, "champion")
        if (now and now.version) != (champion and champion.version):
            raise UserError("the champion changed meanwhile: run the step again")
        if version is not None:
            promote(client, version, champion)
    text = json.dumps(written, indent=2) + "\n"
    (ROOT / "reports/gate.json").write_text(text, encoding="utf-8")
    quiet = [check for check in written["checks"] if check["segment"] and check["passed"]]
    for check in written["checks"]:
        if check not in quiet:
            state = "ok" if check["passed"] else "refused"
            log.info("%-11s %-7s %s", check["name"], state, check["message"])
    if quiet:
        log.info("%-11s %-7s %d segments are not surely worse", "segment", "ok", len(quiet))
    log.info("%s: version %s; see reports/gate.json", written["decision"], number)
