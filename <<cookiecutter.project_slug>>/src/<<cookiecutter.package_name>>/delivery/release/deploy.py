"""Deployment: check a release and a model beside what an environment runs, and roll them out if they pass.

Nobody is answered by a release that has not passed. The step `deploy --env staging` takes the release and
the model that run in the environment before it; for the first environment it builds the release, and takes
the champion. The alias with the environment's name is the version that serves there.
"""

import logging
import time

from ...continuous_training.features import materialize
from ...experiment import tracking
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from ...experiment.params import Params, load
from ...experiment.redaction import redact
from ...experiment.registry import find_version, require_version
from .. import settings
from ..service import online_features, routing
from ..service.scoring import load_with_golden
from . import build, checks, deployment, releases, targets

log = logging.getLogger(__name__)


def run(env: str, image: str | None, version: str | None, stop: bool = False) -> None:
    limits = settings.load()
    before = settings.before(env, limits)
    target = targets.of(env, limits)
    with releases.lock(env):
        if stop:
            target.stop()
            return
        passed = targets.of(before, limits).current() if before else None
        if before and passed is None and not (image and version):
            hint = "deploy there, or name image and version"
            raise UserError(f"{env}: nothing runs in {before}: {hint}")
        if not (image or passed) and limits.environments[env].target == "kubernetes":
            raise UserError(
                f"{env}: name the digest of an image in {limits.image}: DIGEST=sha256:..."
            )
        image = releases.checked(image or (passed.image if passed else build.build()))
        default = before if passed and before else "champion"
        deploy(env, target, image, version or default, limits)


def deploy(
    env: str, target: deployment.Target, image: str, version: str, limits: settings.Settings
) -> None:
    """Roll out a release and a version, and check them; or go back to what ran, and raise UserError."""
    params = load()
    start = time.perf_counter()
    client = tracking.connect()
    name = params.register_.name
    new = require_version(client, name, version)
    loaded, rows = load_with_golden(new, params)
    release = deployment.Release(image, str(new.version))
    before = target.current()
    alias = find_version(client, name, env)
    record = {"environment": env, **release._asdict(), "decision": "rolled back", "checks": []}
    with tracking.decision(f"deploy version {new.version} to {env}") as run_id:
        try:
            materialize_lacking(params, loaded.kinds)
            with target.trial(release, limits.checks.ready) as endpoint:
                if endpoint is not None:
                    url, most = releases.prediction_log_url(), limits.service.rows
                    record["checks"] = [
                        checks.smoke(endpoint, release, loaded, rows),
                        checks.recent(endpoint, env, loaded, url, most),
                        checks.load(endpoint, rows, limits.checks),
                    ]
                routing.set_canary(client, name, env, None)
                routing.set_shadow(client, name, env, None)
                client.set_registered_model_alias(name, env, str(new.version))
                endpoint = target.roll_out(release, limits.checks.ready)
                checks.smoke(endpoint, release, loaded, rows)
            record["code"] = deployment.ready(target.url)["code"]
            record["decision"] = "deployed"
        except BaseException as error:
            if alias is None:
                client.delete_registered_model_alias(name, env)
            else:
                client.set_registered_model_alias(name, env, str(alias.version))
            back = _restore(target, before, limits)
            record["checks"] = [redact(f"{error}"), back]
            raise UserError(f"{env}: {error}; {back}") from error
        finally:
            deployment.write_report(record)
            for key in ("environment", "image", "version", "decision"):
                client.set_tag(run_id, key, record[key])
    for text in record["checks"]:
        log.info("%s", text)
    seconds = time.perf_counter() - start
    log.info("%s: version %s in %.1f s: %s", env, release.version, seconds, target.url)


def materialize_lacking(params: Params, kinds: Kinds) -> None:
    """Fill the online feature store if it lacks views that a model takes, and the batches are here."""
    features = online_features.for_model(params.data, kinds)
    if features is None or not features.lacking(kinds):
        return
    try:
        materialize.run()
    except UserError as error:  # the release will not be ready, and says why
        log.warning("the online feature store cannot be filled here: %s", error)


def _restore(
    target: deployment.Target, before: deployment.Release | None, limits: settings.Settings
) -> str:
    """Let that run which ran before; returns in words what that is."""
    if before is None:
        target.stop()
        return "nothing runs there, as before"
    if target.current() != before:
        target.roll_out(before, limits.checks.ready)
    return f"rolled back to version {before.version} of {before.image[:19]}"
