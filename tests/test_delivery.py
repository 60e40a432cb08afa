"""What delivery ships beside code: Kubernetes manifests, the image."""

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import urllib.parse
from pathlib import Path

import pytest
import yaml
from conftest import BIN, IDENTITY, TEMPLATE, free_port, generate, run
from test_stores import postgres

ENVIRONMENTS = ("dev", "staging", "production")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
# As kubectl, but for the cluster: what is applied is kept in a file, rendered by the real one.
KUBECTL = """#!/bin/sh
echo "$*" >> "$STATE/calls"
shift 2 # the context
case "$1" in
  apply) {kubectl} kustomize "$3" > "$STATE/applied" ;;
  get) test ! -e "$STATE/applied" || {python} -c "import json, sys, yaml
print(json.dumps({{'items': list(yaml.safe_load_all(open(sys.argv[1])))}}))" "$STATE/applied" ;;
  rollout) test ! -e "$STATE/stuck" || {{ echo "timed out" >&2; exit 1; }} ;;
  delete) rm -f "$STATE/applied" ;;
esac
"""
ROLL_OUT = """
from flight_delays.delivery import settings
from flight_delays.delivery.release import deployment, targets
target = targets.of("production", settings.load())
print(target.current())
for release in [("sha256:" + "a" * 64, "3"), ("sha256:" + "b" * 64, "4")]:
    target.roll_out(deployment.Release(*release), 60)
    print(tuple(target.current()) == release, target.check)
"""


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


@needs_kubectl
@pytest.mark.slow
def test_kubernetes_gets_digest_and_version(project, environment, tmp_path):
    """What is applied names them, and what is read back is the same; no file is left."""
    about = yaml.safe_load((project / "delivery.yaml").read_text())
    where = {"target": "kubernetes", "url": "http://localhost:1", "context": "there"}
    about |= {"image": "registry.example/flight-delays", "environments": {"production": where}}
    (project / "delivery.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    kubectl = tmp_path / "kubectl"
    real = shutil.which("kubectl")
    kubectl.write_text(KUBECTL.format(kubectl=real, python=environment / "bin/python"))
    kubectl.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "STATE": str(tmp_path)}
    env |= {"PYTHONPATH": str(project / "src")}
    python = environment / "bin/python"
    done = run(python, "-c", ROLL_OUT, cwd=project, **env)
    none, same, first, again, check = done.stdout.split()
    assert (none, same, again, first == check) == ("None", "True", "True", False)
    applied = list(yaml.safe_load_all((tmp_path / "applied").read_text()))
    (secret,) = [document for document in applied if document["kind"] == "Secret"]
    assert secret["metadata"] | {"annotations": {}} == {
        "name": "check",
        "namespace": "flight-delays-production",
        "annotations": {},
    }
    assert base64.b64decode(secret["data"]["CHECK_TOKEN"]).decode() == check
    release = base64.b64decode(secret["data"]["RELEASE_IMAGE"]).decode()  # which the service names
    assert release == f"sha256:{'b' * 64}"
    (pod,) = [d["spec"]["template"] for d in applied if d["kind"] == "Deployment"]
    (read,) = [e for e in pod["spec"]["containers"][0]["envFrom"] if "secretRef" in e][1:]
    assert read["secretRef"]["name"] == "check"
    digest = pod["metadata"]["annotations"]["check"]  # another one: the pods start anew
    assert digest == hashlib.sha256(check.encode()).hexdigest()
    image = f"registry.example/flight-delays@sha256:{'b' * 64}"
    assert pod["spec"]["containers"][0]["image"] == image
    assert pod["metadata"]["annotations"]["model-version"] == "4"
    calls = (tmp_path / "calls").read_text()
    assert "--context there rollout status deployment/service --timeout=60s" in calls
    assert sorted(p.name for p in (project / "deploy").iterdir()) == sorted(["base", *ENVIRONMENTS])
    for image in ("sha256:../x", "latest"):
        other = ROLL_OUT.replace('"sha256:" + "b" * 64', repr(image))
        refused = run(python, "-c", other, cwd=project, check=False, **env)
        assert "is no digest of a release" in refused.stderr
    whole = (tmp_path / "applied").read_text()
    (tmp_path / "applied").write_text(re.sub("@sha256:[0-9a-f]+", ":latest", whole))
    moved = run(python, "-c", ROLL_OUT, cwd=project, check=False, **env)
    assert "what runs has no digest" in moved.stderr
    (tmp_path / "applied").write_text(whole)
    (tmp_path / "stuck").touch()
    assert (
        "kubectl rollout: timed out"
        in run(python, "-c", ROLL_OUT, cwd=project, check=False, **env).stderr
    )


CHECKOV = "checkov==3.3.30"  # in an environment of its own: its pins are not ours
ACCEPTED = {
    "CKV_DOCKER_7": "it does not see that the tag of the base image is in ARG BASE",
    "CKV_GHA_7": "whoever starts a retraining by hand may say why",
    "CKV_K8S_11": "a limit would slow the service while a CPU is idle; a request has its share",
    "CKV_K8S_35": "MLflow and SQLAlchemy read their secrets from the environment",
    "CKV2_K8S_6": "who may reach the service is the cluster's to say",
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
    workflow = yaml.safe_load((project / ".github/workflows/deploy.yml").read_text())
    steps = workflow["jobs"]["deploy"]["steps"]
    (place,) = [k for k, step in enumerate(steps) if "attestation" in step.get("run", "")]
    assert place < [step.get("name") for step in steps].index("Deploy")
    assert "vars.ATTEST == 'true'" in steps[place]["if"]
    gh = tmp_path / "gh"
    gh.write_text(f'#!/bin/sh\necho "$*" > "{tmp_path}/calls"\nexit {int(not attested)}\n')
    gh.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "IMAGE": "r.example/x"}
    env |= {"DIGEST": "sha256:1", "GITHUB_REPOSITORY": "o/x"}
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
    expected += ("version 2 answers", "refused version 3", "rolled back", " 0 failed", "all of it")
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
