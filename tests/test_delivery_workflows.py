"""The workflows of delivery, executed by act: pull requests, releases, a rollback.

The data are an owner's own: one CSV, three classes, no time.

Real are the workflows, git, DVC, MLflow on PostgreSQL, and the services that are deployed; a small
server answers for the database of advisories. The tests run in their order.
"""

import base64
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import TEMPLATE, free_port, run
from ladder import LINE, make_template
from test_stores import mlflow_server, postgres
from test_workflows import Ran, Team

pytestmark = pytest.mark.slow
CI, CD = ".github/workflows/ci.yml", ".github/workflows/cd.yml"
TEMPLATE_WORKFLOW = ".github/workflows/template.yml"
ENVIRONMENTS = ("dev", "staging", "production")
SECRET = "AKIA" + "IOSFODNN7" + "EXAMPLX"  # no real one
SECRETS = {  # of each environment; no other job sees them
    "MLFLOW_TRACKING_USERNAME": "deployer",
    "MLFLOW_TRACKING_PASSWORD": "for/the:test",
}
QUICK = {"PYTEST_ADDOPTS": "tests/test_model.py"}  # all of them run in test_project.py
GH = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in *environments/production*) echo "${{REVIEWERS:-0}}";; esac
"""


class Delivery(Team):
    """A team with environments, and a first champion."""

    def __init__(
        self, folder: Path, environment: Path, uri: str, guarded: str, database: str, osv: str
    ) -> None:
        super().__init__(folder, environment, uri, database, level="2")
        (folder / "bin/gh").write_text(GH.replace("{{", "{").replace("}}", "}"))
        self.ports = {name: free_port() for name in ENVIRONMENTS}
        self.reviewers, self.osv = "0", osv
        self.variables = {"MLFLOW_TRACKING_URI": guarded, "DELIVERY_HOME": str(folder / "home")}
        self.secrets = {name: SECRETS | {"SERVICE_TOKEN": f"for-{name}"} for name in ENVIRONMENTS}
        tables = Path(__file__).with_name("tables.py")
        run(environment / "bin/python", tables, "single", "classes", cwd=self.clone)
        self.dvc("remote", "add", "-q", "-d", "storage", folder / "remote", cwd=self.clone)
        about = yaml.safe_load((self.clone / "delivery.yaml").read_text())
        about["environments"] = {
            name: {"target": "local", "port": port} for name, port in self.ports.items()
        }
        about["checks"] |= {"p99": 5000, "ready": 120, "requests": 50}
        (self.clone / "delivery.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
        settings = self.clone / "params.yaml"
        settings.write_text(settings.read_text().replace("max_iter: 100", "max_iter: 30"))
        self.change()
        self.step("retrain")
        self.dvc("push", "-q", cwd=self.clone)
        self.git("add", "--all")
        self.change()

    def step(self, *words: str) -> None:
        """A step of the clone's package, against the server."""
        code = f"import os; os.environ['MLFLOW_TRACKING_URI'] = {self.uri!r}\n"
        code += f"from flight_delays.experiment.cli import main; assert main({list(words)!r}) == 0"
        self.python(self.clone, code)

    def workflow(
        self,
        path: str,
        event: str,
        *options: str | Path,
        branch: str = "main",
        change: Callable[[str], str] = str,
        **env: str,
    ) -> Ran:
        env = QUICK | {"MYPY_CACHE_DIR": str(self.folder / "mypy")} | env
        for name, value in (env | {"AUDIT": f"-s osv --osv-url {self.osv}"}).items():
            options += ("--env", f"{name}={value}")
        given = {"workflow": path, "branch": branch, "secrets": self.secrets, "change": change}
        return self.act(event, *options, **given, REVIEWERS=self.reviewers)

    def commit(self, file: str, old: str, new: str, branch: str = "main") -> None:
        """A commit of a branch that replaces something in a file."""
        self.git("fetch", "-q", "origin")
        self.git("checkout", "-q", "-B", branch, "origin/main")
        path = self.clone / file
        text = path.read_text()
        assert old in text, (file, old)
        path.write_text(text.replace(old, new, 1))
        self.git("commit", "-q", "--all", "--no-verify", "-m", f"feat: {file}")
        self.git("push", "-q", "-f", "origin", branch)

    def answers(self, name: str) -> dict:
        """What an environment's service says of itself; nothing if it is not there."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[name]}/ready").json()
        except httpx.HTTPError:
            return {}

    def images(self) -> list[str | None]:
        """The digests of dev, staging and production."""
        return [self.answers(name).get("image") for name in ENVIRONMENTS]

    def push(self) -> Ran:
        """What a push to main starts, after a CI that is green; the whole of it runs in the first push."""
        green = "    runs-on: ubuntu-24.04\n    steps: [run: 'true']\n"
        called = "    uses: ./.github/workflows/ci.yml # zizmor: ignore[self-repository]\n"
        return self.workflow(CD, "push", change=lambda text: text.replace(called, green))

    def dispatch(self, **inputs: str) -> Ran:
        given = [word for key, value in inputs.items() for word in ("--input", f"{key}={value}")]
        return self.workflow(CD, "workflow_dispatch", *given)


@contextlib.contextmanager
def with_password(uri: str) -> Iterator[str]:
    """MLflow's server behind one that asks for the name and the password of SECRETS."""
    pair = f"{SECRETS['MLFLOW_TRACKING_USERNAME']}:{SECRETS['MLFLOW_TRACKING_PASSWORD']}"
    expected = f"Basic {base64.b64encode(pair.encode()).decode()}"
    client = httpx.Client(base_url=uri, timeout=120)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = {k: v for k, v in self.headers.items() if k in ("Content-Type", "Accept")}
            if self.headers.get("Authorization") == expected:
                answer = client.request(self.command, self.path, content=body, headers=kept)
                status, content, kind = answer.status_code, answer.content, answer.headers
            else:
                status, content, kind = 401, b"who are you?", {}
            self.send_response(status)
            self.send_header("Content-Type", kind.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def osv() -> Iterator[HTTPServer]:
    """A server in place of OSV's: scikit-learn has an advisory if `vulnerable` is set."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = {}
            if server.vulnerable and asked["package"]["name"] == "scikit-learn":
                found = {"vulns": [{"id": "TEST-1", "affected": [], "summary": "for the test"}]}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.vulnerable = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def team(tmp_path_factory, environment: Path, osv: HTTPServer) -> Iterator[Delivery]:
    folder = tmp_path_factory.mktemp("delivery")
    url = f"http://127.0.0.1:{osv.server_port}/v1/query"
    with (
        postgres() as database,
        mlflow_server(folder, environment, database) as uri,
        with_password(uri) as guarded,
    ):
        team = Delivery(folder, environment, uri, guarded, database, url)
        yield team
        for name in ENVIRONMENTS:
            stop = f"import os; os.environ['DELIVERY_HOME'] = {str(folder / 'home')!r}\n"
            stop += "from flight_delays.experiment.cli import main;"
            stop += f"main(['deploy', '--env', {name!r}, '--stop'])"
            team.python(team.clone, stop)


def test_a_pull_request_learns_what_it_does_to_the_metrics(team):
    """It is green, and the summary compares: fewer trees are worse."""
    base = team.main()
    team.commit("params.yaml", "max_iter: 30", "max_iter: 3", branch="worse")
    event = team.folder / "event.json"
    event.write_text(json.dumps({"pull_request": {"base": {"sha": base}}}))
    ran = team.workflow(CI, "pull_request", "-e", event, branch="worse")
    assert ran.code == 0
    (row,) = [line for line in ran.summary.splitlines() if "**log_loss**" in line]
    before, now, change = (float(cell) for cell in row.split("|")[2:5])
    assert before < now
    assert change == pytest.approx(now - before, abs=2e-4)
    (bill,) = team.folder.glob("artifacts/sbom/reports/sbom.json")
    names = {part["name"] for part in json.loads(bill.read_text())["components"]}
    assert {"scikit-learn", "mlflow-skinny"} <= names
    assert "jupyterlab" not in names


@pytest.mark.parametrize(
    ("job", "file", "old", "new", "step"),
    [
        (
            "lint",
            "src/flight_delays/experiment/train.py",
            "import logging\n",
            "import logging\nimport os\n",
            "lint",
        ),
        (
            "lint",
            "src/flight_delays/delivery/settings.py",
            "return names[place - 1] if place else None",
            "return place",
            "types",
        ),
        (
            "lint",
            "src/flight_delays/experiment/train.py",
            "\nlog =",
            f'\nKEY = "{SECRET}"\n\nlog =',
            "secrets",
        ),
        ("test", "tests/test_model.py", "assert list(", "assert not list(", "test"),
        ("test", "notebooks/01-explore.ipynb", "import pandas", "import no_such_module", "test"),
    ],
    ids=["lint", "type", "secret", "test", "notebook"],
)
def test_ci_is_red(team, job, file, old, new, step):
    team.commit(file, old, new, branch="red")
    options = {"PYTEST_ADDOPTS": "tests/test_notebooks.py"} if "notebook" in file else QUICK
    ran = team.workflow(CI, "pull_request", "-j", job, branch="red", **options)
    assert ran.code == 1
    assert f"Failure - Main make {step}" in ran.log


def test_the_one_check_is_red_if_any_job_is(team, osv):
    osv.vulnerable = True
    ran = team.workflow(CI, "workflow_dispatch")
    osv.vulnerable = False
    assert ran.code == 1
    assert "TEST-1" in ran.log
    assert "Failure - Main make audit" in ran.log
    assert re.search(r"ci/pass.*Job failed", ran.log)


def test_the_first_push_is_green(team):
    """Without any setting CI runs, and nothing is released; whoever asks for a deployment is told why not."""
    variables, team.variables = team.variables, {}
    secrets, team.secrets = team.secrets, {}
    ran = team.workflow(CD, "push")
    assert ran.code == 0
    assert re.search(r"ci/pass.*Job succeeded", ran.log)
    assert "# not released: settings are missing" in ran.summary
    for what in ("the variable MLFLOW_TRACKING_URI", "the variables DEPLOY_RUNNER"):
        assert f"- {what}" in ran.summary
    assert team.images() == [None, None, None]
    ran = team.dispatch(environment="production", digest=f"sha256:{'0' * 64}", version="1")
    assert ran.code == 1
    assert ran.title.startswith("# failed: settings are missing: the variable MLFLOW_TRACKING_URI")
    team.variables, team.secrets = variables, secrets


def test_without_its_secrets_an_environment_is_not_deployed_to(team):
    """The server asks who it is; those of another environment do not help."""
    secrets, team.secrets = team.secrets, {"production": team.secrets["production"]}
    ran = team.dispatch(environment="dev", digest=f"sha256:{'0' * 64}", version="1")
    assert ran.code == 1
    assert "MLFLOW_TRACKING_URI: cannot use the store" in ran.summary
    team.secrets = secrets


def test_a_push_is_built_once_for_dev_and_staging(team):
    """Production waits for a person, who must name what is to be deployed."""
    ran = team.push()
    assert ran.code == 0
    assert re.findall(r"# deployed: (\w+), version 1", ran.summary) == ["dev", "staging"]
    dev, staging, production = team.images()
    assert dev == staging
    assert production is None
    assert team.answers("dev")["code"] == team.main()
    assert team.version("dev")[""] == team.version("staging")[""] == "1"
    for inputs in ({}, {"digest": dev}, {"version": "1"}, {"digest": "latest", "version": "1"}):
        ran = team.dispatch(environment="production", **inputs)
        assert ran.code == 1
        assert "nobody approves production: name digest and version" in ran.title
    assert team.images() == [dev, staging, None]


def test_a_person_brings_it_to_production(team):
    """Then the branch that continuous training runs is that commit."""
    digest = team.images()[1]
    ran = team.dispatch(environment="production", digest=digest, version="1")
    assert (ran.code, ran.title) == (0, "# deployed: production, version 1")
    assert team.images() == [digest] * 3
    for token, status in (("for-dev", 401), ("for-production", 200)):  # that of the environment
        headers = {"Authorization": f"Bearer {token}"}
        where = f"http://127.0.0.1:{team.ports['production']}/predict"
        assert httpx.post(where, json={"rows": [{}]}, headers=headers).status_code == status
    assert team.git("rev-parse", "production", cwd=team.origin) == team.main()


def test_a_release_that_fails_in_staging_never_comes_to_production(team):
    old = team.images()
    good = "        self.scored.inc(len(chosen))"
    bad = f'        scores = scores + ("staging" in __import__("sys").argv)\n{good}'
    routing = "src/flight_delays/delivery/service/routing.py"
    team.commit(routing, good, bad)
    ran = team.push()
    assert ran.code == 1
    assert re.findall(r"# (\w+ ?\w*): (dev|staging|production)", ran.summary) == [
        ("deployed", "dev"),
        ("rolled back", "staging"),
    ]
    assert "online and batch predictions differ" in ran.summary
    dev, staging, production = team.images()
    assert (staging, production) == (old[1], old[2])
    assert dev != old[0]
    team.commit(routing, bad, good)
    ran = team.dispatch(environment="dev", digest=old[0], version="1")
    assert (ran.code, ran.title) == (0, "# deployed: dev, version 1")
    assert team.images() == old


def test_reviewers_must_be_there(team):
    """With `approval: reviewers` an environment that nobody protects stops everything."""
    old = team.images()[2]
    team.commit("delivery.yaml", "approval: dispatch", "approval: reviewers")
    ran = team.push()
    assert ran.code == 1
    assert "the environment has no required reviewers" in ran.title
    assert team.images()[2] == old


@pytest.mark.nightly
def test_reviewers_let_it_pass(team):
    old, team.reviewers = team.images()[2], "1"
    ran = team.push()
    assert ran.code == 0
    assert re.findall(r"# deployed: (\w+)", ran.summary) == list(ENVIRONMENTS)
    new = team.images()
    assert set(new) == {new[0]} != {old}
    assert team.git("rev-parse", "production", cwd=team.origin) == team.main()
    ran = team.dispatch(environment="production", digest=old, version="1")
    assert (ran.code, ran.title) == (0, "# deployed: production, version 1")
    assert team.images() == [new[0], new[1], old]
    assert team.git("rev-parse", "production", cwd=team.origin) != team.main()


def test_a_newer_template_is_proposed(team):
    """Up to date: nothing happens. Newer: a branch with the merge, and a pull request; main stays."""
    ran = team.workflow(TEMPLATE_WORKFLOW, "schedule")
    assert (ran.code, ran.title) == (0, "# nothing newer")
    template = make_template(team.folder / "template", newer=True)
    team.commit(".cookiecutter.yaml", str(TEMPLATE), str(template.folder))
    before = team.main()
    ran = team.workflow(TEMPLATE_WORKFLOW, "workflow_dispatch")
    assert ran.code == 0
    assert team.main() == before
    readme = team.git("show", "template/upgrade:README.md", cwd=team.origin)
    assert LINE in readme
    parents = team.git("rev-list", "--parents", "-1", "template/upgrade", cwd=team.origin).split()
    assert before in parents
    assert team.calls()[-1].startswith("pr create --base main --head template/upgrade")
