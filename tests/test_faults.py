"""Faults of level 2: what goes on when something is taken away. docs/faults.md is the table of it.

Real are PostgreSQL, MLflow's server on it, the prediction log and the feature store in it, the service that
is deployed, and the requests that are posted meanwhile and counted. The tests run in their order.
"""

import contextlib
import glob
import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import BIN, CLEAN, IDENTITY, attach, free_port, generate, run
from test_stores import mlflow_server, postgres

pytestmark = pytest.mark.slow
ROW = {"carrier": "UA", "origin": "EWR", "dest": "'; DROP TABLE predictions; --\0", "distance": 719}
ROW |= {"scheduled_departure": "2013-03-20T18:30:00"}
SETUP = """
import glob
from pathlib import Path
import mlflow
import pandas as pd
from flight_delays.experiment.cli import main

Path("data/raw").mkdir(parents=True)
for path in sorted(glob.glob(f"{batches}/2013-0[1-3].parquet")):
    frame = pd.read_parquet(path).sample(1500, random_state=0).sort_index()
    frame.to_parquet(f"data/raw/{Path(path).name}", index=False)
for words in 2 * (["train"], ["evaluate"], ["register", "--run", "last"]):
    assert main(words) == 0, words
assert main(["materialize"]) == 0
mlflow.MlflowClient().set_registered_model_alias("flight-delays", "champion", "1")
"""
# A deployment that is killed when the new release is in place of the old one, and that still runs.
KILLED = """
import os, signal
from flight_delays.experiment.cli import main

real = os.replace

def deadly(source, target):
    real(source, target)
    if str(target).endswith("dev.json"):
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = deadly
main(["deploy"])
"""


class Server:
    """A server that can go away, and come back at its address."""

    def __init__(self, make: Callable[..., contextlib.AbstractContextManager], pid: Path) -> None:
        self.make, self.file, self.port = make, pid, free_port()
        self.start()

    def start(self) -> None:
        self.context = self.make(port=self.port)
        self.url = self.context.__enter__()
        self.pid = int(self.file.read_text().split()[0])

    def stop(self) -> None:
        self.context.__exit__(None, None, None)


