"""Deployment: roll out a release and a model in an environment, check them there, keep them or go back.

The step `deploy --env staging` takes the release and the model that run in the environment before it; for
the first environment it builds the release, and takes the champion. The alias with the environment's name
is the version that serves there.
"""

import logging
import time

from ...experiment import reports, tracking
from ...experiment.errors import UserError
from ...experiment.markdown import plain
from ...experiment.params import load
from ...experiment.redaction import redact
from ...experiment.registry import find_version, load_model, require_version
from .. import settings
from ..service import routing
from ..service.scoring import golden
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
    loaded = load_model(new, params)
    release = deployment.Release(image, str(new.version))
    before = target.current()
    alias = find_version(client, name, env)
    record = {"environment": env, **release._asdict(), "decision": "rolled back", "checks": []}
    with tracking.decision(f"deploy version {new.version} to {env}") as run_id:
        try:
            routing.set_canary(client, name, env, None)
            routing.set_shadow(client, name, env, None)
            client.set_registered_model_alias(name, env, str(new.version))
            target.roll_out(release, limits.checks.ready)
            rows = golden(new, loaded)
            smoke = checks.smoke(target, release, loaded, rows)
            record["checks"] = [smoke, checks.load(target, rows, limits.checks)]
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
            _write(record)
            for key in ("environment", "image", "version", "decision"):
                client.set_tag(run_id, key, record[key])
    for text in record["checks"]:
        log.info("%s", text)
    seconds = time.perf_counter() - start
    log.info("%s: version %s in %.1f s: %s", env, release.version, seconds, target.url)


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


def _write(record: dict) -> None:
    """Write reports/deployment-ENV.json, and .md to read."""
    name = f"deployment-{record['environment']}"
    reports.write_json(f"{name}.json", record)
    title = f"# {record['decision']}: {record['environment']}, version {record['version']}"
    lines = [title, "", f"Release `{record['image']}`", ""]
    lines += [f"- {plain(text)}" for text in record["checks"]]
    reports.write(f"{name}.md", "\n".join([*lines, ""]))
