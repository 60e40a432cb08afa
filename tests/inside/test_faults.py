"""Faults of level 1: whatever happens, the champion is whole, and the next retraining completes."""

import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import yaml
from conftest import PACKAGE, module

os.environ["OMP_NUM_THREADS"] = "1"  # children of a fork, on a machine that has other work
ROOT = Path.cwd()
STORE = ("mlflow.db", "mlartifacts", "reports")
STAGES = [
    ("extract", "prepare"),
    pytest.param(("validate", "build_views", "train", "evaluate"), marks=pytest.mark.long),
]


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit() -> None:
    git("add", "--all")
    git("commit", "-q", "--no-verify", "--allow-empty", "-m", "test: a state")


def command(*step: str) -> list[str]:
    return [sys.executable, "-m", PACKAGE, *step]


def retrain(code: int = 0, **env: str) -> str:
    done = subprocess.run(command("retrain"), capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def use(through: str, **arguments) -> None:
    """Let the batches up to a month be used, and commit that."""
    path = ROOT / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["data"]["through"] = through
    settings["model"]["arguments"] |= arguments
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    commit()


def alias(name: str = "champion") -> int | None:
    with sqlite3.connect(f"file:{ROOT / 'mlflow.db'}?mode=ro", uri=True) as store:
        query = "select version from registered_model_aliases where alias = ?"
        row = store.execute(query, (name,)).fetchone()
    return row and int(row[0])


def gate() -> dict:
    return json.loads((ROOT / "reports/gate.json").read_text(encoding="utf-8"))


def forked(function) -> int:
    """The wait status of a child that runs the function: modules are imported already."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
            code = 70
        os._exit(code or 0)
    return os.waitpid(child, 0)[1]


def whole() -> int:
    """The champion loads and has its model card."""
    registry, tracking, params = (
        module("experiment.registry"),
        module("experiment.tracking"),
        module("experiment.params").load(),
    )
    version = registry.find_version(tracking.connect(), params.register_.name, "champion")
    registry.load_model(version, params)
    assert version.description.startswith("# ")
    return 0


@pytest.fixture(scope="module")
def champion(tmp_path_factory) -> Path:
    """Version 1 is of January to March; April waits. Returns a copy of the store."""
    code = "import pandas as pd\n" + f"from {PACKAGE} import example\n"
    code += """
from pathlib import Path
table = example.flights()
Path("data/raw").mkdir(parents=True)
for month, part in table.groupby(table["scheduled_departure"].dt.strftime("%Y-%m")):
    if month < "2013-06":
        part.sample(2000, random_state=0).sort_index().to_parquet(f"data/raw/{month}.parquet")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    path = ROOT / "continuous_training.yaml"
    settings = yaml.safe_load(path.read_text())
    for limit in ("tolerance", "calibration_tolerance", "segment_tolerance"):
        settings["gate"][limit] = 100.0
    settings["gate"] |= {"doubt_rows": False, "latency": 10_000.0}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    use("2013-03", max_iter=20)
    retrain()
    assert alias() == 1
    use("2013-04")
    copy = tmp_path_factory.mktemp("store")
    save(copy)
    return copy


def save(copy: Path) -> None:
    for name in STORE:
        place = ROOT / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)


@pytest.fixture
def restored(champion: Path):
    """The store as it was when April arrived."""
    for name in STORE:
        place = ROOT / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        copy = champion / name
        (shutil.copytree if copy.is_dir() else shutil.copy)(copy, place)