class Site:
    """A project that is deployed to dev, and the servers around it."""

    def __init__(self, folder: Path, environment: Path, batches: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.data = Path(tempfile.mkdtemp(prefix="postgres-"))
        pid = self.data / "postmaster.pid"
        self.database = Server(lambda port: postgres(self.data, port), pid)
        for name in ("features", "log"):
            self.sql(f"CREATE DATABASE {name}")
        self.mlflow = Server(
            lambda port: mlflow_server(folder, environment, self.database.url, port),
            folder / "server.pid",
        )
        self.project = attach(generate(folder, maturity_level="2"), environment)
        self.ports = {name: free_port() for name in ("dev", "staging")}
        path = self.project / "delivery.yaml"
        about = yaml.safe_load(path.read_text())
        about["environments"] = {k: {"target": "local", "port": v} for k, v in self.ports.items()}
        about["checks"] |= {"p99": 5000, "ready": 120, "requests": 20}
        about["canary"] |= {"steps": [50], "rows": 10**6}
        about["service"]["follow"] = 0.5
        path.write_text(yaml.safe_dump(about))
        path = self.project / "params.yaml"
        path.write_text(path.read_text().replace("max_iter: 100", "max_iter: 20"))
        git = ("git", "commit", "-q", "--all", "--no-verify", "-m", "test: small")
        run(*git, cwd=self.project, **IDENTITY)
        self.python(f"batches = {str(batches)!r}\n{SETUP}")
        self.environment(environment)

    def environment(self, environment: Path) -> None:
        """Let there be a Python for the release: to make one takes long, and is tested elsewhere."""
        pins = (self.project / "requirements/service.txt").read_bytes()
        place = self.home / "environments" / hashlib.sha256(pins).hexdigest()[:16]
        place.parent.mkdir(parents=True)
        run("cp", "-al", environment, place, cwd=self.folder)

    @property
    def env(self) -> dict[str, str]:
        names = {"MLFLOW_TRACKING_URI": self.mlflow.url, "DELIVERY_HOME": str(self.home)}
        names |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        names |= {"PREDICTION_LOG_URL": self.database.url.replace("/postgres", "/log")}
        return names | {"FEATURE_STORE_URL": self.database.url.replace("/postgres", "/features")}

    def python(self, code: str) -> None:
        run(self.project / ".venv/bin/python", "-c", code, cwd=self.project, **self.env)

    def start(self, *words: str, code: str = "") -> subprocess.Popen:
        """A step, or some code, that runs beside; it can be killed."""
        command = [self.project / ".venv/bin/python", *(("-c", code) if code else ())]
        command += ["-m", "flight_delays", *words] if words else []
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.project,
            env=CLEAN | self.env,
            stderr=subprocess.PIPE,
            text=True,
        )

    def step(self, *words: str, code: int = 0) -> str:
        """What a step says; a mistake is one sentence."""
        process = self.start(*words)
        _, said = process.communicate()
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said

    def sql(self, command: str, database: str = "postgres", check: bool = True) -> str:
        (psql,) = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1:]
        url = self.database.url.replace("/postgres", f"/{database}")
        return run(psql, url, "-Atqc", command, cwd=self.folder, check=check).stdout

    def logged(self) -> set[str]:
        """The requests that are in the prediction log, if it is there."""
        return set(self.sql("SELECT request FROM predictions", "log", check=False).split())

    def registry(self, what: str, **fields: str) -> None:
        """Change the registry by MLflow's own interface, as somebody else would."""
        asked = json.dumps({"name": "flight-delays"} | fields)
        path = f"/api/2.0/mlflow/registered-models/{what}"
        status, said = request(self.mlflow.port, "POST", path, asked)
        assert status == 200, said

    def alias(self, version: str) -> None:
        self.registry("alias", alias="dev", version=version)

    def tag(self, key: str) -> str:
        """What a tag of the model holds."""
        query = f"SELECT value FROM registered_model_tags WHERE key = '{key}'"
        return self.sql(query).strip()

    def get(self, path: str, env: str = "dev") -> dict:
        """What dev answers; nothing if nothing is there."""
        try:
            status, body = request(self.ports[env], "GET", path)
        except OSError:
            return {}
        return json.loads(body) if status == 200 else {}

    def metric(self, name: str, port: int = 0) -> float:
        _, text = request(port or self.ports["dev"], "GET", "/metrics")
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))

    def state(self, name: str = "dev") -> dict:
        return json.loads((self.home / f"{name}.json").read_text())

    def alone(self) -> bool:
        """Whether nothing but what is deployed answers: connections go to any that listens."""
        answers = [self.get("/ready") for _ in range(30)]
        return {answer.get("parent") for answer in answers} == {self.state()["pid"]}


def request(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.05)


class Traffic:
    """Requests of one row, one after the other, for as long as the block: answers and failures."""

    def __init__(self, port: int) -> None:
        self.port, self.stop = port, threading.Event()
        self.answers: dict[str, dict] = {}
        self.failed: list[object] = []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.wait(0.01):
            try:
                status, body = request(self.port, "POST", "/predict", json.dumps({"rows": [ROW]}))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(error)
                continue
            if status == 200:
                answer = json.loads(body)
                self.answers[answer["request"]] = answer
            else:
                self.failed.append((status, body))

    def more(self, count: int = 20) -> None:
        """Wait for some answers more."""
        wanted = len(self.answers) + count
        wait(lambda: len(self.answers) >= wanted or len(self.failed) > 100)

    def versions(self) -> set[int]:
        return {version for answer in list(self.answers.values()) for version in answer["versions"]}

    def __enter__(self) -> "Traffic":
        self.thread.start()
        self.more(5)
        assert self.answers, self.failed[:3]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory, environment: Path, batches: Path) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), environment, batches)
    site.step("deploy")
    yield site
    for name in [name for name in site.ports if (site.home / f"{name}.json").exists()]:
        site.step("deploy", "--env", name, "--stop")
    site.mlflow.stop()
    site.database.stop()
    shutil.rmtree(site.data)


@pytest.fixture
def traffic(site: Site) -> Iterator[Traffic]:
    """Requests during the whole test; in the end every answer is in the prediction log."""
    with Traffic(site.ports["dev"]) as traffic:
        yield traffic
        traffic.more()
    wait(lambda: traffic.answers.keys() <= site.logged())


@pytest.fixture
def unfailing(traffic: Traffic) -> Iterator[Traffic]:
    """Of these requests none may fail."""
    yield traffic
    assert not traffic.failed, traffic.failed[:3]


def test_hostile_text_comes_to_the_log_as_it_was(site, unfailing):
    """On PostgreSQL, which takes no NUL in a text."""
    wait(lambda: site.logged() & unfailing.answers.keys())
    found = site.sql("SELECT features FROM predictions LIMIT 1", "log")
    assert {key: json.loads(found)[key] for key in ROW} == ROW


