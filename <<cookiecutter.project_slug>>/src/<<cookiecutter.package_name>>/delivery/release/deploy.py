"""Deployment: roll out a release and a model in an environment, check them there, keep them or go back.

The step `deploy --env dev` takes the release and the model that the environment before
this one runs; for the first environment it builds the release, and takes the champion. The alias that
is named like the environment says which version serves there.
"""

import logging
import time

import filelock

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
    below, target = settings.before(env, limits), targets.of(env, limits)
    releases.home().mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(releases.home() / f"{env}.lock"):
        if stop:
            target.stop()
            return
        passed = targets.of(below, limits).current() if below else None
        if below and passed is None and not (image and version):
            raise UserError(
                f"{env}: nothing runs in {below}: deploy there, or name image and version"
            )
        image = releases.checked(image or (passed.image if passed else build.build()))
        deploy(env, target, image, version or (below if passed and below else "champion"), limits)


def deploy(
    env: str, target: deployment.Target, image: str, version: str, limits: settings.Settings
) -> None:
    """Bring a release and a version there, or leave what was there; raises UserError."""
    params, start = load(), time.perf_counter()
    client, name = tracking.connect(), params.register_.name
    wanted = require_version(client, name, version)
    loaded = load_model(wanted, params)
    release = deployment.Release(image, str(wanted.version))
    before, alias = target.current(), find_version(client, name, env)
    written = {"environment": env, **release._asdict(), "decision": "deployed"}
    with tracking.decision(f"deploy version {wanted.version} to {env}") as run_id:
        try:
            routing.set_canary(client, name, env, None)
            routing.set_shadow(client, name, env, None)
            client.set_registered_model_alias(name, env, str(wanted.version))
            target.roll_out(release, limits.checks.ready)
            rows = golden(wanted, loaded)
            smoke = checks.smoke(target, release, loaded, rows)
            written["checks"] = [smoke, checks.load(target, rows, limits.checks)]
            written["code"] = deployment.ready(target.url)["code"]
        except BaseException as error:
            if alias is None:
                client.delete_registered_model_alias(name, env)
            else:
                client.set_registered_model_alias(name, env, str(alias.version))
            back = "nothing runs there, as before"
            if before is None:
                target.stop()
            else:
                if target.current() != before:
                    target.roll_out(before, limits.checks.ready)
                back = f"rolled back to version {before.version} of {before.image[:19]}"
            written |= {"decision": "rolled back", "checks": [redact(f"{error}"), back]}
            _write(written)
            raise UserError(f"{env}: {error}; {back}") from error
        finally:
            for key in ("environment", "image", "version", "decision"):
                client.set_tag(run_id, key, written[key])
    _write(written)
    for text in written["checks"]:
        log.info("%s", text)
    seconds = time.perf_counter() - start
    log.info("%s: version %s in %.1f s: %s", env, release.version, seconds, target.url)


def _write(written: dict) -> None:
    """Write reports/deployment-ENV.json, and .md to read."""
    name = f"deployment-{written['environment']}"
    reports.write_json(f"{name}.json", written)
    title = f"# {written['decision']}: {written['environment']}, version {written['version']}"
    lines = [title, "", f"Release `{written['image']}`", ""]
    lines += [f"- {plain(text)}" for text in written["checks"]]
    reports.write(f"{name}.md", "\n".join([*lines, ""]))
