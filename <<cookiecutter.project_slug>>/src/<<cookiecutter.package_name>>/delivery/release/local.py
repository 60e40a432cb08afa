"""The target `local`: a supervised process on this machine, which runs a release from its folder."""

import json
import os
import secrets
import subprocess
import time
from pathlib import Path

import psutil

from ...experiment.cli import PACKAGE
from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ..settings import Settings
from .deployment import Release, ready
from .releases import CHECK, COMMIT, IMAGE, home, prediction_log_url, python, verified

# The module that runs the service: of this version of the template, and of 0.1.0.
SUPERVISORS = ("delivery.service.supervisor", "delivery.supervise")


class Local:
    """A supervised process on this machine; its state and its log are files in DELIVERY_HOME."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.port = settings.environments[name].port
        self.url = f"http://127.0.0.1:{self.port}"
        self.check = ""
        self.log = home() / f"{name}.log"
        self.state = home() / f"{name}.json"  # of the process that is deployed
        self.candidate = home() / f"{name}.candidate.json"  # of the one that is to replace it

    def current(self) -> Release | None:
        state = _running(self.state)
        return Release(state["image"], state["version"]) if state else None

    def roll_out(self, release: Release, seconds: float) -> None:
        self._stop_leftovers()
        before = _running(self.state)
        process = self._start(release)
        state = release._asdict() | {"pid": process.pid}
        state["started"] = psutil.Process(process.pid).create_time()
        if before:
            state["before"] = {key: before[key] for key in ("pid", "started")}
        try:
            self.candidate.write_text(json.dumps(state), encoding="utf-8")
            end = time.monotonic() + seconds
            while ready(self.url).get("parent") != process.pid:
                if process.poll() is not None or time.monotonic() > end:
                    raise UserError(f"the release is not ready: see {self.log}")
                time.sleep(0.05)
        except BaseException:  # Ctrl-C, too: what is not deployed must not answer
            _stop(state)
            process.wait()
            raise
        os.replace(self.candidate, self.state)
        self._stop_leftovers()

    def stop(self) -> None:
        self._stop_leftovers()
        _stop(_load(self.state))
        for path in (self.candidate, self.state):
            path.unlink(missing_ok=True)

    def _stop_leftovers(self) -> None:
        """Stop what earlier deployments, done or killed, left: a candidate, and the replaced process."""
        _stop(_load(self.candidate))
        _stop(_load(self.state).get("before", {}))

    def _start(self, release: Release) -> subprocess.Popen:
        """The supervisor of a release's service, in a session of its own."""
        folder = verified(release.image)
        environment = os.environ | {"PYTHONPATH": str(folder / "site"), IMAGE: release.image}
        environment |= {COMMIT: (folder / "commit").read_text(encoding="utf-8").strip()}
        environment["OMP_NUM_THREADS"] = "1"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the release stays as its digest says
        environment.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{ROOT / 'mlflow.db'}")
        environment["PREDICTION_LOG_URL"] = prediction_log_url()
        environment[CHECK] = self.check = secrets.token_urlsafe()
        environment.setdefault("FEATURE_STORE_URL", f"sqlite:///{ROOT / 'data/online.db'}")
        environment.setdefault("PREDICTION_JOURNAL", str(home() / "journal" / self.name))
        environment.pop("RUNNER_TRACKING_ID", None)  # else GitHub's runner ends it
        site = folder / "site" / PACKAGE
        module = next(m for m in SUPERVISORS if (site / f"{m.replace('.', '/')}.py").exists())
        command = [str(python(release.image)), "-m", f"{PACKAGE}.{module}"]
        command += ["--env", self.name, "--port", str(self.port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _load(path: Path) -> dict:
    """The content of a state file; {} if there is none, or if it was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _running(path: Path) -> dict:
    """The content of a state file if its process runs, else {}."""
    state = _load(path)
    return state if _process(state) else {}


def _process(state: dict) -> psutil.Process | None:
    """The process that was started; None if it has ended, even if another one has its number now."""
    if "pid" not in state:
        return None
    try:
        process = psutil.Process(state["pid"])
        return process if process.create_time() == state["started"] else None
    except psutil.NoSuchProcess:
        return None


def _stop(state: dict, seconds: float = 30) -> None:
    """End a service, with its children, once it has answered its requests; kill it after so many seconds."""
    process = _process(state)
    if process is not None:
        family = [process, *process.children()]
        process.terminate()
        _, alive = psutil.wait_procs(family, seconds)
        for slow in alive:
            slow.kill()