@pytest.mark.parametrize("stages", STAGES)
def test_killed_in_a_stage(stages, restored):
    """kill -9 of all its processes as soon as a stage is done, so in the next one; then it completes."""
    (ROOT / "dvc.lock").unlink()
    shutil.rmtree(ROOT / ".dvc/cache/runs")
    for stage in stages:
        process = subprocess.Popen(
            command("retrain"), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        for line in process.stderr:
            if line.startswith(f"{stage}:"):
                break
        else:
            pytest.fail(f"{stage} did not run")
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert alias() == 1
        assert not os.WEXITSTATUS(forked(whole))
    retrain()
    assert alias() == gate()["challenger"]["version"]
    assert alias("previous") == 1


CLIENT = "mlflow.MlflowClient"
# Where the process is killed: an attribute, the number of its call, before or after it.
POINTS = [
    (f"{CLIENT}.create_model_version", 1, "after"),  # no model card yet
    (f"{CLIENT}.set_registered_model_alias", 3, "before"),  # champion
]
MORE = [
    ("mlflow.sklearn.log_model", 1, "after"),  # the challenger's run is not finished
    ("mlflow.sklearn.log_model", 2, "before"),  # nor is the run of the model fitted on all rows
    (f"{CLIENT}.log_dict", 1, "before"),  # in the decision
    (f"{CLIENT}.set_registered_model_alias", 1, "after"),  # challenger
    (f"{CLIENT}.set_registered_model_alias", 2, "after"),  # previous
    (f"{CLIENT}.set_registered_model_alias", 3, "after"),
]
POINTS += [pytest.param(*point, marks=pytest.mark.long) for point in MORE]


def killed_at(path: str, number: int, when: str) -> int:
    owner, name = path.rsplit(".", 1)
    try:
        place = importlib.import_module(owner)
    except ImportError:
        parent, kind = owner.rsplit(".", 1)
        place = getattr(importlib.import_module(parent), kind)
    real, calls = getattr(place, name), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*args, **kwargs)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(place, name, deadly)
    return module("experiment.cli").main(["retrain"])


@pytest.mark.parametrize(("path", "number", "when"), POINTS)
def test_killed_in_the_gate(path, number, when, restored):
    """The alias is on the old version or on the new one, whole; the next run completes what is left."""
    for name in ("experiment.cli", "continuous_training.retrain", "experiment.artifacts"):
        module(name)
    assert forked(lambda: killed_at(path, number, when)) == signal.SIGKILL
    assert alias() in (1, 2, 3)
    assert forked(whole) == 0
    assert forked(lambda: module("experiment.cli").main(["retrain"])) == 0
    assert forked(whole) == 0
    assert alias() == gate()["challenger"]["version"] != 1
    assert gate()["decision"] == "promoted"
    assert alias("previous") == 1
    before = alias()
    assert forked(lambda: module("experiment.cli").main(["retrain"])) == 0
    assert alias() == before


def test_two_at_once(restored):
    """One promotes; the other waits for it, and has nothing to do."""
    both = [subprocess.Popen(command("retrain"), stderr=subprocess.PIPE, text=True) for _ in "12"]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("is the champion (before: 1)" in text for text in said) == 1
    assert sum("nothing to do" in text for text in said) == 1
    assert sum("waiting until it is done" in text for text in said) == 1
    assert alias("previous") == 1


def test_the_registry_is_away(restored):
    """Before any work."""
    lock = (ROOT / "dvc.lock").read_text()
    said = retrain(1, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI" in said.splitlines()[-1]
    assert (ROOT / "dvc.lock").read_text() == lock
    assert alias() == 1


def test_the_remote_is_away(restored):
    """It matters to whoever reproduces what is not in the cache."""
    (ROOT / ".dvc/cache").rename(ROOT / ".dvc/cache-elsewhere")
    try:
        reproduce = subprocess.run(command("reproduce"), capture_output=True, text=True)
    finally:
        shutil.rmtree(ROOT / ".dvc/cache", ignore_errors=True)
        (ROOT / ".dvc/cache-elsewhere").rename(ROOT / ".dvc/cache")
    assert reproduce.returncode == 1
    assert "dvc pull" in reproduce.stderr.splitlines()[-1]


@pytest.fixture
def may():
    """May arrives; the batches are as they were afterwards."""
    shutil.copytree(ROOT / "data/raw", ROOT / "data/kept")
    use("2013-05")
    yield ROOT / "data/raw/2013-05.parquet"
    shutil.rmtree(ROOT / "data/raw")
    (ROOT / "data/kept").rename(ROOT / "data/raw")
    use("2013-04")


def test_a_corrupt_and_an_empty_batch_are_quarantined(restored, may):
    whole_file = may.read_bytes()
    for content, why in ((whole_file[:-100], "cannot be read"), (b"", "the file is empty")):
        may.write_bytes(content)
        assert why in retrain(3).splitlines()[-1]
        assert not may.exists()
        assert (ROOT / "data/quarantine" / may.name).read_bytes() == content
        assert "quarantined" in (ROOT / "reports/decision.md").read_text()
        assert alias() == 1


def test_a_full_disk(restored):
    """A limit on the size of a file stops a stage as a full disk does; then there is room again."""
    shutil.rmtree(ROOT / "models")
    use("2013-04", max_iter=21)
    limited = f"ulimit -f 200; trap '' XFSZ; exec {' '.join(command('retrain'))}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1
    assert alias() == 1
    retrain()
    assert alias() == gate()["challenger"]["version"] != 1
