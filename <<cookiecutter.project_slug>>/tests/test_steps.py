"""The steps by hand, end to end, in a temporary project with a store of its own."""

import json
import sqlite3

import pyarrow.parquet as pq
import pytest
import yaml

from << cookiecutter.package_name >>.experiment import dataset, floors, tables
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import load


def test_every_step_leaves_its_mark(trained, params):
    assert (trained / "mlflow.db").is_file()
    assert any((trained / "mlartifacts").rglob("model.skops"))
    assert (trained / "reports/calibration.png").stat().st_size > 1000
    report = json.loads((trained / "reports/evaluation.json").read_text(encoding="utf-8"))
    models = {row["model"] for row in report["table"] if row["segment"] == "all"}
    assert {"candidate", "baseline"} <= models
    assert all(params.evaluate.metric in row for row in report["table"])


def test_the_store_holds_no_path_of_this_machine(trained):
    with sqlite3.connect(trained / "mlflow.db") as store:
        kept = [row[0] for row in store.execute("select artifact_uri from runs")]
    assert kept
    assert not [uri for uri in kept if not uri.startswith("project:/")]


def test_the_model_card_says_what_the_model_is(trained, params):
    card = (trained / "reports/model-card-v1.md").read_text(encoding="utf-8")
    for part in ("## Metrics", "## Limits", "## Reproduce it", params.data.target):
        assert part in card
    assert dataset.digest(dataset.batches(params.data)) in card


def test_rows_in_are_rows_out(trained, scored, params):
    rows = tables.read([scored], params.data)
    out = pq.read_table(trained / "predictions/out.parquet").to_pandas()
    assert len(out) == len(rows)
    assert set(out["model_version"]) == {1}
    assert out["prediction"].notna().all()
    for column in {params.data.time, params.data.id} & set(out.columns):
        assert list(out[column]) == list(rows[column])
    assert [path.name for path in (trained / "predictions").iterdir()] == ["out.parquet"]


def test_predictions_are_those_of_the_champion(trained, scored, params, model):
    """The stored model answers like one that is fitted on the same rows here and now."""
    rows, store = tables.read([scored], params.data), floors.feature_store(params.data)
    out = pq.read_table(trained / "predictions/out.parquet").to_pandas()
    rows = rows if store is None else store.add(rows)
    assert list(out["prediction"]) == list(model.predict(rows))


def test_a_mistake_is_one_sentence(trained, capsys):
    output = ["--output", str(trained / "out.parquet")]
    mistakes = {
        "no run has the id nonsense": ["evaluate", "--run", "nonsense"],
        "is called nonsense": ["evaluate", "--batch", "nonsense"],
        "there is no such file": ["predict", "--input", "none.csv", *output],
        "no version of": ["predict", "--input", "none.csv", *output, "--model", "999"],
    }
    for said, step in mistakes.items():
        assert main(step) == 1
        message = capsys.readouterr().err
        assert "Traceback" not in message
        sentence = message.strip().splitlines()[-1]  # there may be a progress bar before it
        assert sentence.startswith(f"{step[0]}: ")
        assert said in sentence
    assert not (trained / "out.parquet").exists()


def test_an_unknown_setting_is_named(project, tmp_path):
    settings = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings | {"sede": 1}), encoding="utf-8")
    with pytest.raises(UserError, match="sede is not a setting; did you mean seed"):
        load(tmp_path / "params.yaml")
