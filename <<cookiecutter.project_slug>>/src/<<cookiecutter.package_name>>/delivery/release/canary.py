"""Canary: a new version answers for more and more of the traffic, and for none if it does not do well.

The step `canary --env production` takes the champion through `canary.steps` of delivery.yaml;
at each step it must answer so many rows within the limits on failures, latency and the distribution of
scores, told from the prediction log. Then the alias moves. `--share 50` starts an A/B test, `--shadow` scores
without answering; both stay until `--stop`.
"""

import contextlib
import json
import logging
import time
from typing import Any

import filelock
import mlflow
import numpy as np
import pandas as pd
import sqlalchemy as sql
from mlflow.entities.model_registry import ModelVersion

from ...continuous_training import settings as training
from ...continuous_training.drift.distributions import Bins, compare, count
from ...experiment import tracking
from ...experiment.errors import UserError
from ...experiment.params import load
from ...experiment.registry import load_model, require_version
from .. import settings
from ..service import online_features, prediction_log, routing
from . import deployment, releases, targets

ENOUGH = 100  # rows of the main version, without which the scores are not compared

log = logging.getLogger(__name__)


def run(env: str, version: str, share: float | None, shadow: bool, stop: bool) -> None:
    params, limits = load(), settings.load()
    settings.before(env, limits)
    if share is not None and not 0 < share <= 100:
        raise UserError(f"--share {share:g}: it is a percentage, above 0 and at most 100")
    client, name, target = tracking.connect(), params.register_.name, targets.of(env, limits)
    releases.home().mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(releases.home() / f"{env}.lock"):
        if stop:
            routing.set_canary(client, name, env, None)
            routing.set_shadow(client, name, env, None)
            if deployment.ready(target.url):
                follows(target, limits, canary=None, shadow=None)
            return
        new, main = require_version(client, name, version), require_version(client, name, env)
        if new.version == main.version:
            if routing.read_routes(client, name, env).canary == str(new.version):
                routing.set_canary(
                    client, name, env, None
                )  # of a canary that was killed at its end
            log.info("nothing to do: version %s answers in %s", new.version, env)
            return
        views = online_features.view_names(params.data)
        routing.check_inputs(load_model(new, params).kinds, load_model(main, params).kinds, views)
        number = str(new.version)
        if shadow:
            routing.set_shadow(client, name, env, number)
            follows(target, limits, shadow=int(new.version))
            log.info("version %s scores in the shadow of version %s", number, main.version)
        elif share is not None:
            routing.set_canary(client, name, env, number, share)
            follows(target, limits, canary=int(new.version), share=share)
            log.info("version %s answers %g %% in %s", number, share, env)
        else:
            walk(client, env, (new, main), target, limits)


def walk(
    client: mlflow.MlflowClient,
    env: str,
    versions: tuple[ModelVersion, ModelVersion],
    target: deployment.Target,
    limits: settings.Settings,
) -> None:
    """Raise the share of a new version step by step, or take it back to none; raises UserError."""
    (new, main), start, said = versions, time.time(), list[str]()
    name, written = new.name, {"environment": env, "version": str(new.version)}
    predictions = prediction_log.PredictionTable(releases.prediction_log_url())
    with tracking.decision(f"canary of version {new.version} in {env}") as run_id:
        try:
            for share in limits.canary.steps:
                routing.set_canary(client, name, env, str(new.version), share)
                follows(target, limits, canary=int(new.version), share=share)
                said.append(f"{share:g} %: {watch(predictions, env, versions, start, limits)}")
                log.info("%s", said[-1])
            client.set_registered_model_alias(name, env, str(new.version))
            follows(target, limits, version=int(new.version))
            written["decision"] = "deployed"
        except BaseException as error:
            written["decision"] = "rolled back"
            back = f"version {main.version} answers everything again"
            raise UserError(f"{env}: version {new.version}: {error}; {back}") from error
        finally:
            routing.set_canary(client, name, env, None)
            with contextlib.suppress(UserError):
                follows(target, limits, canary=None)
            client.log_dict(run_id, {**written, "steps": said}, "canary.json")
            for key, value in written.items():
                client.set_tag(run_id, key, value)
    log.info("%s: version %s answers everything", env, new.version)


