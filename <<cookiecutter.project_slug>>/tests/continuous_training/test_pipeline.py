"""The pipeline and the gate with DVC, git and MLflow: a project's life, test by test."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.continuous_training.__main__ import (
    STAGES,
    TIMES,
)
from << cookiecutter.package_name >>.continuous_training.pipeline import dvc
from << cookiecutter.package_name >>.experiment import dataset, tables, tracking
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.params import load
from << cookiecutter.package_name >>.experiment.registry import find_version

pytestmark = pytest.mark.usefixtures("first_retraining")


def champion(pipeline: Path, alias: str = "champion") -> int | None:
    found = find_version(tracking.connect(), load(pipeline / "params.yaml").register_.name, alias)
    return int(found.version) if found else None


def decision(pipeline: Path) -> dict:
    return json.loads((pipeline / "reports/gate.json").read_text(encoding="utf-8"))


def test_the_first_model_needs_no_champion(first_retraining, pipeline):
    assert first_retraining == 0
    found = decision(pipeline)
    assert found["decision"] == "promoted"
    assert found["champion"] is None
    names = {check["name"] for check in found["checks"]}
    assert names == {"baseline", "sanity", "latency", "signature"}
    assert all(check["passed"] for check in found["checks"])
    assert champion(pipeline) == found["challenger"]["version"] == 1
    params = load(pipeline / "params.yaml")
    tags = find_version(tracking.connect(), params.register_.name, "1").tags
    assert tags["dirty"] == "false"
    assert tags["commit"] == found["commit"]
    assert tags["trigger"] == "demand,new_data"
    assert tags["data"] == dataset.digest(dataset.batches(params.data))
    for file in ("dvc.lock", "data/raw.dvc", "schema.yaml", "reports/model-card-v1.md"):
        assert (pipeline / file).is_file(), file


def test_a_second_time_does_nothing(pipeline, capfd):
    lock = (pipeline / "dvc.lock").read_text()
    assert main(["pipeline"]) == 0
    assert main(["retrain"]) == 0
    assert "rows" not in capfd.readouterr().err  # which every stage that runs says
    assert (pipeline / "dvc.lock").read_text() == lock
    assert champion(pipeline) == 1


def test_one_knob_reruns_what_depends_on_it(pipeline, change, capfd):
    segments = yaml.safe_load((pipeline / "params.yaml").read_text())["evaluate"]["segments"]
    model = (pipeline / "models/challenger/model.skops").stat().st_mtime_ns
    for file, knob, value, stages in [
        ("params.yaml", "evaluate.segments", [], {"evaluate"}),
        ("params.yaml", "evaluate.segments", segments, set()),  # DVC remembers
        ("continuous_training.yaml", "gate.tolerance", 0.01, set()),
    ]:
        change(file, {knob: value})
        capfd.readouterr()
        assert main(["pipeline"]) == 0
        said = {line.split(":")[0] for line in capfd.readouterr().err.splitlines()}
        assert said & {*STAGES} == stages
    assert (pipeline / "models/challenger/model.skops").stat().st_mtime_ns == model


def test_a_dirty_tree_trains_but_is_not_promoted(pipeline, capfd):
    (pipeline / "notes.txt").write_text("not committed")
    assert main(["pipeline"]) == 0
    assert main(["retrain"]) == 1
    assert "commit your changes" in capfd.readouterr().err
    (pipeline / "notes.txt").unlink()
    assert champion(pipeline) == 1


def features(pipeline: Path) -> list[str]:
    settings = load(pipeline / "params.yaml").data
    apart = {settings.target, settings.time, settings.id, *settings.drop, *settings.text}
    frame = next(tables.chunks(dataset.batches(settings)[-1], settings))
    return [name for name in frame.columns if name not in apart]


def test_a_refused_challenger_leaves_the_champion(pipeline, change):
    """Also one without a column that the champion takes."""
    params = load(pipeline / "params.yaml")
    drop, seed = params.data.drop, params.seed
    little = {"rows": 1, "days": 1, "minority": 0}  # a sample may hold no more
    change("continuous_training.yaml", {"gate.latency": 1e-6, "gate.at_least": little})
    change("params.yaml", {"data.drop": [*drop, *features(pipeline)[1:2]], "seed": seed + 1})
    assert main(["retrain"]) == 0
    found = decision(pipeline)
    assert found["decision"] == "refused"
    assert {check["name"] for check in found["checks"] if not check["passed"]} >= {"latency"}
    assert {"metric", "calibration"} <= {check["name"] for check in found["checks"]}
    assert champion(pipeline) == 1
    assert champion(pipeline, "challenger") == found["challenger"]["version"] != 1
    change("continuous_training.yaml", {"gate.latency": 10_000})
    change("params.yaml", {"data.drop": drop, "seed": seed})


def broken(pipeline: Path) -> tuple[Path, str]:
    """A new batch without one of the columns that the model takes; and that column."""
    settings = load(pipeline / "params.yaml").data
    newest = dataset.batches(settings)[-1]
    frame, column = next(tables.chunks(newest, settings)), features(pipeline)[0]
    path = newest.with_stem(f"{newest.stem}-broken")
    tables.write(frame.drop(columns=column), path, settings)
    return path, column


def test_a_broken_batch_is_quarantined(pipeline, capfd):
    path, column = broken(pipeline)
    version = (pipeline / "data/raw.dvc").read_text(encoding="utf-8")
    assert main(["retrain"]) == 3
    assert (pipeline / "data/raw.dvc").read_text(encoding="utf-8") == version
    message = capfd.readouterr().err.splitlines()[-1]
    assert path.name in message
    assert f"{column!r} is missing" in message
    assert not path.exists()
    put = pipeline / "data/quarantine" / path.name
    assert put.exists()
    assert column in put.with_name(f"{path.name}.txt").read_text(encoding="utf-8")
    assert champion(pipeline) == 1
    assert main(["pipeline"]) == 0


def test_settings_that_no_batch_fits_quarantine_none(pipeline, capfd):
    schema = (pipeline / "schema.yaml").read_text(encoding="utf-8")
    before = sorted((pipeline / "data/raw").iterdir())
    (pipeline / "schema.yaml").write_text(schema + "  unheard: {kind: text}\n", encoding="utf-8")
    assert main(["pipeline"]) == 1
    assert "'unheard' is missing" in capfd.readouterr().err
    assert sorted((pipeline / "data/raw").iterdir()) == before
    (pipeline / "schema.yaml").write_text(schema, encoding="utf-8")


def test_a_column_that_is_dropped_no_more_is_named(pipeline, capfd):
    """It may be the one that tells the target."""
    columns = yaml.safe_load((pipeline / "schema.yaml").read_text(encoding="utf-8"))["columns"]
    name, schema = features(pipeline)[0], (pipeline / "schema.yaml").read_text(encoding="utf-8")
    rules = columns.pop(name)
    (pipeline / "schema.yaml").write_text(yaml.safe_dump({"columns": columns}), encoding="utf-8")
    assert main(["pipeline"]) == 1
    message = capfd.readouterr().err
    assert f"data.drop does not name {name} any more" in message
    assert f"kind: {rules['kind']}, missing: " in message
    (pipeline / "schema.yaml").write_text(schema, encoding="utf-8")


def test_a_new_champion_and_back(pipeline, change, capfd):
    """What passes is fitted on all rows; rollback returns to the champion before, and stays there."""
    waiting = sorted((pipeline / "incoming").iterdir())
    for path in waiting[:1]:
        shutil.copy(path, pipeline / "data/raw")
    lenient = dict.fromkeys(("tolerance", "calibration_tolerance", "segment_tolerance"), 100.0)
    change("continuous_training.yaml", {f"gate.{key}": value for key, value in lenient.items()})
    change("params.yaml", {"seed": load(pipeline / "params.yaml").seed + 2})
    assert main(["retrain"]) == 0
    found = decision(pipeline)
    assert found["decision"] == "promoted"
    assert found["champion"] == {"version": 1}
    assert {"metric", "calibration"} <= {check["name"] for check in found["checks"]}
    new = found["challenger"]["version"]
    assert (champion(pipeline), champion(pipeline, "previous")) == (new, 1)
    client, params = tracking.connect(), load(pipeline / "params.yaml")
    refit = client.get_run(find_version(client, params.register_.name, "champion").run_id)
    assert refit.data.tags["judged_run"] == found["challenger"]["run_id"]
    if params.data.time is not None:
        rows = data.labelled(tables.read(dataset.batches(params.data), params.data), params)
        assert refit.data.params["fitted_until"] == str(rows[params.data.time].max())
    assert main(["rollback"]) == 0
    assert (champion(pipeline), champion(pipeline, "previous")) == (1, None)
    assert main(["rollback"]) == 1
    assert "is the first" in capfd.readouterr().err
    assert main(["retrain"]) == 0
    assert champion(pipeline) == 1


def test_what_a_person_registers_is_a_decision_too(pipeline):
    assert main(["register", "--run", "last", "--because", "the gate saw a holiday"]) == 0
    tags = tracking.last_run("tags.decision = 'registered'", "-decisions").data.tags
    assert tags["because"] == "the gate saw a holiday"
    assert tags["version"] == str(champion(pipeline))
    assert tags["mlflow.user"]


def test_a_store_that_has_not_seen_the_training_gets_its_run(
    pipeline, tmp_path, monkeypatch, capfd
):
    """A model may come out of DVC's cache or remote, where no stage but `code` has run."""
    (pipeline / TIMES).unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    capfd.readouterr()
    assert main(["pipeline"]) == 0
    assert "train:" not in capfd.readouterr().err
    run = tracking.find_run("last")
    assert run.data.tags["dvc_model"]
    assert any(name.startswith("test_") for name in run.data.metrics)


def test_batches_and_models_come_back_from_the_remote(pipeline):
    params = load(pipeline / "params.yaml")
    before = dataset.digest(dataset.batches(params.data))
    assert dvc("push") == 0
    for folder in ("data/raw", "models", ".dvc/cache"):
        shutil.rmtree(pipeline / folder)
    assert dvc("pull") == 0
    assert dataset.digest(dataset.batches(params.data)) == before
    assert (pipeline / "models/challenger/model.skops").is_file()


def test_stages_and_settings_are_told_apart(pipeline):
    """Every stage of dvc.yaml is a step of the floor, and every setting that it names is there."""
    stages = yaml.safe_load((pipeline / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(stages) == {*STAGES}
    known = {}
    for file in ("params.yaml", "continuous_training.yaml"):
        flat = pd.json_normalize(yaml.safe_load((pipeline / file).read_text(encoding="utf-8")))
        known[file] = set(flat.columns)
    for stage in stages.values():
        for entry in stage.get("params", ()):
            named = entry if isinstance(entry, dict) else {"params.yaml": [entry]}
            for file, keys in named.items():
                for key in keys:
                    assert any(k == key or k.startswith(f"{key}.") for k in known[file]), key
