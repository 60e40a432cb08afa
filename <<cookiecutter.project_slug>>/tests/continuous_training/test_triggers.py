"""The triggers: each fires for its reason, says it, and not twice for the same data and recipe."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from pandas.api.types import is_numeric_dtype

from << cookiecutter.package_name >>.continuous_training import settings
from << cookiecutter.package_name >>.continuous_training.decision import (
    history,
    triggers,
)
from << cookiecutter.package_name >>.experiment import dataset, tables, tracking
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.params import load
from << cookiecutter.package_name >>.experiment.registry import find_version

NAMES = ["demand", "schedule", "new_data", "degradation", "drift"]


pytestmark = pytest.mark.usefixtures("first_retraining")


@pytest.fixture(autouse=True)
def batches(pipeline: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of the batches, put back as it was afterwards."""
    shutil.copytree(pipeline / "data/raw", tmp_path / "raw")
    yield pipeline / "data/raw"
    shutil.rmtree(pipeline / "data/raw")
    shutil.copytree(tmp_path / "raw", pipeline / "data/raw")


@pytest.fixture
def ask(pipeline: Path) -> Callable[..., dict[str, triggers.Answer]]:
    """The answers by name; arguments change settings of `triggers`."""

    def asked(
        demand: bool = False, because: str | None = None, **rules
    ) -> dict[str, triggers.Answer]:
        params, limits = load(pipeline / "params.yaml"), settings.load()
        limits = limits.model_copy(update={"triggers": limits.triggers.model_copy(update=rules)})
        now = find_version(tracking.connect(), params.register_.name, "champion")
        state = history.state(params, limits)
        told = triggers.from_monitoring(because)
        return {a.name: a for a in triggers.ask(demand, now, state, params, limits, told)}

    return asked


def fired(answers: dict[str, triggers.Answer]) -> set[str]:
    return {name for name, answer in answers.items() if answer.fired}