def follows(target: deployment.Target, limits: settings.Settings, **wanted: Any) -> None:
    """Wait until the service says so; UserError if it does not, or has refused the version."""
    end = time.monotonic() + 3 * limits.service.follow + limits.checks.ready
    while time.monotonic() < end:
        now = deployment.ready(target.url)
        if wanted.items() <= now.items():
            return
        time.sleep(0.2)
    raise UserError(f"{target.url} does not follow the registry: its log says why")


def watch(
    predictions: prediction_log.PredictionTable,
    env: str,
    versions: tuple[ModelVersion, ModelVersion],
    start: float,
    limits: settings.Settings,
) -> str:
    """Wait for enough rows of this step and judge them; returns what was found, raises UserError."""
    step, rule = time.time(), limits.canary
    new, main = (int(version.version) for version in versions)
    end = step + rule.minutes * 60
    while True:
        look = time.monotonic()
        rows = since(predictions, env, start)
        own = rows[rows["version"] == new]
        found = judge(own, rows[rows["version"] == main], rule)
        if (own["time"] >= step).sum() >= rule.rows:
            return found
        if time.time() > end:
            answered = (own["time"] >= step).sum()
            raise UserError(
                f"{answered} rows in {rule.minutes:g} minutes, not {rule.rows}: {found}"
            )
        time.sleep(max(0.5, 4 * (time.monotonic() - look)))  # it is not what loads the machine


def since(predictions: prediction_log.PredictionTable, env: str, start: float) -> pd.DataFrame:
    """The newest answers (at most 100,000): version, time, seconds, score (NaN: it failed)."""
    own = predictions.table.c
    query = sql.select(own.version, own.time, own.seconds, own.prediction)
    query = query.where(own.environment == env, own.time >= start, sql.not_(own.shadow))
    predictions.create()
    with predictions.engine.connect() as connection:
        found = connection.execute(query.order_by(own.time.desc()).limit(100_000))
        rows = pd.DataFrame(found.fetchall(), columns=["version", "time", "seconds", "prediction"])
    return rows.assign(score=[score(text) for text in rows["prediction"]])


def score(text: str | None) -> float:
    """One number of a prediction: the last class's probability, or the value."""
    found = None if text is None else json.loads(text)
    value = found[-1] if isinstance(found, list) else found
    return np.nan if value is None else float(value)


def cuts(known: pd.Series) -> dict[str, Bins]:
    """Ten bins of scores, of equal width but for the ends, where the known ones are.

    Bins of equal counts would magnify differences that decide nothing, such as between probabilities
    of 0.001 and 0.002.
    """
    low, high = known.quantile([0.01, 0.99])
    edges = np.linspace(low, high, 11)[1:-1]
    return {"score": Bins("number", np.unique(edges))}


def judge(own: pd.DataFrame, main: pd.DataFrame, rule: settings.Canary) -> str:
    """Failures, latency and scores of a canary, in words; UserError if one is beyond its limit."""
    if own.empty:
        return "no row yet"
    failed = own["score"].isna().mean()
    p99 = own["seconds"].quantile(0.99) * 1000
    said = f"{len(own)} rows, {failed:.2%} failed (allowed {rule.errors:.2%}), "
    said += f"p99 {p99:.0f} ms (allowed {rule.p99:g})"
    wrong = failed > rule.errors or (p99 > rule.p99 and len(own) >= ENOUGH)
    scores, known = own["score"].dropna(), main["score"].dropna()
    if min(len(scores), len(known)) >= ENOUGH:
        places = cuts(known)
        reference, batch = (count(part.to_frame(), places)["score"] for part in (known, scores))
        allowed = training.Drift(psi=rule.psi, ks=1)
        found = compare(reference, batch, "number", allowed)
        said += f", PSI of the scores {found['psi']:.3f} (allowed {rule.psi:g} beside chance)"
        wrong |= found["drifted"]
    if wrong:
        raise UserError(said)
    return said
