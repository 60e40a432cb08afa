"""What delivery ships beside code: Kubernetes manifests, the image."""

import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from cluster import Cluster, write_kubectl
from conftest import BIN, IDENTITY, TEMPLATE, free_port, generate, run
from test_stores import postgres

ENVIRONMENTS = ("dev", "staging", "production")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
GOOD = "        self.scored.inc(len(chosen))"
WRONG = "        scores = 0 * scores + 0.5"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("level-2"), maturity_level="2")


@needs_kubectl
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_manifests_are_valid_and_careful(project, name, tmp_path):
    rendered = run("kubectl", "kustomize", f"deploy/{name}", cwd=project).stdout
    (tmp_path / "all.yaml").write_text(rendered)
    run(BIN / "kubernetes-validate", "--strict", tmp_path / "all.yaml", cwd=project)
    found = {document["kind"]: document for document in yaml.safe_load_all(rendered)}
    assert {d["metadata"]["namespace"] for d in found.values()} == {f"flight-delays-{name}"}
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert {"requests", "limits"} == container["resources"].keys()
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert not pod["spec"]["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    labels = pod["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    config = container["envFrom"][0]["configMapRef"]["name"]
    assert found["ConfigMap"]["metadata"]["name"] == config
    assert found["ConfigMap"]["data"]["ENVIRONMENT"] == name
    least = found["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert least == (3 if name == "production" else 1)


class OnKubernetes:
    """A project with a champion whose environment dev is a cluster, and what a client and an operator do."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.port, self.stores = project, free_port(), folder / "stores"
        self.stores.mkdir()
        self.url = f"http://127.0.0.1:{self.port}"
        about = yaml.safe_load((project / "delivery.yaml").read_text())
        about["environments"] = {
            "dev": {"target": "kubernetes", "url": self.url, "context": "there"}
        }
        about["image"] = "registry.example/flight-delays"
        about["service"]["follow"] = 0.5
        about["checks"] |= {"p99": 5000, "requests": 40, "ready": 120}
        about["canary"] |= {"steps": [50, 100], "rows": 100, "p99": 5000}
        (project / "delivery.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
        overlay = project / "deploy/dev/kustomization.yaml"
        text = overlay.read_text().replace(
            "http://mlflow.mlflow:5000", f"sqlite:///{project}/mlflow.db"
        )
        overlay.write_text(text)
        self.secrets = {
            "SERVICE_TOKEN": "for-the-test",
            "PREDICTION_LOG_URL": f"sqlite:///{self.stores}/predictions.db",
            "FEATURE_STORE_URL": f"sqlite:///{self.stores}/online.db",
        }
        write_kubectl(folder)
        self.cluster = Cluster(folder, project / "Dockerfile", self.pull)
        self.cluster.listen("flight-delays-dev", self.port)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        self.env = {"PATH": path, "KUBECONFIG": str(folder / "kubeconfig"), **IDENTITY}

    def pull(self, digest: str) -> tuple[Path, Path]:
        """The image of a digest: the release that the step `build` has made of the same files."""
        root = self.project / ".delivery/releases" / digest.removeprefix("sha256:")
        if not digest or not root.is_dir():
            raise KeyError(digest)
        pins = hashlib.sha256((root / "requirements.txt").read_bytes()).hexdigest()[:16]
        return root, self.project / ".delivery/environments" / pins / "bin"

    def step(self, *words: str, check: bool = True) -> str:
        command = (self.project / ".venv/bin/python", "-m", "flight_delays", *words)
        done = run(*command, cwd=self.project, check=check, **self.env, **self.secrets)
        assert check or done.returncode == 1
        return (done.stdout + done.stderr) if words[0] != "build" else done.stdout.strip()

    def kubectl(self, *words: str | Path) -> str:
        where = ("--context", "there", "-n", "flight-delays-dev")
        return run("kubectl", *where, *words, cwd=self.project, **self.env).stdout

    def release(self) -> str:
        """The digest of a commit of what is there."""
        run("git", "add", "--all", cwd=self.project)
        message = ("-q", "--no-verify", "--allow-empty", "-m", "test: a release")
        run("git", "commit", *message, cwd=self.project, **self.env)
        return self.step("build")

    def refuses(self, first: str, second: str) -> None:
        """No digest; a roll-out that stops, which goes back; what runs and has no digest. Nothing is left."""
        for image in ("sha256:../x", "latest"):
            assert "is no digest of a release" in self.step("deploy", "--image", image, check=False)
        limits = self.project / "delivery.yaml"
        text = limits.read_text()
        limits.write_text(text.replace("ready: 120", "ready: 20"))
        self.cluster.stuck = second
        told = self.step("deploy", "--image", second, check=False)
        assert "kubectl rollout: " in told
        assert "timed out" in told
        assert "rolled back to version 1" in told
        assert httpx.get(f"{self.url}/ready").json()["image"] == first
        limits.write_text(text)
        deployed = self.cluster.objects["deployments", "flight-delays-dev", "service"]
        container = deployed["spec"]["template"]["spec"]["containers"][0]
        container["image"], image = "registry.example/flight-delays:latest", container["image"]
        assert "what runs has no digest" in self.step("deploy", "--image", second, check=False)
        container["image"] = image
        assert sorted(p.name for p in (self.project / "deploy").iterdir()) == sorted(
            ["base", *ENVIRONMENTS]
        )

    def ask(self, token: str = "for-the-test") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(headers=headers, timeout=30) as client:  # a new connection
            return client.post(f"{self.url}/predict", json={"rows": [{}, {"carrier": "UA"}]})

    @contextlib.contextmanager
    def asked(self) -> Iterator[list]:
        """What a client is answered meanwhile; a request that fails is an error."""
        stop, answers = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                answers.append(self.ask().raise_for_status().json())

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            try:
                yield answers
            finally:
                stop.set()
            asking.result()


@needs_kubectl
@pytest.mark.slow
def test_kubernetes(make_project, batches, tmp_path):
    """A release is tried in a pod of its own, rolled out, rolled back; a canary; a pod without the registry."""
    project = make_project(maturity_level="2")
    shutil.copytree(batches, project / "data/raw")
    at = OnKubernetes(project, tmp_path)
    try:
        run("make", "train", "evaluate", "register", cwd=project)
        assert "name the digest of an image" in at.step("deploy", check=False)
        first = at.release()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "service"}}
        (tmp_path / "secret.yaml").write_text(yaml.safe_dump(secret | {"stringData": at.secrets}))
        at.kubectl("apply", "-f", tmp_path / "secret.yaml")
        at.step("deploy", "--image", first)
        ready = httpx.get(f"{at.url}/ready").json()
        assert (ready["image"], ready["version"]) == (first, 1)
        assert at.ask(token="").status_code == 401
        right = at.ask().raise_for_status().json()["predictions"]

        routing = project / "src/flight_delays/delivery/service/routing.py"
        text = routing.read_text()
        routing.write_text(text.replace(GOOD, f"{WRONG}\n{GOOD}"))
        bad = at.release()
        with at.asked() as answers:
            told = at.step("deploy", "--image", bad, check=False)
        assert "online and batch predictions differ; rolled back to version 1" in told
        assert len(answers) > 20
        assert all(answer["predictions"] == right for answer in answers)
        assert httpx.get(f"{at.url}/ready").json()["image"] == first
        assert "service-trial" not in at.kubectl("get", "pods", "-o", "name")

        routing.write_text(text)
        limits = project / "delivery.yaml"
        limits.write_text(limits.read_text().replace("rows: 1000", "rows: 999"))
        second = at.release()
        with at.asked() as answers:
            at.step("deploy", "--image", second)
        assert len(answers) > 20
        assert all(answer["predictions"] == right for answer in answers)
        assert httpx.get(f"{at.url}/ready").json()["image"] == second
        assert len(at.kubectl("get", "secrets", "-o", "name").split()) == 2  # one is of the checks
        at.step("deploy", "--image", first)
        assert httpx.get(f"{at.url}/ready").json()["image"] == first
        at.refuses(first, second)

        settings = project / "params.yaml"
        settings.write_text(settings.read_text().replace("max_iter: 100", "max_iter: 90"))
        run("make", "train", "evaluate", "register", cwd=project)
        before = at.cluster.ready_pods("flight-delays-dev")
        with at.asked():
            at.step("canary", "--env", "dev")
        assert httpx.get(f"{at.url}/ready").json()["version"] == 2
        deployed = at.cluster.objects["deployments", "flight-delays-dev", "service"]
        assert deployed["metadata"]["annotations"]["model-version"] == "2"
        assert at.cluster.ready_pods("flight-delays-dev") == before, "no pod starts again for it"
        newer = at.ask().json()["predictions"]

        (pod,) = at.cluster.ready_pods("flight-delays-dev")
        for path in (project / "mlflow.db", project / "mlartifacts"):
            path.rename(at.stores / path.name)
        (project / "mlflow.db").mkdir()  # no database can be made there
        pod.process.kill()
        pod.process.wait()
        until = time.monotonic() + 60
        while not at.cluster.ready_pods("flight-delays-dev") and time.monotonic() < until:
            time.sleep(0.1)
        assert at.ask().json()["predictions"] == newer
        assert httpx.get(f"{at.url}/health").json()["registry"] == "not followed"
        at.step("deploy", "--stop")
        assert at.cluster.ready_pods("flight-delays-dev") == []
    finally:
        at.cluster.close()


CHECKOV = "checkov==3.3.30"  # in an environment of its own: its pins are not ours
ACCEPTED = {
    "CKV_DOCKER_7": "it does not see that the tag of the base image is in ARG BASE",
    "CKV_GHA_7": "whoever starts a retraining by hand may say why",
    "CKV_K8S_11": "a limit would slow the service while a CPU is idle; a request has its share",
    "CKV_K8S_35": "MLflow and SQLAlchemy read their secrets from the environment",
}


@needs_kubectl
@pytest.mark.slow
@pytest.mark.nightly
def test_checkov_accepts_image_manifests_and_workflows(tmp_path):
    """Manifests as they are applied: with a namespace, and the image by its digest."""
    project = generate(tmp_path, maturity_level="2")
    for name in ENVIRONMENTS:
        text = run("kubectl", "kustomize", f"deploy/{name}", cwd=project).stdout
        applied = text.replace("image: service", f"image: registry.example/x@sha256:{'a' * 64}")
        assert applied != text
        (project / f"{name}.yaml").write_text(applied)
    shutil.rmtree(project / "deploy")
    checkov = [BIN / "uv", "tool", "run", "-q", "-p", sys.executable, "--from", CHECKOV, "checkov"]
    options = ["--skip-download", "--compact", "--quiet", "--output", "json", "--directory", "."]
    options += ["--framework", "dockerfile", "kubernetes", "github_actions"]
    done = run(*checkov, *options, cwd=project, check=False)
    found = {report["check_type"]: report["results"] for report in json.loads(done.stdout)}
    assert set(found) == {"dockerfile", "kubernetes", "github_actions"}
    failed = [check for results in found.values() for check in results["failed_checks"]]
    assert {check["check_id"] for check in failed} == set(ACCEPTED)


def test_the_dockerfile_is_clean(project):
    run(BIN / "hadolint", "--no-color", "Dockerfile", cwd=project)
    text = (project / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=[\w.:-]+@sha256:[0-9a-f]{64}$", text, re.M)
    copied = (project / ".dockerignore").read_text().splitlines()
    for line in (project / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                top = source.split("/")[0].replace("[E]", "E")
                assert f"!{top}" in copied, source
                assert (project / source.replace("[E]", "E")).exists(), source


@pytest.mark.parametrize("attested", [True, False])
def test_an_image_that_nothing_attests_is_not_deployed(attested, project, tmp_path):
    """The step's own script, before the one that deploys; a script stands in for gh."""
    action = yaml.safe_load((project / ".github/actions/deploy/action.yml").read_text())
    steps = action["runs"]["steps"]
    (place,) = [k for k, step in enumerate(steps) if "attestation" in step.get("run", "")]
    assert place < [step.get("name") for step in steps].index("Deploy")
    assert "env.ATTEST == 'true'" in steps[place]["if"]
    gh = tmp_path / "gh"
    gh.write_text(f'#!/bin/sh\necho "$*" > "{tmp_path}/calls"\nexit {int(not attested)}\n')
    gh.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "IMAGE": "r.example/x"}
    env |= {"DIGEST": "sha256:1", "GITHUB_REPOSITORY": "o/x"}
    env["GITHUB_WORKFLOW_REF"] = "o/x/.github/workflows/cd.yml@refs/heads/main"
    env["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary")
    done = run("bash", "-ec", steps[place]["run"], cwd=project, check=False, **env)
    assert (done.returncode == 0) is attested
    called = (tmp_path / "calls").read_text()
    assert called.startswith("attestation verify oci://r.example/x@sha256:1 --repo o/x")
    assert "o/x/.github/workflows/cd.yml --source-ref refs/heads/main" in called


@pytest.mark.slow
def test_the_image_is_built_by_a_setuptools_that_is_checked(project, tmp_path):
    """The Dockerfile's own command; with other hashes it fails."""
    text = (project / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "--build-constraints" in line]
    command = (
        line.removeprefix("RUN ").replace("/uv/bin/uv", "uv").replace("/venv", f"{tmp_path}/venv")
    )
    run("uv", "venv", "-q", tmp_path / "venv", cwd=project)
    run("bash", "-ec", command, cwd=project)
    pins = project / "requirements/continuous_training.txt"
    kept = pins.read_text()
    pins.write_text(
        re.sub(
            r"(setuptools==.*\\\n +--hash=sha256:)....(.*\\\n +--hash=sha256:)....",
            r"\g<1>0000\g<2>0000",
            kept,
        )
    )
    assert pins.read_text() != kept
    done = run("bash", "-ec", command + " --reinstall", cwd=project, check=False)
    pins.write_text(kept)
    assert done.returncode
    assert "Hash mismatch" in done.stderr


@pytest.mark.slow
def test_the_sbom_is_of_the_image(project, environment):
    command = [environment / "bin/cyclonedx-py", "requirements", "requirements/service.txt"]
    bill = json.loads(run(*command, cwd=project).stdout)
    pins = (project / "requirements/service.txt").read_text()
    for part in bill["components"]:
        assert f"{part['name']}=={part['version']}" in pins


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_whole_loop_is_rehearsed(task, make_project, batches):
    """From a commit to a canary, and a bad model is stopped twice; the project stays as it was."""
    project = make_project(maturity_level="2", task=task)
    shutil.copytree(batches, project / "data/raw")
    said = run("make", "rehearse", cwd=project).stderr
    expected = ("promoted version 1", "production", "degradation: version 1", "promoted version 2")
    expected += (
        "version 2 answers",
        "refused version 3",
        "rolled back",
        "in all, 0 failed",
        "all of it",
    )
    places = [said.find(word) for word in expected]
    assert -1 not in places and places == sorted(places), said
    assert (project / "reports/rehearsal/monitor.html").exists()
    assert not run("git", "status", "--porcelain", cwd=project).stdout
    assert not (project / "mlflow.db").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_everything_on_one_host(make_project, batches, environment, tmp_path):
    """The commands of docs/one-host.md, one after the other."""
    project = make_project(maturity_level="2")
    shutil.copytree(batches, project / "data/raw")
    about = yaml.safe_load((project / "delivery.yaml").read_text())
    for where in about["environments"].values():
        where["port"] = free_port()
    (project / "delivery.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    git = {"cwd": project, **IDENTITY}
    run("git", "commit", "-q", "--all", "--no-verify", "-m", "chore: ports", **git)
    page = (TEMPLATE / "docs/one-host.md").read_text()
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S))
    (tmp_path / "store").mkdir()
    with postgres() as database:
        parts = urllib.parse.urlsplit(database)
        env = {"PGHOST": "127.0.0.1", "PGPORT": str(parts.port), "PGUSER": "mlflow"}
        env |= {"LADDER_PASSWORD": "for-the-test", "LADDER_STORE": str(tmp_path / "store")}
        env |= {"LADDER_MLFLOW": str(free_port())} | IDENTITY
        env["LADDER_SERVICE"] = str(about["environments"]["production"]["port"])
        try:
            done = run("bash", "-euo", "pipefail", "-c", script, cwd=project, **env)
            served = json.loads(done.stdout.splitlines()[-1])
            assert (served["version"], served["model"]) == (1, "flight-delays")
            assert any((tmp_path / "store").rglob("model.skops"))
        finally:
            for name in ENVIRONMENTS:
                run("make", "deploy", f"ENV={name}", "STOP=1", cwd=project, check=False)
            os.kill(int((project / ".delivery/mlflow.pid").read_text()), signal.SIGTERM)


def test_the_service_knows_the_derive_that_the_template_ships():
    """Else every new project is scored with a DataFrame, several times slower."""
    package = TEMPLATE / "<<cookiecutter.project_slug>>/src/<<cookiecutter.package_name>>"
    text = (package / "features.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    (derive,) = [node for node in functions if node.name == "derive"]
    source = "".join(text.splitlines(keepends=True)[derive.lineno - 1 : derive.end_lineno])
    fast = (package / "delivery/service/fast.py").read_text(encoding="utf-8")
    assert f'"{hashlib.sha256(source.encode()).hexdigest()}"' in fast
