"""The target `kubernetes`: the overlay deploy/NAME, applied by kubectl and its kustomize."""

import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ..settings import Settings
from .deployment import Endpoint, Release, ready, reason
from .releases import CHECK, DIGEST, IMAGE, VERSION, checked

CHECKS_LABEL = "for=checks"  # of the secrets that hold CHECK_TOKEN
TRIAL = "service-trial"  # the pod that answers nobody but the checks
NEEDED = ("ConfigMap", "Secret", "ServiceAccount")  # what its pod takes of an overlay


class Kubernetes:
    """A deployment of the overlay deploy/NAME, by kubectl and its kustomize."""

    def __init__(self, name: str, settings: Settings) -> None:
        environment = settings.environments[name]
        self.name = name
        self.image = settings.image
        self.url = str(environment.url)
        self.context = ["--context", environment.context] if environment.context else []
        self.overlay = ROOT / "deploy" / name

    def current(self) -> Release | None:
        text = self._kubectl("get", "-k", str(self.overlay), "-o", "json", "--ignore-not-found")
        answer = json.loads(text or "{}")
        # Of one object kubectl makes no list.
        items = answer.get("items", [answer] if answer else [])
        for item in (i for i in items if i["kind"] == "Deployment"):
            pod = item["spec"]["template"]
            image = pod["spec"]["containers"][0]["image"].partition("@")[2]
            if not DIGEST.fullmatch(image):
                raise UserError(f"{self.name}: what runs has no digest: stop it first (STOP=1)")
            return Release(image, item["metadata"]["annotations"]["model-version"])
        return None

    @contextmanager
    def trial(self, release: Release, seconds: float) -> Iterator[Endpoint]:
        check, end = secrets.token_urlsafe(), time.monotonic() + seconds
        variables = {IMAGE: checked(release.image), VERSION: release.version, CHECK: check}
        documents = [*yaml.safe_load_all(self._rendered(release, variables))]
        (spec,) = (d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment")
        metadata = {"name": TRIAL, "namespace": self._namespace(), "labels": {"app": TRIAL}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["spec"] = spec | {"restartPolicy": "Never"}
        needed = [document for document in documents if document["kind"] in NEEDED]
        self._delete_trial()
        try:
            self._kubectl("apply", "-f", "-", text=yaml.safe_dump_all([*needed, pod]))
            self._await_running(end)
            with self._forwarded() as url:
                while not ready(url):
                    if time.monotonic() > end:
                        raise UserError(f"the release is not ready{reason(url) or self._log()}")
                    time.sleep(0.2)
                yield Endpoint(url, check)
        finally:
            self._delete_trial()

    def roll_out(self, release: Release, seconds: float) -> Endpoint:
        check = secrets.token_urlsafe()
        image = {IMAGE: checked(release.image)}
        text = self._rendered(release, image, {CHECK: check})
        self._kubectl("apply", "-f", "-", text=text)
        rollout = ["rollout", "status", "deployment/service", f"--timeout={seconds:.0f}s"]
        self._kubectl(*rollout, *self._where())
        names = [d["metadata"]["name"] for d in yaml.safe_load_all(text) if d["kind"] == "Secret"]
        others = ",".join(f"metadata.name!={name}" for name in names)
        self._kubectl(
            "delete", "secret", "-l", CHECKS_LABEL, f"--field-selector={others}", *self._where()
        )
        return Endpoint(self.url, check)

    def note_version(self, version: str) -> None:
        word = f"model-version={version}"  # of the deployment, not of its pods, which would start again
        self._kubectl("annotate", "deployment/service", word, "--overwrite", *self._where())

    def stop(self) -> None:
        self._kubectl("delete", "-k", str(self.overlay), "--ignore-not-found")
        self._delete_trial()

    def _rendered(
        self, release: Release, variables: dict[str, str], secret: dict[str, str] | None = None
    ) -> str:
        """The manifests of the overlay for a release, in YAML, with more variables of the container.

        A secret has a hash of its content in its name, so the pods start again with a new one.
        """
        env = [{"name": name, "value": value} for name, value in variables.items()]
        patch = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "service"},
            "spec": {"template": {"spec": {"containers": [{"name": "service", "env": env}]}}},
        }
        image = {"name": "service", "newName": self.image, "digest": release.image}
        content: dict = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{self.name}"],
            "images": [image],
            "commonAnnotations": {"model-version": release.version},
            "namespace": self._namespace(),
            "patches": [{"patch": yaml.safe_dump(patch)}],
        }
        if secret:
            literals = [f"{name}={value}" for name, value in secret.items()]
            options = {"labels": dict([CHECKS_LABEL.split("=")])}
            content["secretGenerator"] = [
                {"name": "check", "literals": literals, "options": options}
            ]
        with tempfile.TemporaryDirectory(dir=ROOT / "deploy") as folder:
            Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            return self._kubectl("kustomize", folder)

    def _await_running(self, end: float) -> None:
        """Wait until the trial's pod runs; UserError if it has ended, or does not in time."""
        phase = ("get", "pod", TRIAL, "-o", "jsonpath={.status.phase}", *self._where())
        while (now := self._kubectl(*phase)) != "Running":
            if now == "Failed" or time.monotonic() > end:
                raise UserError(
                    f"the release is not ready: its pod is {now or 'unknown'}{self._log()}"
                )
            time.sleep(0.5)

    @contextmanager
    def _forwarded(self) -> Iterator[str]:
        """The address on this machine at which the trial's pod answers."""
        command = ["kubectl", *self.context, "port-forward", f"pod/{TRIAL}", ":8080"]
        pipes: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen([*command, *self._where()], **pipes) as forward:
            try:
                line = forward.stdout.readline() if forward.stdout else ""
                port = line.partition(" -> ")[0].rpartition(":")[2]
                if not port.isdigit():
                    raise UserError(f"{self.name}: kubectl port-forward: {line.strip()}")
                yield f"http://127.0.0.1:{port}"
            finally:
                forward.terminate()

    def _log(self) -> str:
        """The end of the log of the trial's pod."""
        try:
            return ": " + self._kubectl("logs", TRIAL, "--tail=3", *self._where()).strip()
        except UserError:  # it has not started
            return ""

    def _delete_trial(self) -> None:
        self._kubectl("delete", "pod", TRIAL, "--ignore-not-found", *self._where())

    def _where(self) -> tuple[str, str]:
        return "-n", self._namespace()

    def _namespace(self) -> str:
        text = (self.overlay / "kustomization.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(text)["namespace"]

    def _kubectl(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl prints, given a text; UserError if it fails."""
        command = ["kubectl", *self.context, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{self.name}: kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