def test_mlflow_stopped_killed_and_back(site, unfailing):
    """The service answers; deploy and retrain say so and change nothing; then it follows again."""
    before = site.get("/ready")
    os.killpg(site.mlflow.pid, signal.SIGSTOP)
    assert "MLFLOW_TRACKING_URI" in site.step("deploy", code=1)
    os.killpg(site.mlflow.pid, signal.SIGKILL)
    for words in (["retrain"], ["canary", "--env", "dev", "--version", "2"]):
        assert "MLFLOW_TRACKING_URI" in site.step(*words, code=1).splitlines()[-1]
    unfailing.more()
    assert site.get("/ready") == before
    site.mlflow.stop()
    site.mlflow.start()
    site.alias("2")
    wait(lambda: site.get("/ready")["version"] == 2)
    site.alias("1")
    wait(lambda: site.get("/ready")["version"] == 1)


def test_the_databases_are_killed_and_back(site, unfailing):
    """Of the prediction log, the feature store and MLflow at once: nothing is lost, answers are the same."""
    wait(lambda: site.logged() & unfailing.answers.keys())
    os.kill(site.database.pid, signal.SIGQUIT)
    site.database.stop()
    wait(lambda: site.metric("feature_store_missed") > 1)
    unfailing.more(100)
    assert site.metric("prediction_log_size ") > 0
    assert site.metric("prediction_log_dropped") == 0
    asked = set(unfailing.answers)
    site.database.start()
    wait(lambda: asked <= site.logged())
    assert len({str(answer["predictions"]) for answer in unfailing.answers.values()}) == 1


def test_the_artifact_store_away_and_back(site, unfailing):
    """A version whose files cannot be read waits, and serves as soon as they can."""
    place, elsewhere = site.folder / "artifacts", site.folder / "elsewhere"
    place.rename(elsewhere)
    try:
        site.alias("2")
        wait(lambda: "2" in site.get("/health")["refused"])
        assert site.get("/ready")["version"] == 1
        site.step("deploy", "--version", "2", code=1)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        elsewhere.rename(place)
    wait(lambda: site.get("/ready")["version"] == 2)
    assert site.get("/health")["refused"] == []
    site.alias("1")
    wait(lambda: site.get("/ready")["version"] == 1)


def test_a_model_that_was_tampered_with(site, unfailing):
    """Neither a service that follows nor a deployment takes it."""
    site.alias("1")
    query = "SELECT source FROM model_versions WHERE version = 2"
    model = site.sql(query).strip().rpartition("/")[2]
    (path,) = (site.folder / "artifacts").rglob(f"{model}/artifacts/model.skops")
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    try:
        wait(lambda: site.get("/ready")["version"] == 1)
        site.alias("2")
        wait(lambda: "2" in site.get("/health")["refused"])
        assert "not those that training logged" in (site.home / "dev.log").read_text()
        assert "is refused" in site.step("deploy", "--version", "2", code=1)
        assert site.get("/ready")["version"] == 1
    finally:
        path.write_bytes(whole)
        site.alias("1")


def test_nonsense_in_the_registry(site, unfailing):
    """A canary tag that is none changes nothing; `canary --stop` takes it away."""
    site.registry("set-tag", key="canary_dev", value="half:of it")
    wait(lambda: site.get("/health")["registry"] == "not followed")
    assert "must be VERSION:PERCENT" in (site.home / "dev.log").read_text()
    unfailing.more()
    assert (site.get("/ready")["version"], site.get("/ready")["canary"]) == (1, None)
    site.step("canary", "--env", "dev", "--stop")
    assert site.tag("canary_dev") == ""
    wait(lambda: site.get("/health")["registry"] is None)


def test_a_canary_killed_in_the_middle(site, unfailing):
    """Its share stays until its time is over, it is stopped, or the next canary or deployment comes."""
    walking = site.start("canary", "--env", "dev", "--version", "2")
    wait(lambda: site.get("/ready")["share"] == 50)
    walking.kill()
    walking.communicate()
    unfailing.more()
    assert site.tag("canary_dev") == "2:50"
    site.step("canary", "--env", "dev", "--stop")
    assert site.get("/ready")["canary"] is None
    assert unfailing.versions() <= {1, 2}


