"""The engine Spark gives what the steps give in process, on the workers of a Spark of this machine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from << cookiecutter.package_name >>.delivery.spark import (
    predict as delivery_predict,
)
from << cookiecutter.package_name >>.delivery.spark import tasks
from << cookiecutter.package_name >>.experiment import tables, tune
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.column_types import Kinds
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import Data, Tune

START = f"from {tasks.__name__} import session; session()"


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    pytest.importorskip("pyspark", reason="the group spark is not installed")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("SPARK_", "PYSPARK_"))]:
            patch.delenv(name)
        patch.setenv("SPARK_MASTER", "local[2]")
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield
        tasks.session().stop()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, which do not end where a row group ends."""
    monkeypatch.setattr(delivery_predict, "PART", 700)


def predict(path: Path, output: Path, engine: str) -> int:
    words = ["predict", "--input", str(path), "--output", str(output), "--engine", engine]
    return main(words)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_predictions_are_those_in_process(suffix, engine, parts, trained, scored, params, tmp_path):
    given, settings = tmp_path / f"rows{suffix}", params.data
    rows = next(tables.chunks(scored, settings))
    tables.write(rows, given, settings)
    if suffix == ".parquet":
        rows.to_parquet(given, row_group_size=600)
    found = []
    for name in ("local", "spark"):
        assert predict(given, tmp_path / f"{name}/out.parquet", name) == 0
        found.append(pq.read_table(tmp_path / f"{name}/out.parquet"))
    assert len(found[0]) == len(rows)
    assert found[1].equals(found[0])


def test_a_mistake_is_one_sentence_and_leaves_nothing(
    engine, parts, trained, scored, params, model, tmp_path, capsys
):
    """The same sentence, though a worker has met it."""
    given, needed = tmp_path / "rows.parquet", next(iter(model.named_steps["tidy"].kinds))
    rows = next(tables.chunks(scored, params.data))
    rows.drop(columns=needed).to_parquet(given)
    said = []
    for name in ("local", "spark"):
        capsys.readouterr()
        assert predict(given, tmp_path / "out/out.parquet", name) == 1
        said.append(capsys.readouterr().err.strip().splitlines()[-1])
        assert not list((tmp_path / "out").iterdir())
    assert needed in said[0]
    assert said[1] == said[0]


def test_tuning_finds_the_same(engine, trained, params, monkeypatch):
    """The same candidates, the same score on each fold, the same best: in MLflow, a run in a run."""
    small = params.model_copy(update={"tune": Tune(candidates=2, folds=2)})
    monkeypatch.setattr(tune, "load", lambda: small)
    few = {"max_iter": [5, 10]}
    given = {key: few.get(key, values) for key, values in tune.candidates().items()}
    monkeypatch.setattr(tune, "candidates", lambda: given)
    found = []
    for name in ("local", "spark"):
        assert main(["tune", "--engine", name]) == 0
        (run,) = tune.tracking.last_runs("tags.step = 'tune'", 1)
        nested = f"tags.step = 'candidate' and tags.mlflow.parentRunId = '{run.info.run_id}'"
        candidates = [
            (child.info.run_name, child.data.params, child.data.metrics)
            for child in tune.tracking.last_runs(nested, 10)
        ]
        assert len(candidates) == 2
        best = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/best.yaml")
        found.append((best, run.data.metrics, candidates))
    assert found[1] == found[0]


def test_a_task_has_its_rows_and_what_the_feature_views_need(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"entity": [1.0, 2.0, 3.0, 4.0], "other": 0.0}).to_parquet(path, row_group_size=1)
    store = SimpleNamespace(columns=["view"], needs=Kinds(entity="number"))
    store.add = lambda rows: rows.assign(view=rows["entity"] * 10)
    model = SimpleNamespace(predict=lambda rows: rows["view"].to_numpy())
    settings, part = Data(source="", target="y"), range(1, 3)
    kinds = Kinds(other="number", view="number")
    shared = (model, kinds, store, path, settings, "1", [part])
    (answer,) = delivery_predict.scored(shared, 0)
    assert pa.ipc.open_stream(answer).read_all()["prediction"].to_pylist() == [20, 30]


def test_a_file_that_no_worker_sees(params, tmp_path):
    shared = (None, {}, None, tmp_path / "none.csv", params.data, "1", [None])
    with pytest.raises(UserError, match=r"none\.csv: a worker of Spark does not see it"):
        next(delivery_predict.scored(shared, 0))


def test_each_step_is_listed_once(capsys):
    """Those of this floor take the place of the ones below, and have their arguments too."""
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.findall(r"^    (\w+)", capsys.readouterr().out, re.M)
    assert {"predict", "tune"} <= set(listed)
    assert len(set(listed)) == len(listed)
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    options = capsys.readouterr().out.partition("options:")[2]
    assert re.findall(r"--(\w+) ", options) == ["help", "input", "output", "model", "engine"]


def test_without_pyspark(trained, scored, tmp_path, monkeypatch, capsys):
    for name in ("pyspark", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    assert predict(scored, tmp_path / "out.parquet", "spark") == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message == "predict: --engine spark needs pyspark: see Spark in README.md"
    assert not list(tmp_path.iterdir())


def test_without_java(engine, tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SPARK_")}
    command = [sys.executable, "-c", START]
    env = clean | {"JAVA_HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode
    assert "--engine spark needs Java 17" in done.stderr.splitlines()[-1]
