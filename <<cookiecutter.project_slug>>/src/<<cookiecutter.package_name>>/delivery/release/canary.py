"""Canary: a new version answers for more and more of the traffic, and for none if it does not do well.

The step `canary --env production` takes the champion through `canary.steps` of delivery.yaml; at each step
it must answer enough rows within the limits on failures, latency and the distribution of scores, as the
prediction log has them. Then the alias moves. `--share 50` starts an A/B test, `--shadow` scores without
answering; both stay until `--stop`.
"""

import contextlib
import json
import logging
import time
from typing import Any

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

MIN_ROWS = 100  # of both versions to compare scores, and of the canary to judge its p99
MAX_ROWS = 100_000  # the newest answers, which are read
SCORE_BINS = 10

log = logging.getLogger(__name__)


def run(env: str, version: str, share: float | None, shadow: bool, stop: bool) -> None:
    params = load()
    limits = settings.load()
    settings.before(env, limits)
    if share is not None and not 0 < share <= 100:
        raise UserError(f"--share {share:g}: it is a percentage, above 0 and at most 100")
    client = tracking.connect()
    name = params.register_.name
    target = targets.of(env, limits)
    with releases.lock(env):
        if stop:
            routing.set_canary(client, name, env, None)
            routing.set_shadow(client, name, env, None)
            if deployment.ready(target.url):
                wait_for(target, limits, canary=None, shadow=None)
            return
        new = require_version(client, name, version)
        main = require_version(client, name, env)
        if not deployment.ready(target.url):
            raise UserError(f"{env}: nothing answers at {target.url}: make deploy ENV={env}")
        if new.version == main.version:
            if routing.read_routes(client, name, env).canary == str(new.version):
                routing.set_canary(client, name, env, None)  # left by a canary killed at its end
            log.info("nothing to do: version %s answers in %s", new.version, env)
            return
        views = online_features.view_names(params.data)
        routing.check_inputs(load_model(new, params).kinds, load_model(main, params).kinds, views)
        number = str(new.version)
        if shadow:
            routing.set_shadow(client, name, env, number)
            wait_for(target, limits, shadow=int(new.version))
            log.info("version %s scores in the shadow of version %s", number, main.version)
        elif share is not None:
            routing.set_canary(client, name, env, number, share)
            wait_for(target, limits, canary=int(new.version), share=share)
            log.info("version %s answers %g %% in %s", number, share, env)
        else:
            roll_out(client, env, new, main, target, limits)


def roll_out(
    client: mlflow.MlflowClient,
    env: str,
    new: ModelVersion,
    main: ModelVersion,
    target: deployment.Target,
    limits: settings.Settings,
) -> None:
    """Raise the share of the new version step by step, and move the alias; or go back and raise UserError."""
    start = time.time()
    steps: list[str] = []
    record = {"environment": env, "version": str(new.version), "decision": "rolled back"}
    running = target.current()
    predictions = prediction_log.PredictionTable(releases.prediction_log_url())
    with tracking.decision(f"canary of version {new.version} in {env}") as run_id:
        try:
            for share in limits.canary.steps:
                routing.set_canary(
                    client, new.name, env, str(new.version), share, _longest_seconds(limits)
                )
                wait_for(target, limits, canary=int(new.version), share=share)
                result = check_step(predictions, env, new, main, start, limits.canary)
                steps.append(f"{share:g} %: {result}")
                log.info("%s", steps[-1])
            client.set_registered_model_alias(new.name, env, str(new.version))
            wait_for(target, limits, version=int(new.version))
            record["decision"] = "deployed"
        except BaseException as error:
            client.set_registered_model_alias(new.name, env, str(main.version))
            back = f"version {main.version} answers everything again"
            raise UserError(f"{env}: version {new.version}: {error}; {back}") from error
        finally:
            routing.set_canary(client, new.name, env, None)
            with contextlib.suppress(UserError):
                wait_for(target, limits, canary=None)
            client.log_dict(run_id, record | {"steps": steps}, "canary.json")
            for key, value in record.items():
                client.set_tag(run_id, key, value)
    if running is not None:
        target.note_version(str(new.version))
        more = {"image": running.image, "code": deployment.ready(target.url).get("code")}
        deployment.write_report(record | more | {"checks": steps})
    log.info("%s: version %s answers everything", env, new.version)