def copy(pipeline: Path, suffix: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """The newest batch once more under a later name, changed."""
    params = load(pipeline / "params.yaml").data
    newest = dataset.batches(params)[-1]
    frame, path = (
        change(next(tables.chunks(newest, params))),
        newest.with_stem(newest.stem + suffix),
    )
    tables.write(frame, path, params)
    return path


def test_what_is_decided_fires_nothing(pipeline, ask):
    answers = ask()
    assert list(answers) == NAMES
    assert fired(answers) == set()
    assert main(["retrain"]) == 0
    found = json.loads((pipeline / "reports/triggers.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1
    assert found["fired"] == []
    assert [answer["name"] for answer in found["asked"]] == NAMES
    assert "nothing to do" in (pipeline / "reports/decision.md").read_text(encoding="utf-8")


def test_demand(pipeline, ask, change):
    """A person asks, or changes the recipe; which batches are used is no recipe."""
    assert fired(ask(demand=True)) == {"demand"}
    seed = load(pipeline / "params.yaml").seed
    change("params.yaml", {"seed": seed + 1})
    assert "code or settings changed since version 1" in ask()["demand"].reason
    assert ask()["demand"].fired
    change("params.yaml", {"seed": seed})
    change("continuous_training.yaml", {"triggers.drift": False})
    assert fired(ask()) == set()


def test_new_late_and_replaced_batches(pipeline, ask, batches):
    first = min(batches.iterdir())
    for what, path in {
        "new": copy(pipeline, "-new", lambda frame: frame),
        "late": Path(shutil.copy(first, first.with_stem("0" + first.stem))),
    }.items():
        answer = ask()["new_data"]
        assert answer.fired
        assert f"{what}: {path.name}" in answer.reason
        assert not ask(new_data=False)["new_data"].fired
        path.unlink()
    copy(pipeline, "", lambda frame: frame.iloc[:-1])  # under its own name
    assert "replaced: " in ask()["new_data"].reason
    copy(pipeline, "-new", lambda frame: frame)  # there may be no other
    first.unlink()
    assert f"gone: {first.name}" in ask()["new_data"].reason


def test_schedule(pipeline, ask, monkeypatch):
    """Counted from the last decision, and only if there is anything new."""
    month = time.time() + 30 * 24 * 60 * 60
    assert not ask(schedule=30)["schedule"].fired
    monkeypatch.setattr(triggers.time, "time", lambda: month)
    assert not ask(schedule=30)["schedule"].fired
    copy(pipeline, "-new", lambda frame: frame)
    assert ask(schedule=30)["schedule"].fired
    assert not ask(schedule=31)["schedule"].fired
    assert not ask(schedule=None)["schedule"].fired


def wrong_labels(frame: pd.DataFrame, target: str, task: str) -> pd.DataFrame:
    y = frame[target]
    if task == "regression":
        return frame.assign(**{target: y + 10 * y.std()})
    classes = sorted(y.dropna().unique(), key=str)
    other = dict(zip(classes, classes[1:] + classes[:1], strict=True))
    return frame.assign(**{target: y.map(other)})


def test_degradation(pipeline, ask):
    """K of the last N labelled batches; the champion's run keeps what it scored."""
    params = load(pipeline / "params.yaml")
    target = params.data.target

    def bad(frame: pd.DataFrame) -> pd.DataFrame:
        return wrong_labels(frame, target, params.task)

    rule = settings.Degradation(batches=3, worse=2, tolerance=0.1)
    one = copy(pipeline, "-1", bad)
    assert not ask(degradation=rule)["degradation"].fired
    copy(pipeline, "-2", lambda frame: frame.assign(**{target: None}))  # no label has come yet
    assert not ask(degradation=rule)["degradation"].fired
    one.rename(one.with_stem(one.stem + "1"))
    copy(pipeline, "", lambda frame: frame)
    shutil.copy(one.with_stem(one.stem + "1"), one.with_stem(one.stem + "3"))
    answer = ask(degradation=rule)["degradation"]
    assert answer.fired
    assert f"{params.evaluate.metric} was " in answer.reason
    assert not ask(degradation=rule.model_copy(update={"batches": 1}))["degradation"].fired
    assert not ask(degradation=None)["degradation"].fired
    version = find_version(tracking.connect(), params.register_.name, "champion")
    kept = tracking.find_run(version.run_id).data.metrics
    assert f"batch_{params.evaluate.metric}" in kept


def test_drift(pipeline, ask):
    """It is said, but retrains only if the owner wants that."""
    params = load(pipeline / "params.yaml").data
    apart = {params.target, params.time, params.id, *params.drop}
    frame = tables.read(dataset.batches(params)[-1:], params)
    column = next(c for c in frame if c not in apart and frame[c].dtype in ("float64", "str"))

    def unseen(frame: pd.DataFrame) -> pd.DataFrame:
        other = frame[column].max() + 1 if is_numeric_dtype(frame[column]) else "other"
        return frame.assign(**{column: other})

    copy(pipeline, "-drifted", unseen)
    assert column in ask()["drift"].reason
    assert not ask()["drift"].fired
    assert ask(drift=True)["drift"].fired
    assert (pipeline / "reports/drift.html").is_file()


def test_what_monitoring_has_seen(pipeline, ask, capsys):
    """It fires with its reason, but not for what is decided already."""
    because = "degradation: roc_auc\nis 0.6"
    assert not ask(because=because)["degradation"].fired
    copy(pipeline, "-new", lambda frame: frame)
    answers = ask(because=because, degradation=None, new_data=False)
    assert fired(answers) == {"degradation"}
    assert answers["degradation"].reason == "roc_auc is 0.6"
    assert fired(ask(because="drift: temp", new_data=False)) == {"drift"}
    assert main(["retrain", "--because", "weather: nice"]) == 1
    assert "--because takes" in capsys.readouterr().err


def test_refusals_in_a_row_ask_for_an_experiment(pipeline, ask, change):
    """Until the recipe changes, or somebody demands it."""
    params, limits = load(pipeline / "params.yaml"), settings.load()
    state = history.state(params, limits)
    written = {"decision": "refused", "trigger": "demand", "commit": "none", "data": "another"}
    written |= {"challenger": {"version": 1, "run_id": _run(params)}}
    copy(pipeline, "-new", lambda frame: frame)
    for _ in range(2):
        with tracking.decision("refused") as run_id:
            history.log(tracking.connect(), run_id, written, {}, state)
    assert ask(refusals=3)["new_data"].fired
    assert fired(ask(because="degradation: x", refusals=2)) == set()
    answers = ask(refusals=2)
    assert fired(answers) == set()
    assert answers["new_data"].reason.startswith("held back after 2 refusals in a row")
    assert "new experiment" in triggers.write(list(answers.values()))
    found = json.loads((pipeline / "reports/triggers.json").read_text(encoding="utf-8"))
    assert "new experiment" in found["experiment"]
    assert fired(ask(demand=True, refusals=2)) == {"demand"}
    change("params.yaml", {"seed": params.seed + 1})
    assert {"demand", "new_data"} <= fired(ask(refusals=2))
    change("params.yaml", {"seed": params.seed})


def _run(params) -> str:
    version = find_version(tracking.connect(), params.register_.name, "champion")
    return tracking.find_run(version.run_id).data.tags["judged_run"]
