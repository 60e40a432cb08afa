"""The target `local`: a supervised process on this machine, which runs a release from its folder."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ...experiment.cli import PACKAGE
from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ..settings import Settings
from .deployment import Endpoint, Release, ready, reason
from .releases import (
    CHECK,
    COMMIT,
    IMAGE,
    TRIAL_PORT,
    VERSION,
    home,
    path_of,
    prediction_log_url,
    python,
    verified,
)

# The module that runs the service: of this version of the template, and of 0.1.0.
SUPERVISORS = ("delivery.service.supervisor", "delivery.supervise")


class Local:
    """A supervised process on this machine; its state and its log are files in DELIVERY_HOME."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.port = settings.environments[name].port
        self.url = f"http://127.0.0.1:{self.port}"
        self.environments: dict[Release, dict[str, str]] = {}  # of what this object replaced
        self.tried: tuple[Release, subprocess.Popen, str] | None = None  # with its secret
        self.log = home() / f"{name}.log"
        self.state = home() / f"{name}.json"  # of the process that is deployed
        self.candidate = home() / f"{name}.candidate.json"  # of the one that is to replace it

    def current(self) -> Release | None:
        state = _running(self.state)
        return Release(state["image"], state["version"]) if state else None

    @contextmanager
    def trial(self, release: Release, seconds: float) -> Iterator[Endpoint | None]:
        verified(release.image)
        if _module(release) != SUPERVISORS[0]:  # it would answer as the alias says
            yield None
            return
        self._stop_leftovers()
        port = _free_port()
        endpoint = Endpoint(f"http://127.0.0.1:{port}", secrets.token_urlsafe())
        variables = {CHECK: endpoint.check, VERSION: release.version, TRIAL_PORT: str(port)}
        process = self._start(release, os.environ | variables)
        self.tried = (release, process, endpoint.check)
        try:
            self._note(process, release)
            self._await_ready(process, endpoint.url, seconds)
            yield endpoint
        finally:
            self.tried = None
            self._stop_leftovers()
            if _load(self.state).get("pid") != process.pid:
                process.wait()

    def roll_out(self, release: Release, seconds: float) -> Endpoint:
        before = _running(self.state)
        if self.tried and self.tried[0] == release:
            _, process, check = self.tried
            process.send_signal(signal.SIGUSR1)  # to its supervisor: the trial is over
        else:
            self._stop_leftovers()
            check = secrets.token_urlsafe()
            # What comes back has the variables that it was started with, not those of this deployment.
            variables = self.environments.get(release, dict(os.environ)) | {CHECK: check}
            process = self._start(release, variables)
        more = {}
        if before:
            replaced = Release(before["image"], before["version"])
            started_with = psutil.Process(before["pid"]).environ()
            for variable in (TRIAL_PORT, VERSION):  # its trial is long over
                started_with.pop(variable, None)
            self.environments[replaced] = started_with
            more["before"] = {key: before[key] for key in ("pid", "started")}
        try:
            self._note(process, release, **more)
            self._await_ready(process, self.url, seconds)
        except BaseException:  # Ctrl-C, too: what is not deployed must not answer
            _stop(_state(process))
            process.wait()
            raise
        os.replace(self.candidate, self.state)
        self._stop_leftovers()
        return Endpoint(self.url, check)

    def _note(self, process: subprocess.Popen, release: Release, **more: dict) -> None:
        """Write down what has been started, so that the next deployment ends it if this one is killed."""
        state = release._asdict() | _state(process) | more
        self.candidate.write_text(json.dumps(state), encoding="utf-8")

    def _await_ready(self, process: subprocess.Popen, url: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while ready(url).get("parent") != process.pid:
            if process.poll() is not None or time.monotonic() > end:
                raise UserError(f"the release is not ready{reason(url)}: see {self.log}")
            time.sleep(0.05)

    def note_version(self, version: str) -> None:
        state = _load(self.state)
        if state:
            self.candidate.write_text(json.dumps(state | {"version": version}), encoding="utf-8")
            os.replace(self.candidate, self.state)

    def stop(self) -> None:
        self._stop_leftovers()
        _stop(_load(self.state))
        for path in (self.candidate, self.state):
            path.unlink(missing_ok=True)

    def _stop_leftovers(self) -> None:
        """Stop what earlier deployments, done or killed, left: a candidate, and the replaced process."""
        _stop(_load(self.candidate))
        _stop(_load(self.state).get("before", {}))

    def _start(self, release: Release, variables: dict[str, str]) -> subprocess.Popen:
        """The supervisor of a release's service, in a session of its own."""
        folder = verified(release.image)
        environment = variables | {"PYTHONPATH": str(folder / "site"), IMAGE: release.image}
        environment |= {COMMIT: (folder / "commit").read_text(encoding="utf-8").strip()}
        environment["OMP_NUM_THREADS"] = "1"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the release stays as its digest says
        defaults = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{ROOT / 'mlflow.db'}",
            "FEATURE_STORE_URL": f"sqlite:///{ROOT / 'data/online.db'}",
            "PREDICTION_LOG_URL": prediction_log_url(),
            "PREDICTION_JOURNAL": str(home() / "journal" / self.name),
            "MODEL_CACHE": str(home() / "models"),
        }
        environment |= {name: environment.get(name) or value for name, value in defaults.items()}
        environment.pop("RUNNER_TRACKING_ID", None)  # else GitHub's runner ends it
        command = [str(python(release.image)), "-m", f"{PACKAGE}.{_module(release)}"]
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


def _module(release: Release) -> str:
    """The module that runs the release's service."""
    site = path_of(release.image) / "site" / PACKAGE
    return next((m for m in SUPERVISORS if (site / f"{m.replace('.', '/')}.py").exists()), "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _state(process: subprocess.Popen) -> dict:
    """What tells a process from another one that has its number later."""
    return {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}


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