def test_a_service_that_is_killed(site, traffic):
    """It is started again; what it had answered is in the log."""
    for _ in range(2):
        traffic.more()
        before = site.get("/ready")
        (service,) = children(before["parent"])
        os.kill(service, signal.SIGKILL)
        wait(lambda service=service: service not in children(site.state()["pid"]))
        wait(lambda: site.get("/ready"))
        assert site.get("/ready") == before


def test_a_supervisor_that_is_killed(site, traffic):
    """Its service ends by itself, in order; the next deployment works."""
    (service,) = children(site.state()["pid"])
    os.kill(site.state()["pid"], signal.SIGKILL)
    wait(lambda: not Path(f"/proc/{service}").exists())
    assert site.get("/ready") == {}
    site.step("deploy")
    assert site.alone()


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@pytest.mark.parametrize(
    "moment", [pytest.param("starting", marks=pytest.mark.nightly), "replacing"]
)
def test_a_deployment_killed_in_the_middle(moment, site, unfailing):
    """What answered answers on; the next deployment completes, and ends what the first one left."""
    before, candidate = site.state(), site.home / "dev.candidate.json"
    if moment == "starting":
        deploying = site.start("deploy")
        wait(lambda: candidate.exists() and candidate.stat().st_size)
        deploying.kill()
    else:
        deploying = site.start(code=KILLED)
    _, said = deploying.communicate()
    assert deploying.returncode == -signal.SIGKILL, said
    assert (site.state() == before) == (moment == "starting")
    unfailing.more()
    site.step("deploy")
    assert site.state()["pid"] != before["pid"]
    assert site.alone()


def test_deployments_at_once(site, unfailing):
    """One waits for another one of its environment; those of two share what they make."""
    shutil.rmtree(site.home / "environments")
    shutil.rmtree(site.home / "releases")
    image = site.state()["image"]
    both = [site.start("deploy") for _ in "12"]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert site.alone()
    shutil.rmtree(site.home / "environments")
    words = ("--image", image, "--version", "1")
    both = [site.start("deploy", "--env", name, *words) for name in ("dev", "staging")]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert site.get("/ready", "staging")["image"] == site.get("/ready")["image"] == image


@contextlib.contextmanager
def service(site: Site, folder: Path, **env: str) -> Iterator[tuple[int, int]]:
    """The step `service` by itself, with a journal of its own: its port and its process."""
    port, variables = free_port(), CLEAN | site.env | {"PREDICTION_JOURNAL": str(folder)} | env
    command = [str(site.project / ".venv/bin/python"), "-m", "flight_delays"]
    command += ["service", "--env", "dev", "--port", str(port)]
    with (site.folder / "service.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=site.project, env=variables, stderr=log)
    try:

        def ready() -> bool:
            assert process.poll() is None, (site.folder / "service.log").read_text()
            with contextlib.suppress(OSError):
                return request(port, "GET", "/ready")[0] == 200
            return False

        wait(ready)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def test_a_full_disk_for_the_journal(site, tmp_path):
    """Answers go on; what had no room is counted, and the log goes on when there is room."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    away = {"PREDICTION_LOG_URL": "postgresql://nobody@127.0.0.1:1/away"}
    with service(site, tmp_path / "journal", **away) as (port, pid), Traffic(port) as traffic:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        wait(lambda: site.metric("prediction_log_dropped", port) > 5)
        traffic.more(50)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        traffic.more(50)
    assert not traffic.failed, traffic.failed[:3]
    with service(site, tmp_path / "journal") as (port, _):
        wait(lambda: site.metric("prediction_log_size ", port) == 0)
    known = site.logged()
    kept = [request in known for request in traffic.answers]
    assert 5 < kept.count(False) < len(kept) - 50
    assert all(kept[-20:])


@pytest.mark.parametrize("token", ["", "for-the-test"])
def test_nonsense_from_clients(token, site, tmp_path):
    """What schemathesis makes of the service's own description of itself."""
    with service(site, tmp_path / "journal", SERVICE_TOKEN=token) as (port, _):
        url = f"http://127.0.0.1:{port}/openapi.json"
        command = [BIN / "st", "run", url, "--max-examples", "100", "--seed", "1"]
        run(*command, "-H", f"Authorization: Bearer {token}", cwd=tmp_path)
        assert request(port, "GET", "/ready")[0] == 200
        assert site.metric("prediction_log_rejected", port) == 0
        if token:
            assert request(port, "POST", "/predict", '{"rows": [{}]}')[0] == 401
