"""The monitoring workflow, executed by act: production does well, then badly, and is retrained once.

Real are the workflows, the service that predicts, its log in PostgreSQL, git, DVC, and MLflow; a script
stands in for gh. The tests run in their order.
"""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import CLEAN, free_port
from test_stores import mlflow_server, postgres
from test_workflows import Ran, Team

pytestmark = pytest.mark.slow
MONITOR = ".github/workflows/monitor.yml"
DISPATCHES = "/actions/workflows/continuous-training.yml/dispatches"
# It lists the titles of the issues that it opened, and how many runs of continuous training go on, and
# keeps the other calls with what came with them; while there is a file `down` it fails.
GH = """#!/bin/sh
test ! -e "$CALLS.down" || exit 1
case "$*" in
*/runs*) if test -e "$CALLS.running"; then echo 1; else echo 0; fi ;;
*GET*) cat "$CALLS.titles" 2> "$CALLS.none" || true ;;
*)
  body=$(cat)
  printf '%s\\n' "$*" "$body" >> "$CALLS"
  case "$*" in */issues) printf '%s' "$body" | jq -r .title >> "$CALLS.titles" ;; esac ;;
esac
"""
ASK = """
import httpx
from flight_delays.experiment import dataset, floors, params, registry, tables, tracking
from flight_delays.delivery.release import checks
p = params.load()
rows = tables.read([dataset.batch(p.data, m) for m in months], p.data)
frame = floors.feature_store(p.data).add(rows)
version = registry.require_version(tracking.connect(), p.register_.name, "production")
kinds = list(registry.load_model(version, p).kinds)
rows = frame[kinds].sample(1000 if len(months) > 1 else 3500, random_state=1)
for start in range(0, len(rows), 500):
    body = checks.request(rows.iloc[start : start + 500])
    headers = {"Content-Type": "application/json"}
    httpx.post(f"{url}/predict", content=body, headers=headers, timeout=60).raise_for_status()
"""
WRONG = """
import pandas as pd
frame = pd.read_parquet(source)
frame.assign(late=frame["late"].sample(frac=1, random_state=0).to_numpy()).to_parquet(target)
"""
FIRST = """
from flight_delays.experiment import tracking
from flight_delays.experiment.cli import main
for step in (["train"], ["evaluate"], ["register", "--run", "last"], ["materialize"]):
    assert main(step) == 0
tracking.connect().set_registered_model_alias("flight-delays", "production", "1")
"""
# The gate refuses a challenger that was trained on the present data.
DECIDED = """
from flight_delays.continuous_training import settings
from flight_delays.continuous_training.decision import history
from flight_delays.experiment import params, tracking
client = tracking.connect()
state = history.state(params.load(), settings.load())
written = {"decision": "refused", "trigger": "degradation", "commit": "none", "data": state.data}
written["challenger"] = {"version": 1, "run_id": "none"}
with tracking.decision("refused") as run_id:
    history.log(client, run_id, written, {}, state)
"""


