"""Where releases run: processes on this machine, or Kubernetes. `deploy` knows no other difference.

Both roll out without a gap: the old one answers until the new one is ready.
"""

import hashlib
import json
import logging
import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
import psutil
import yaml

from ..errors import UserError
from ..params import ROOT
from .releases import CHECK, COMMIT, DIGEST, IMAGE, checked, home, prediction_log, python, verified
from .settings import Settings

logging.getLogger("httpx").setLevel(logging.WARNING)  # it says a line a request


class Release(NamedTuple):
    """What an environment runs: the digest of the code, and the version of the model."""

    image: str
    version: str


class Target(Protocol):
    url: str
    check: str  # a secret of what was rolled out last: requests with it are not logged

    def current(self) -> Release | None:
        """What runs now, if anything."""

    def roll_out(self, release: Release, seconds: float) -> None:
        """Let this run in place of what runs now; UserError if it is not ready in time."""

    def stop(self) -> None:
        """Let nothing run there."""


def of(name: str, settings: Settings) -> Target:
    if settings.environments[name].target == "local":
        return Local(name, settings)
    return Kubernetes(name, settings)


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
        environment["PREDICTION_LOG_URL"] = prediction_log()
        environment[CHECK] = self.check = secrets.token_urlsafe()
        environment.setdefault("FEATURE_STORE_URL", f"sqlite:///{ROOT / 'data/online.db'}")
        environment.setdefault("PREDICTION_JOURNAL", str(home() / "journal" / self.name))
        environment.pop("RUNNER_TRACKING_ID", None)  # GitHub's runner ends what has it
        command = [str(python(release.image)), "-m", f"{__package__}.supervise"]
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


class Kubernetes:
    """A deployment of the overlay deploy/NAME, by kubectl and its kustomize."""

    def __init__(self, name: str, settings: Settings) -> None:
        about = settings.environments[name]
        self.name, self.image, self.url = name, settings.image, str(about.url)
        self.context = ["--context", about.context] if about.context else []
        self.overlay, self.check = ROOT / "deploy" / name, ""

    def current(self) -> Release | None:
        found = self._kubectl("get", "-k", str(self.overlay), "-o", "json", "--ignore-not-found")
        items = json.loads(found or "{}").get("items", [])
        for item in (i for i in items if i["kind"] == "Deployment"):
            pod = item["spec"]["template"]
            image = pod["spec"]["containers"][0]["image"].partition("@")[2]
            if not DIGEST.fullmatch(image):
                raise UserError(f"{self.name}: what runs has no digest: stop it first (STOP=1)")
            return Release(image, pod["metadata"]["annotations"]["model-version"])
        return None

    def roll_out(self, release: Release, seconds: float) -> None:
        digest = checked(release.image)
        self.check = secrets.token_urlsafe()
        # The digest of the secret is in the pods: they start anew, and with it.
        check = hashlib.sha256(self.check.encode()).hexdigest()
        with tempfile.TemporaryDirectory(dir=ROOT / "deploy") as folder:
            content = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"../{self.name}"],
                "images": [{"name": "service", "newName": self.image, "digest": digest}],
                "commonAnnotations": {"model-version": release.version, "check": check},
                "namespace": self._namespace(),
                "secretGenerator": [{"name": "check", "literals": [f"{CHECK}={self.check}"]}],
                "generatorOptions": {"disableNameSuffixHash": True},
            }
            Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            self._kubectl("apply", "-k", folder)
        rollout = ["rollout", "status", "deployment/service", f"--timeout={seconds:.0f}s"]
        self._kubectl(*rollout, "-n", self._namespace())

    def stop(self) -> None:
        self._kubectl("delete", "-k", str(self.overlay), "--ignore-not-found")

    def _namespace(self) -> str:
        text = (self.overlay / "kustomization.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(text)["namespace"]

    def _kubectl(self, *arguments: str) -> str:
        command = ["kubectl", *self.context, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{self.name}: kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def ready(url: str) -> dict:
    """What answers there, and is ready; nothing if nothing is."""
    try:
        return httpx.get(f"{url}/ready", timeout=5).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