def _longest_seconds(limits: settings.Settings) -> float:
    """How long a step may take: the service's turn to follow, the rows, and a minute to look at them."""
    return 3 * limits.service.follow + limits.checks.ready + limits.canary.minutes * 60 + 60


def wait_for(target: deployment.Target, limits: settings.Settings, **state: Any) -> None:
    """Wait until /ready of the service has these values; UserError if it does not, or refused the version."""
    end = time.monotonic() + 3 * limits.service.follow + limits.checks.ready
    while time.monotonic() < end:
        if state.items() <= deployment.ready(target.url).items():
            return
        time.sleep(0.2)
    raise UserError(f"{target.url} does not follow the registry: see its log")


def check_step(
    predictions: prediction_log.PredictionTable,
    env: str,
    new: ModelVersion,
    main: ModelVersion,
    start: float,
    limits: settings.Canary,
) -> str:
    """Wait for enough rows of this step, and check all rows since `start` (seconds since 1970), once.

    Who looks at latency and scores again and again finds a limit exceeded by chance; only failures stop the
    step at once. Returns what was measured, in words. Raises UserError if a limit is exceeded, or if the rows
    do not come in time.
    """
    step_start = time.time()
    end = step_start + limits.minutes * 60
    while True:
        query_start = time.monotonic()
        rows = answers_since(predictions, env, start)
        own = rows[rows["version"] == int(new.version)]
        answered, late = (own["time"] >= step_start).sum(), time.time() > end
        if answered >= limits.rows or late or own["score"].isna().mean() > limits.errors:
            result = check(own, rows[rows["version"] == int(main.version)], limits)
            if late and answered < limits.rows:
                few = f"{answered} rows in {limits.minutes:g} minutes, not {limits.rows}"
                raise UserError(f"{few}: {result}")
            return result
        query_seconds = time.monotonic() - query_start
        time.sleep(max(0.5, 4 * query_seconds))  # the queries take a fifth of the time at most


def answers_since(
    predictions: prediction_log.PredictionTable, env: str, start: float
) -> pd.DataFrame:
    """The newest answers: columns version, time, seconds, prediction, score (NaN: it failed)."""
    columns = predictions.table.c
    query = sql.select(columns.version, columns.time, columns.seconds, columns.prediction)
    query = query.where(columns.environment == env, columns.time >= start, ~columns.shadow)
    predictions.create()
    newest = query.order_by(columns.time.desc()).limit(MAX_ROWS)
    rows = pd.read_sql(newest, predictions.engine)
    return rows.assign(score=[score(text) for text in rows["prediction"]])


def score(text: str | None) -> float:
    """One number of a logged prediction: the last class's probability, or the value; NaN if it failed."""
    value = None if text is None else json.loads(text)
    if isinstance(value, list):
        value = value[-1]
    return np.nan if value is None else float(value)


def score_bins(scores: pd.Series) -> dict[str, Bins]:
    """Bins of equal width between the first and the last percentile of the main version's scores.

    Bins of equal counts would magnify differences that decide nothing, such as between probabilities
    of 0.001 and 0.002.
    """
    low, high = scores.quantile([0.01, 0.99])
    edges = np.linspace(low, high, SCORE_BINS + 1)[1:-1]
    return {"score": Bins("number", np.unique(edges))}


def check(own: pd.DataFrame, main: pd.DataFrame, limits: settings.Canary) -> str:
    """Failures, latency and scores of the canary's rows, in words; UserError if one exceeds its limit.

    Both tables have the columns seconds and score.
    """
    if own.empty:
        return "no row yet"
    failed = own["score"].isna().mean()
    p99 = own["seconds"].quantile(0.99) * 1000
    message = f"{len(own)} rows, {failed:.2%} failed (allowed {limits.errors:.2%}), "
    message += f"p99 {p99:.0f} ms (allowed {limits.p99:g})"
    exceeded = failed > limits.errors or (p99 > limits.p99 and len(own) >= MIN_ROWS)
    scores, reference = own["score"].dropna(), main["score"].dropna()
    if min(len(scores), len(reference)) >= MIN_ROWS:
        bins = score_bins(reference)
        expected, counts = (count(s.to_frame(), bins)["score"] for s in (reference, scores))
        measures = compare(expected, counts, "number", training.Drift(psi=limits.psi, ks=1))
        message += f", PSI of the scores {measures['psi']:.3f} (allowed {limits.psi:g})"
        exceeded |= measures["drifted"]
    if exceeded:
        raise UserError(message)
    return message