class Watched(Team):
    """A team whose production serves a first champion."""

    def __init__(self, folder: Path, environment: Path, uri: str, database: str) -> None:
        super().__init__(folder, environment, uri, database, level="2")
        (folder / "bin/gh").write_text(GH)
        self.port = free_port()
        raw = self.clone / "data/raw"
        raw.mkdir(parents=True)
        for month in ("2013-01", "2013-02", "2013-03"):
            shutil.copy(folder / f"months/{month}.parquet", raw)
        about = yaml.safe_load((self.clone / "delivery.yaml").read_text())
        about["environments"] = {"production": {"target": "local", "port": self.port}}
        (self.clone / "delivery.yaml").write_text(yaml.safe_dump(about))
        self.env = {"MLFLOW_TRACKING_URI": uri, "PREDICTION_LOG_URL": database}
        self.env |= {"PREDICTION_JOURNAL": str(folder / "journal"), "OMP_NUM_THREADS": "1"}

    def code(self, text: str, **names: object) -> None:
        """Run some code of the project's, with these names."""
        text = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + text
        command = [str(self.environment / "bin/python"), "-c", text]
        env = CLEAN | self.env | {"PYTHONPATH": str(self.clone / "src")}
        subprocess.run(command, cwd=self.clone, env=env, check=True)

    def learn(self) -> None:
        """The first champion, which serves in production."""
        self.change(params={"model": {"arguments": {"max_iter": 30}}})
        self.code(FIRST)
        self.push()

    def push(self, **settings: dict) -> None:
        """Push the batches of now, and all changes with these settings."""
        self.dvc("add", "-q", "data/raw", cwd=self.clone)
        self.dvc("push", "-q", cwd=self.clone)
        self.git("add", "--all")
        self.change(**settings)

    @contextlib.contextmanager
    def service(self) -> Iterator[None]:
        command = [str(self.environment / "bin/python"), "-m", "flight_delays", "service"]
        command += ["--env", "production", "--port", str(self.port)]
        env = CLEAN | self.env | {"PYTHONPATH": str(self.clone / "src")}
        with (self.folder / "service.log").open("w") as log:
            process = subprocess.Popen(command, cwd=self.clone, env=env, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2)
                    break
                assert process.poll() is None, (self.folder / "service.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def ask(self, *months: str) -> None:
        """Let production predict flights of these months; then the log is written."""
        self.code(ASK, months=months, url=f"http://127.0.0.1:{self.port}")
        self.await_log()

    def await_log(self) -> None:
        """Wait until the journal is in the log."""
        while any(p.stat().st_size for p in (self.folder / "journal").glob("*.jsonl")):
            time.sleep(0.1)

    def monitor(self, event: str = "schedule") -> Ran:
        secret = ("-s", f"PREDICTION_LOG_URL={self.database}")
        return self.act(event, *secret, workflow=MONITOR)

    def report(self) -> dict:
        return json.loads((self.folder / "artifacts/monitor/reports/monitor.json").read_text())

    def told(self) -> list[str]:
        """What gh was called with since the last time."""
        path = self.folder / "gh.log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, environment: Path) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with postgres() as database, mlflow_server(folder, environment, database) as uri:
        team = Watched(folder, environment, uri, database)
        team.change()
        yield team


@pytest.fixture(scope="module")
def production(team: Watched) -> Iterator[None]:
    team.variables["MLFLOW_TRACKING_URI"] = team.uri
    team.dvc("remote", "add", "-q", "-d", "storage", team.folder / "remote", cwd=team.clone)
    team.learn()
    with team.service():
        yield


def test_without_settings_a_scheduled_run_is_skipped_and_another_fails(team):
    for event, code, word in [("schedule", 0, "skipped"), ("workflow_dispatch", 1, "failed")]:
        ran = team.act(event, workflow=MONITOR)
        assert (ran.code, ran.title) == (code, f"# {word}: settings are missing")
        named = [line for line in ran.summary.splitlines() if line.startswith("- ")]
        for name in ("MLFLOW_TRACKING_URI", "PREDICTION_LOG_URL", "DVC remote"):
            assert any(name in line for line in named), name
        assert "make setup" not in ran.log


def test_production_does_well_and_nobody_is_told(team, production):
    team.ask("2013-01", "2013-02", "2013-03")
    ran = team.monitor()
    assert (ran.code, ran.title) == (0, "# production: version 1 is healthy")
    found = team.report()
    assert found["versions"]["1"]["labelled"] > 900
    assert found["alerts"] == []
    assert found["retrain"] is None
    assert found["service"]["answers"]
    assert team.told() == []
    assert "healthy" in (team.folder / "artifacts/monitor/reports/monitor.html").read_text()


def test_a_degradation_starts_continuous_training_once(team):
    """What happens then is no longer what was learnt: April's labels are those of other flights.

    GitHub is away at first: a later run tells it. Nobody is told again while continuous training runs,
    nor once the gate has decided.
    """
    april = team.clone / "data/raw/2013-04.parquet"
    team.python(team.clone, WRONG, source=team.folder / "months/2013-04.parquet", target=april)
    team.ask("2013-04")
    team.push(params={"data": {"through": None}})
    down = team.folder / "gh.log.down"
    down.touch()
    ran = team.monitor()
    assert (ran.code, ran.title) == (1, "# production: version 1 is worse than allowed")
    assert team.report()["retrain"]["name"] == "degradation"
    down.unlink()
    assert team.monitor().code == 0
    told = team.told()
    assert sum(DISPATCHES in line for line in told) == 1
    text = "".join(told)
    assert re.search(r'"because": "degradation: version 1: roc_auc is 0\.[^"]* may be 0\.', text)
    assert text.count('"title":"production: degradation [') == 1
    running = team.folder / "gh.log.running"
    running.touch()
    assert team.monitor().code == 0
    assert team.report()["retrain"]["name"] == "degradation"
    assert team.told() == []
    running.unlink()
    team.code(DECIDED)
    ran = team.monitor()
    assert (ran.code, ran.title) == (0, "# production: version 1 is worse than allowed")
    assert team.report()["retrain"] is None
    assert team.told() == []


def test_continuous_training_is_told_why(team):
    """By its input, which no shell reads: a reason that it does not know is refused by the step."""
    ran = team.act("workflow_dispatch", "--input", "because=$(touch hacked) `touch hacked`: x")
    assert ran.code == 1
    assert '--because takes "degradation: reason"' in ran.log
    assert not list(team.folder.rglob("hacked"))
