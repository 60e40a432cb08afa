"""The workflows of monitoring and continuous training on an owner's own table, executed by act.

Six months in three classes, with a time and an id, and no feature views.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TEMPLATE, run
from test_monitoring_workflow import DISPATCHES, Watched
from test_stores import mlflow_server, postgres

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
# The labels of June are those of other rows.
WRONG = """
import pandas as pd
frame = pd.read_parquet(source)
frame.assign(atraso=frame["atraso"].sample(frac=1, random_state=0).to_numpy()).to_parquet(target)
"""


class Owner(Watched):
    """A team with a table of its own."""

    def __init__(self, folder: Path, environment: Path, uri: str, database: str) -> None:
        super().__init__(folder, environment, uri, database)
        shutil.rmtree(self.clone / "data/raw")
        tables = TEMPLATE / "tests/tables.py"
        run(self.environment / "bin/python", tables, "monthly", "classes", cwd=self.clone)
        self.change()

    def ask(self, *months: str) -> None:
        """Let production predict the rows of these months; then the log is written."""
        script = TEMPLATE / "tests/inside/traffic.py"
        for month in months:
            file = self.clone / f"data/raw/{month}.parquet"
            command = (self.environment / "bin/python", script, "flight_delays", self.port, file)
            path = str(self.clone / "src")
            assert int(run(*command, cwd=self.clone, PYTHONPATH=path).stdout) > 1000
        self.await_log()


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, environment: Path) -> Iterator[Owner]:
    folder = tmp_path_factory.mktemp("owner")
    with postgres() as database, mlflow_server(folder, environment, database) as uri:
        owner = Owner(folder, environment, uri, database)
        owner.variables["MLFLOW_TRACKING_URI"] = owner.uri
        remote = ("remote", "add", "-q", "-d", "storage", folder / "remote")
        owner.dvc(*remote, cwd=owner.clone)
        owner.learn()
        with owner.service():
            yield owner


def test_production_does_well(owner):
    owner.ask("2025-05")
    ran = owner.monitor()
    assert (ran.code, ran.title) == (0, "# production: version 1 is healthy")
    assert owner.report()["versions"]["1"]["labelled"] > 1000
    assert owner.report()["alerts"] == []


def test_a_degradation_is_learnt_or_refused_by_continuous_training(owner):
    june = owner.clone / "data/raw/2025-06.parquet"
    owner.python(owner.clone, WRONG, source=owner.clone / "data/2025-06.parquet", target=june)
    owner.ask("2025-06")
    owner.push(params={"data": {"through": None}})
    assert owner.monitor().title == "# production: version 1 is worse than allowed"
    told = "".join(owner.told())
    assert DISPATCHES in told
    because = re.search(r'"because": "(degradation: version 1: log_loss is [^"]*)"', told)
    secret = ("-s", f"PREDICTION_LOG_URL={owner.database}")
    ran = owner.act("workflow_dispatch", "--input", f"because={because[1]}", *secret)
    assert ran.code == 0
    assert re.match(r"# (promoted|refused): flight-delays version 2", ran.title)
    owner.monitor()
    assert owner.report()["retrain"] is None
