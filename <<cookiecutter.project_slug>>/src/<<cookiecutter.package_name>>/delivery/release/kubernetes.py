"""The target `kubernetes`: the overlay deploy/NAME, applied by kubectl and its kustomize."""

import hashlib
import json
import secrets
import subprocess
import tempfile
from pathlib import Path

import yaml

from ...experiment.errors import UserError
from ...experiment.params import ROOT
from ..settings import Settings
from .deployment import Release
from .releases import CHECK, DIGEST, IMAGE, checked


class Kubernetes:
    """A deployment of the overlay deploy/NAME, by kubectl and its kustomize."""

    def __init__(self, name: str, settings: Settings) -> None:
        environment = settings.environments[name]
        self.name = name
        self.image = settings.image
        self.url = str(environment.url)
        self.context = ["--context", environment.context] if environment.context else []
        self.overlay = ROOT / "deploy" / name
        self.check = ""

    def current(self) -> Release | None:
        text = self._kubectl("get", "-k", str(self.overlay), "-o", "json", "--ignore-not-found")
        items = json.loads(text or "{}").get("items", [])
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
        # A new secret changes this digest in the pods' annotations, so that they start again with it.
        check = hashlib.sha256(self.check.encode()).hexdigest()
        variables = [f"{CHECK}={self.check}", f"{IMAGE}={digest}"]
        with tempfile.TemporaryDirectory(dir=ROOT / "deploy") as folder:
            content = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"../{self.name}"],
                "images": [{"name": "service", "newName": self.image, "digest": digest}],
                "commonAnnotations": {"model-version": release.version, "check": check},
                "namespace": self._namespace(),
                "secretGenerator": [{"name": "check", "literals": variables}],
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
        """What kubectl prints; UserError if it fails."""
        command = ["kubectl", *self.context, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{self.name}: kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
