"""MLflow's store: a folder that moves, and a real server on PostgreSQL without a change of code."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CLEAN, free_port, run

pytestmark = pytest.mark.slow
LOOP = [("train",), ("evaluate",), ("register", "--run", "last")]


def step(project: Path, *arguments: str, check: bool = True, **env: str):
    python = project / ".venv/bin/python"
    return run(python, "-m", "flight_delays", *arguments, cwd=project, check=check, **env)


def small(project: Path) -> Path:
    """The flights of four months, a few thousand rows each, made by the project itself."""
    code = """
from pathlib import Path
from flight_delays import example
table = example.flights()
Path("data/raw").mkdir(parents=True)
for month, part in table.groupby(table["scheduled_departure"].dt.strftime("%Y-%m")):
    if month < "2013-05":
        part.sample(1500, random_state=0).sort_index().to_parquet(f"data/raw/{month}.parquet")
"""
    run(project / ".venv/bin/python", "-c", code, cwd=project)
    return project


def test_the_folder_can_move(make_project, tmp_path, environment):
    """Runs, artifacts and models load at the new place; the old one is gone."""
    project = small(make_project())
    for arguments in LOOP:
        step(project, *arguments)
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(project, moved)
    run("uv", "pip", "install", "-q", "-p", ".venv", "--no-deps", "-e", ".", cwd=moved)
    scored = ("--input", "data/raw/2013-04.parquet", "--output", "out.parquet")
    step(moved, "predict", *scored)
    step(moved, "evaluate", "--run", "last", "--batch", "2013-04")
    code = """
import mlflow
from flight_delays.experiment import tracking
client = tracking.connect()
run = tracking.find_run("last")
print(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/environment.txt")[:8])
"""
    done = run(moved / ".venv/bin/python", "-c", code, cwd=moved / "notebooks")
    assert done.stdout.startswith("# Python")
    assert not list((moved / "notebooks").glob("mlflow.db*"))
    with contextlib.closing(sqlite3.connect(moved / "mlflow.db")) as database:
        for place in ("runs.artifact_uri", "logged_models.artifact_location"):
            table, column = place.split(".")
            for (uri,) in database.execute(f"SELECT {column} FROM {table}"):
                assert uri.startswith("project:/mlartifacts/"), place


@contextlib.contextmanager
def postgres(kept: Path | None = None, port: int = 0) -> Iterator[str]:
    """A PostgreSQL of its own on a port of the loopback, ended with the block.

    Its data are in the folder `kept`, for whoever starts it again, or else removed.
    """
    (programs,) = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:] or [None]
    if programs is None:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    account = pwd.getpwnam(user)
    # Not below pytest's folder: the next pytest that starts would close that to another account.
    data, port = kept or Path(tempfile.mkdtemp(prefix="postgres-")), port or free_port()
    os.chown(data, account.pw_uid, account.pw_gid)
    become = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    initdb = [f"{programs}/initdb", "-D", data, "-U", "mlflow", "--auth=trust", "-E", "UTF8"]
    if not (data / "PG_VERSION").exists():
        subprocess.run([*map(str, initdb)], check=True, **quiet, **become)
    options = ["-p", str(port), "-k", str(data), "-c", "listen_addresses=127.0.0.1"]
    options += ["-c", "fsync=off"]
    server = subprocess.Popen(
        [f"{programs}/postgres", "-D", str(data), *options], **quiet, **become
    )
    try:
        until = time.monotonic() + 30
        ready = [f"{programs}/pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, **quiet, check=False).returncode:
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.2)
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        if kept is None:
            shutil.rmtree(data)


@contextlib.contextmanager
def mlflow_server(folder: Path, environment: Path, database: str, port: int = 0) -> Iterator[str]:
    """A real `mlflow server` that proxies its artifacts, ended with the block; its pid is in a file."""
    if not (folder / "server").exists():
        run("cp", "-al", environment, folder / "server", cwd=folder)
    port = port or free_port()
    command = [folder / "server/bin/mlflow", "server", "--backend-store-uri", database]
    command += ["--artifacts-destination", folder / "artifacts", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = CLEAN | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env["PATH"] = f"{folder}/server/bin{os.pathsep}{env['PATH']}"
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*map(str, command)],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "server.pid").write_text(str(server.pid))
    try:
        until = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                if (
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status
                    == 200
                ):
                    break
            assert time.monotonic() < until, (folder / "server.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):  # a test killed it
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_a_server_on_postgresql(make_project, tmp_path, environment):
    """MLFLOW_TRACKING_URI alone: the same loop, the same metrics, nothing in the local store."""
    project = small(make_project())
    with postgres() as database, mlflow_server(tmp_path, environment, database) as uri:
        server = {"MLFLOW_TRACKING_URI": uri}
        for arguments in LOOP * 2:
            step(project, *arguments, **server)
        scored = ("--input", "data/raw/2013-04.parquet", "--output", "out.parquet")
        step(project, "predict", *scored, **server)
        assert not (project / "mlflow.db").exists()
        assert not (project / "mlartifacts").exists()
        card = (project / "reports/model-card-v2.md").read_text()

        stored = next((tmp_path / "artifacts").rglob("models/*/artifacts/model.skops"))
        for path in (tmp_path / "artifacts").rglob("model.skops"):
            path.write_bytes(stored.read_bytes() + b"x")
        refused = step(project, "predict", *scored, check=False, **server)
        assert refused.returncode == 1
        assert "is refused" in refused.stderr
    step(project, "train")
    local = step(project, "evaluate").stderr
    whole = next(line for line in card.splitlines() if line.startswith("| roc_auc"))
    value = float(whole.split("|")[2])
    line = next(line for line in local.splitlines() if line.startswith("all"))
    assert abs(float(line.split()[2]) - value) < 5e-4
