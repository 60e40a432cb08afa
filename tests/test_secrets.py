"""Secrets in addresses: those of MLflow's server, of the databases, of the webhook, with everything real.

No process shows one in its arguments, no answer, no file and no output holds one.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import CLEAN, IDENTITY, attach, free_port, generate, run, run_inside
from test_stores import mlflow_server, postgres, small, step

pytestmark = pytest.mark.slow
SECRET = "Zq7secretword"
ALIAS = """
from flight_delays.experiment import tracking
tracking.connect().set_registered_model_alias("flight-delays", "dev", "1")
"""


def test_no_step_shows_a_secret(make_project):
    run_inside(make_project(maturity_level="2"), "test_secrets.py")


def with_secret(url: str) -> str:
    """The address with a password; neither server asks for one."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=f"mlflow:{SECRET}@{parts.hostname}:{parts.port}").geturl()


def arguments() -> str:
    """The arguments of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return "\n".join(found)


@contextlib.contextmanager
def started(project: Path, log: Path, *words: str, **env: str) -> Iterator[subprocess.Popen]:
    """A step of the project's that goes on, with a group of its own."""
    command = [project / ".venv/bin/python", "-m", "flight_delays", *words]
    with log.open("w") as file:
        to = {"stdout": file, "stderr": file, "start_new_session": True}
        process = subprocess.Popen([*map(str, command)], cwd=project, env=CLEAN | env, **to)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(url: str, process: subprocess.Popen) -> str:
    """What an address answers, once it does."""
    until = time.monotonic() + 90
    while True:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url, timeout=5).raise_for_status().text
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < until
        time.sleep(0.3)


def test_nothing_that_runs_shows_a_secret(tmp_path, environment):
    project = small(attach(generate(tmp_path, maturity_level="2"), environment))
    logs, said = tmp_path / "logs", []
    logs.mkdir()
    settings = project / "delivery.yaml"
    settings.write_text(settings.read_text().replace("follow: 5 ", "follow: 0.5 "))
    with postgres() as database:
        log_url = with_secret(database)
        env = {"PREDICTION_LOG_URL": log_url, "FEATURE_STORE_URL": log_url} | IDENTITY
        env |= {"ALERT_WEBHOOK": f"http://127.0.0.1:9/{SECRET}"}
        env |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        with mlflow_server(tmp_path, environment, database) as uri:
            env["MLFLOW_TRACKING_URI"] = with_secret(uri)
            for words in (
                ["train"],
                ["evaluate"],
                ["register", "--run", "last"],
                ["materialize"],
                ["ui"],
            ):
                done = step(project, *words, **env)
                said.append(done.stdout + done.stderr)
            code = [project / ".venv/bin/python", "-c", ALIAS]
            said.append(run(*code, cwd=project, **env).stdout)
            said.append(httpx.get(f"{uri}/api/2.0/mlflow/experiments/search?max_results=9").text)
            runs = {"experiment_ids": ["1", "2"], "max_results": 99}
            said.append(httpx.post(f"{uri}/api/2.0/mlflow/runs/search", json=runs).text)
            port = str(free_port())
            service = started(project, logs / "service", "service", "--port", port, **env)
            running = service.__enter__()
            url = f"http://127.0.0.1:{port}"
            answers(f"{url}/ready", running)
            assert SECRET not in arguments()
        try:  # the registry is away
            until = time.monotonic() + 60
            while json.loads(said[-1] if said[-1].startswith('{"status') else "{}").get(
                "registry"
            ) != ("not followed"):
                assert time.monotonic() < until
                said.append(answers(f"{url}/health", running))
            pages = ("ready", "model", "metrics", "docs", "openapi.json", "nothing")
            said += [httpx.get(f"{url}/{page}").text for page in pages]
            said.append(httpx.post(f"{url}/predict", json={"rows": [{"carrier": "UA"}]}).text)
            said.append(httpx.post(f"{url}/predict", content=b"{").text)
        finally:
            service.__exit__(None, None, None)
        env["MLFLOW_TRACKING_URI"] = log_url  # the same database: MLflow's pages, served here
        port = str(free_port())
        with started(project, logs / "ui", "ui", "--port", port, **env) as ui:
            answers(f"http://127.0.0.1:{port}/health", ui)
            assert "mlflow server" in arguments()
            assert SECRET not in arguments()
            found = httpx.get(
                f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id=1"
            )
            assert found.json()["experiment"]["name"] == "flight-delays"
    assert "the registry cannot be followed" in (logs / "service").read_text()
    assert SECRET not in "\n".join(said)
    for folder in (project, logs, tmp_path / "artifacts"):
        for path in (p for p in folder.rglob("*") if p.is_file() and ".venv" not in p.parts):
            assert SECRET.encode() not in path.read_bytes(), path
