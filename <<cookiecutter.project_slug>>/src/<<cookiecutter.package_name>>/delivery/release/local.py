"""The target `local`: a supervised process on this machine, which runs a release from its folder."""

import json
import os
import secrets
import subprocess
import time
from pathlib import Path

import psutil

from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ..settings import Settings
from .deployment import Release, ready
from .releases import CHECK, COMMIT, IMAGE, home, prediction_log_url, python, verified

PACKAGE = __package__.partition(".")[0]
# The module that runs the service, in a release of this version of the template or of 0.1.0.
SUPERVISORS = ("delivery.service.supervisor", "delivery.supervise")


class Local:
    """A supervised process on this machine; what runs, and its log, are in DELIVERY_HOME."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.port = name, settings.environments[name].port
        self.url, self.check = f"http://127.0.0.1:{self.port}", ""
        self.state, self.log = home() / f"{name}.json", home() / f"{name}.log"
        self.candidate = home() / f"{name}.candidate.json"  # what is to take its place, and of whom

    def current(self) -> Release | None:
        found = _read(self.state)
        return Release(found["image"], found["version"]) if found else None

    def roll_out(self, release: Release, seconds: float) -> None:
        self._tidy()
        before, process = _read(self.state), self._start(release)
        found = release._asdict() | {"pid": process.pid}
        found["started"] = psutil.Process(process.pid).create_time()
        if before:
            found["before"] = {key: before[key] for key in ("pid", "started")}
        try:
            self.candidate.write_text(json.dumps(found), encoding="utf-8")
            end = time.monotonic() + seconds
            while ready(self.url).get("parent") != process.pid:
                if process.poll() is not None or time.monotonic() > end:
                    raise UserError(f"the release is not ready: see {self.log}")
                time.sleep(0.05)
        except BaseException:  # Ctrl-C, too: what is not deployed must not answer
            _stop(found)
            process.wait()
            raise
        os.replace(self.candidate, self.state)
        self._tidy()

    def stop(self) -> None:
        self._tidy()
        _stop(_read(self.state))
        for path in (self.candidate, self.state):
            path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Stop what a deployment left that was done or killed: a candidate, and who was replaced."""
        _stop(_read(self.candidate))
        _stop(_load(self.state).get("before"))

    def _start(self, release: Release) -> subprocess.Popen:
        place = verified(release.image)
        environment = os.environ | {"PYTHONPATH": str(place / "site"), IMAGE: release.image}
        environment |= {COMMIT: (place / "commit").read_text(encoding="utf-8").strip()}
        environment["OMP_NUM_THREADS"] = "1"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the release stays as its digest says
        environment.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT / 'mlflow.db'}")
        environment["PREDICTION_LOG_URL"] = prediction_log_url()
        environment[CHECK] = self.check = secrets.token_urlsafe()
        environment.setdefault("FEATURE_STORE_URL", f"sqlite:///{ROOT / 'data/online.db'}")
        environment.setdefault("PREDICTION_JOURNAL", str(home() / "journal" / self.name))
        environment.pop("RUNNER_TRACKING_ID", None)  # GitHub's runner ends what has it
        site = place / "site" / PACKAGE
        module = next(m for m in SUPERVISORS if (site / f"{m.replace('.', '/')}.py").exists())
        command = [str(python(release.image)), "-m", f"{PACKAGE}.{module}"]
        command += ["--env", self.name, "--port", str(self.port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _load(path: Path) -> dict:
    """What a state file tells; nothing of one that is not there or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _read(path: Path) -> dict | None:
    """What a state file tells of a process, if that still runs."""
    found = _load(path)
    return found if found and _process(found) else None


def _process(found: dict) -> psutil.Process | None:
    """The process that was started, and no other that has its number by now."""
    try:
        process = psutil.Process(found["pid"])
        return process if process.create_time() == found["started"] else None
    except psutil.NoSuchProcess:
        return None


def _stop(found: dict | None, seconds: float = 30) -> None:
    """Let a service answer what it has begun, and end."""
    process = _process(found) if found else None
    if process is not None:
        family = [process, *process.children()]
        process.terminate()
        _, alive = psutil.wait_procs(family, seconds)
        for slow in alive:
            slow.kill()
