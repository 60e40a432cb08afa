"""Releases: what is built once and deployed everywhere, named by the digest of its content.

A release holds the package, the settings and the pins, so a rollback brings back all of them. The target
`local` runs it from a folder; for Kubernetes the same is in a container image (Dockerfile).
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ...experiment.redaction import redact

# Variables of a running release: its digest, and the commit that it was built from.
IMAGE, COMMIT = "RELEASE_IMAGE", "RELEASE_COMMIT"
CHECK = "CHECK_TOKEN"  # variable with the secret of the checks, whose requests are not logged
# Variables of a release that is tried: the version that it answers with, whatever the alias says; and the
# port where its supervisor lets it listen, until the signal SIGUSR1 ends the trial.
VERSION, TRIAL_PORT = "MODEL_VERSION", "TRIAL_PORT"
DIGEST = re.compile("sha256:[0-9a-f]{64}")

log = logging.getLogger(__name__)


def home() -> Path:
    """Where the target `local` keeps releases and what runs: DELIVERY_HOME, else .delivery."""
    return Path(os.environ.get("DELIVERY_HOME") or ROOT / ".delivery").resolve()


def prediction_log_url() -> str:
    """The database of the prediction log: PREDICTION_LOG_URL, else a file beside the releases."""
    if url := os.environ.get("PREDICTION_LOG_URL"):
        return url
    home().mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home() / 'predictions.db'}"


def digest_of(folder: Path) -> str:
    """SHA-256 over a release's files, their names and lengths; a link counts as a link, not as its content."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        content = b"" if path.is_symlink() else path.read_bytes()
        kind = "link" if path.is_symlink() else str(len(content))
        total.update(f"{path.relative_to(folder).as_posix()}\0{kind}\0".encode() + content)
    return f"sha256:{total.hexdigest()}"


def checked(digest: str) -> str:
    """The digest unchanged; UserError if it has not the form of one."""
    if not DIGEST.fullmatch(digest):
        raise UserError(f"{digest!r} is no digest of a release: sha256: and 64 digits of 0-9, a-f")
    return digest


def verified(digest: str) -> Path:
    """The folder of a release; UserError if it is not here, or its files are not those of the digest."""
    place = path_of(digest)
    if not place.is_dir():
        raise UserError(f"release {digest} is not in {home()}: run the step `build`")
    if digest_of(place) != digest:
        raise UserError(f"release {digest} is refused: its files in {place} were changed")
    return place


def python(digest: str) -> Path:
    """The Python of a release, with its pins and nothing else; made the first time that it is needed."""
    with lock("releases"):
        return _python(digest)


def _python(digest: str) -> Path:
    pins = path_of(digest) / "requirements.txt"
    folder = home() / "environments" / hashlib.sha256(pins.read_bytes()).hexdigest()[:16]
    executable = folder / "bin/python"
    if not (folder / "ready").exists():
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        uv = shutil.which("uv", path=tools) or "uv"
        run_tool(
            uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder), cwd=ROOT
        )
        install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(executable)]
        install += ["--require-hashes", "-r", str(pins)]
        try:
            run_tool(uv, *install, "--offline", cwd=ROOT)
        except UserError:  # not all of it is in the cache of uv
            run_tool(uv, *install, cwd=ROOT)
        (folder / "ready").touch()
    return executable


def lock(name: str) -> AbstractContextManager:
    """A lock between processes: that of an environment, or `releases` for the folder of releases."""
    import filelock  # the service needs no lock, and its image has none

    home().mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(home() / f"{name}.lock")


def run_tool(*command: str, cwd: Path, **environment: str) -> str:
    """What a command prints, with more variables in its environment; UserError if it fails."""
    options = {"env": os.environ | environment, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=cwd, **options)  # type: ignore[call-overload]
    if done.returncode:
        reason = redact(done.stdout)[-300:] + redact(done.stderr)[-300:]
        raise UserError(f"the release cannot be built: {reason}")
    return done.stdout


def path_of(digest: str) -> Path:
    """The folder of a release; UserError if this is no digest."""
    return home() / "releases" / checked(digest).removeprefix("sha256:")
