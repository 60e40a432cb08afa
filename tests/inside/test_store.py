"""What is stored: lineage of a run, aliases, the card; and what loading a model refuses."""

import hashlib
import html
import os
import pickle
import re
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PACKAGE, module

ROOT = Path.cwd()


@pytest.fixture(scope="module")
def trained(flights):
    """Two versions, the second the champion, made by the real steps."""
    main = module("experiment.cli").main
    for _ in range(2):
        for arguments in (["train"], ["evaluate"], ["register", "--run", "last"]):
            assert main(arguments) == 0
    params = module("experiment.params").load()
    client = module("experiment.tracking").connect()
    version = client.get_model_version_by_alias(params.register_.name, "champion")
    return client, version, params


def folder_of(client, version) -> Path:
    """The stored files of a version."""
    run = client.get_run(version.run_id)
    return Path(mlflow.artifacts.download_artifacts(run.data.tags["model_uri"]))


def test_run_tells_its_lineage(trained):
    client, version, params = trained
    run = client.get_run(version.run_id)
    assert run.data.params["data.through"] == params.data.through
    assert {"commit", "dirty", "data", "model_sha256", "model_uri"} <= set(run.data.tags)
    assert len(run.data.tags["commit"]) == 40
    names = {i.dataset.name: i.dataset for i in run.inputs.dataset_inputs}
    assert set(names) == {"train", "test"}
    assert names["train"].digest == run.data.tags["data"][:16]
    assert {"train_roc_auc", "test_roc_auc", "evaluated_roc_auc"} <= set(run.data.metrics)
    files = {f.path for f in client.list_artifacts(version.run_id)}
    assert {"environment.txt", "evaluation"} <= files
    stored = yaml.safe_load((folder_of(client, version) / "MLmodel").read_text())
    assert "signature" in stored
    assert stored["saved_input_example_info"]


def test_registering_moves_the_aliases(trained):
    client, version, params = trained
    previous = client.get_model_version_by_alias(params.register_.name, "previous")
    assert (int(previous.version), version.tags["previous_version"]) == (1, "1")
    assert {"commit", "data", "trigger", "dirty"} <= set(version.tags)


def test_card_is_filled_from_the_run(trained):
    client, version, _ = trained
    card = (ROOT / "reports" / f"model-card-v{version.version}.md").read_text()
    assert client.get_model_version(version.name, version.version).description == card
    for words in (version.run_id, version.tags["data"], "roc_auc", "origin = JFK", "make setup"):
        assert words in card


def test_registering_twice_changes_nothing(trained, step):
    client, version, _ = trained
    assert step("register", "--run", version.run_id)[0] == 0
    assert len(client.search_model_versions(f"name = '{version.name}'")) == 2


def test_register_needs_an_evaluation(trained, step):
    assert step("train")[0] == 0
    code, _, err = step("register", "--run", "last")
    assert (code, "evaluate" in err) == (1, True)


def stored_file(run_id: str, name: str) -> Path:
    """A file of a run, where the store has it."""
    (found,) = ROOT.glob(f"mlartifacts/**/{run_id}/artifacts/{name}")
    return found


def test_an_evaluation_that_was_changed_is_refused(trained, step):
    """It is what the gate's record and the model card tell."""
    _, version, _ = trained
    path = stored_file(version.run_id, "evaluation/test/evaluation.json")
    path.write_text(path.read_text() + " ")
    code, _, err = step("register", "--run", version.run_id)
    path.write_text(path.read_text()[:-1])
    assert (code, "evaluation.json is refused" in err) == (1, True)
    assert step("register", "--run", version.run_id)[0] == 0


def test_what_is_not_committed_is_kept_with_its_digest(trained, step):
    path = ROOT / "src" / PACKAGE / "experiment/train.py"
    text = path.read_text()
    path.write_text(text + "\n# https://me:Zq7secretword@h.example\n")
    assert step("train")[0] == 0
    path.write_text(text)
    tracking = module("experiment.tracking")
    run = tracking.find_run("last")
    with tracking.artifact(run, "changes.diff") as diff:
        assert "+# https://***@h.example" in diff.read_text()
    stored_file(run.info.run_id, "changes.diff").write_text("other")
    with (
        pytest.raises(module("experiment.errors").UserError, match="is refused"),
        tracking.artifact(run, "changes.diff"),
    ):
        pass


def test_a_later_batch_is_a_point_over_time(trained, step):
    client, version, _ = trained
    for batch in ("2013-04", "2013-05"):
        assert step("evaluate", "--run", version.run_id, "--batch", batch)[0] == 0
    steps = [m.step for m in client.get_metric_history(version.run_id, "batch_roc_auc")]
    assert steps == [201304, 201305]


def test_evaluation_warns_of_fitted_rows(trained, step):
    _, version, _ = trained
    code, _, _ = step("evaluate", "--run", version.run_id, "--batch", "2013-02")
    assert code == 0
    report = (ROOT / "reports/evaluation.json").read_text()
    assert "on 100% of these rows" in report
    assert "this run is the champion" in report


def test_tune_logs_nested_runs_and_names_the_best(trained, settings, step):
    client, _, _ = trained
    settings({"tune": {"candidates": 2, "folds": 2}})
    code, _, err = step("tune")
    assert code == 0, err
    experiment = client.search_experiments()[0].experiment_id
    parent = client.search_runs([experiment], "tags.step = 'tune'")[0]
    nested = client.search_runs([experiment], "tags.step = 'candidate'")
    assert {r.data.tags["mlflow.parentRunId"] for r in nested} == {parent.info.run_id}
    means = [r.data.metrics["mean_roc_auc"] for r in nested]
    assert len(means) == 2
    assert parent.data.metrics["best_mean_roc_auc"] == max(means)


class Evil:
    """Unpickling it would leave a file behind."""

    def __reduce__(self):
        return os.system, (f"touch {ROOT}/owned",)


def change_model(stored: Path, model) -> None:
    import skops.io

    skops.io.dump(model, stored / "model.skops")


def tampered(folder: Path, _) -> None:
    """One number of a fitted model is another."""
    path = folder / "model.skops"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["schema.json"] = files["schema.json"].replace(b'"learning_rate"', b'"learning_rat3"', 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def swapped(folder: Path, other: Path) -> None:
    """The files of another, equally good model."""
    for name in ("MLmodel", "model.skops"):
        (folder / name).write_bytes((other / name).read_bytes())


def pickled(folder: Path, _) -> None:
    """A pickle under the name of the model."""
    (folder / "model.skops").write_bytes(pickle.dumps(Evil()))


def flavored(folder: Path, _) -> None:
    """MLmodel says that the model is a pickle, and where it is."""
    (folder / "model.pkl").write_bytes(pickle.dumps(Evil()))
    stored = yaml.safe_load((folder / "MLmodel").read_text())
    stored["flavors"]["sklearn"] |= {
        "serialization_format": "pickle",
        "pickled_model": "model.pkl",
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(stored))


def with_code(folder: Path, _) -> None:
    """MLmodel brings code that MLflow would import."""
    (folder / "code").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(f"open('{ROOT}/owned', 'w')")
    stored = yaml.safe_load((folder / "MLmodel").read_text())
    stored["flavors"]["python_function"]["code"] = "code"
    (folder / "MLmodel").write_text(yaml.safe_dump(stored))


def missing(folder: Path, _) -> None:
    """The model's file is gone."""
    (folder / "model.skops").unlink()


def mapped(folder: Path, _) -> None:
    """A model that is no model."""
    change_model(folder, "a text")


def nested(folder: Path, _) -> None:
    """MLmodel nests deeper than a parser can follow."""
    (folder / "MLmodel").write_text("[" * 5000)


def tagged(folder: Path, _) -> None:
    """MLmodel names a command."""
    command = f"!!python/object/apply:os.system ['touch {ROOT}/owned']"
    (folder / "MLmodel").write_text(f"flavors: {command}")


def shifted(folder: Path, _) -> None:
    """The same bytes one after the other, but the first ones of the model end MLmodel."""
    content = (folder / "model.skops").read_bytes()
    with (folder / "MLmodel").open("ab") as file:
        file.write(content[:1])
    (folder / "model.skops").write_bytes(content[1:])


ATTACKS = [shifted, tampered, swapped, pickled, flavored, with_code, missing]


@pytest.mark.parametrize(
    ("attack", "digest"),
    [(attack, "kept") for attack in ATTACKS]
    + [(attack, "adjusted") for attack in (pickled, flavored, mapped, nested, tagged)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_loading_refuses(attack, digest, trained, step, tmp_path):
    """Whoever can write the artifacts; a pickle also from one who can write the registry, too."""
    client, version, _ = trained
    stored, registry = folder_of(client, version), module("experiment.registry")
    other = client.get_model_version_by_alias(version.name, "previous")
    before = {p: p.read_bytes() for p in stored.rglob("*") if p.is_file()}
    expected = version.tags["model_sha256"]
    try:
        attack(stored, folder_of(client, other))
        if digest == "adjusted":
            client.set_model_version_tag(
                version.name, version.version, "model_sha256", registry.fingerprint(stored)
            )
        source = ROOT / "data/raw/2013-05.parquet"
        output = tmp_path / "o.parquet"
        code, _, err = step("predict", "--input", str(source), "--output", str(output))
        assert code == 1
        assert "is refused" in err or (attack, digest) == (missing, "kept")
        assert "its files are not those" in err or digest == "adjusted" or attack == missing
        assert "Traceback" not in err
        assert not output.exists()
        assert not (ROOT / "owned").exists()
    finally:
        for path in [p for p in stored.rglob("*") if p.is_file()]:
            path.unlink()
        (stored / "code").rmdir() if (stored / "code").exists() else None
        for path, content in before.items():
            path.write_bytes(content)
        client.set_model_version_tag(version.name, version.version, "model_sha256", expected)


def test_serving_runs_nothing_of_the_stored_files(trained, monkeypatch, step):
    """Not even if the registry's digest is adjusted: the server gets a copy that we saved."""
    client, version, _ = trained
    stored, serve = folder_of(client, version), module("experiment.serve")
    text, served = (stored / "MLmodel").read_text(), {}
    expected = version.tags["model_sha256"]

    def look(*command: str, port: int) -> None:
        served.update(yaml.safe_load((Path(command[3]) / "MLmodel").read_text())["flavors"])

    monkeypatch.setattr(serve, "start", look)
    try:
        with_code(stored, None)
        fingerprint = module("experiment.registry").fingerprint(stored)
        client.set_model_version_tag(version.name, version.version, "model_sha256", fingerprint)
        assert step("serve")[0] == 0
    finally:
        (stored / "MLmodel").write_text(text)
        (stored / "code" / "sitecustomize.py").unlink()
        (stored / "code").rmdir()
        client.set_model_version_tag(version.name, version.version, "model_sha256", expected)
    assert served["python_function"]["loader_module"] == "mlflow.sklearn"
    assert not served["python_function"].get("code")


def test_a_version_of_the_first_template_loads(trained):
    """Its digest was over the contents alone; changed files are refused all the same."""
    client, version, params = trained
    stored, registry = folder_of(client, version), module("experiment.registry")
    content = b"".join((stored / name).read_bytes() for name in registry.FILES)
    expected, path = version.tags["model_sha256"], stored / "MLmodel"
    mark = (version.name, version.version, "model_sha256")
    before = path.read_bytes()
    try:
        client.set_model_version_tag(*mark, hashlib.sha256(content).hexdigest())
        old = client.get_model_version(version.name, version.version)
        assert registry.load_model(old, params).model is not None
        path.write_bytes(before + b"\n")
        with pytest.raises(module("experiment.errors").UserError, match="its files are not those"):
            registry.load_model(old, params)
    finally:
        path.write_bytes(before)
        client.set_model_version_tag(*mark, expected)


HOSTILE = ["<img src=x onerror=alert(1)>", "a|b", "[x](javascript:alert(1))", "`c`", "*d*", "&lt;"]
HOSTILE += ["a\nb", "$x^{$", "<!-- ", "\\"]


def test_values_stay_text_in_card_and_plots(tmp_path, settings, step):
    """Whatever the segments are called: every cell is what the column holds, and no tag is made."""
    import mistune

    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"part": chance.choice(HOSTILE, 2000), "x": chance.random(2000)})
    frame["y"] = (frame["x"] + chance.random(2000) > 1).astype(int)
    frame.to_parquet(tmp_path / "own.parquet")
    own = {"data.time": None, "data.drop": [], "data.through": None, "data.target": "y"}
    own |= {"data.id": None, "data.source": str(tmp_path / "own.parquet")}
    settings(own | {"evaluate.segments": ["part"], "register.name": "odd"})
    for words in (["train"], ["evaluate"], ["register", "--run", "last"]):
        code, _, err = step(*words)
        assert code == 0, err
    card = (ROOT / "reports/model-card-v1.md").read_text(encoding="utf-8")
    page = mistune.create_markdown(escape=False, plugins=["table"])(card)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    names = {html.unescape(cell).removeprefix("part = ") for cell in cells if "part = " in cell}
    assert names == {" ".join(text.split()) for text in HOSTILE}
    assert not re.search(r"<(?!/?(h\d|p|ul|li|strong|code|pre|table|thead|tbody|tr|th|td)\b)", page)
    assert (ROOT / "reports/segments.png").exists()


def test_loading_goes_by_our_allow_list(trained, monkeypatch):
    """A type that model.py does not name is refused, whatever the model's files say."""
    _, version, params = trained
    registry, errors = module("experiment.registry"), module("experiment.errors")
    assert registry.load_model(version, params).model is not None
    names = [t for t in registry.TRUSTED_TYPES if "TreePredictor" not in t]
    monkeypatch.setattr(registry, "TRUSTED_TYPES", names)
    with pytest.raises(errors.UserError, match="TreePredictor"):
        registry.load_model(version, params)
    allowed = params.model.model_copy(
        update={
            "trusted_types": ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
        }
    )
    registry.load_model(version, params.model_copy(update={"model": allowed}))


def test_two_trainings_are_equal(trained):
    client, version, _ = trained
    other = client.get_model_version_by_alias(version.name, "previous")
    one, two = (client.get_run(v.run_id).data.metrics for v in (version, other))
    assert {k: v for k, v in one.items() if k.startswith("test_")} == {
        k: v for k, v in two.items() if k.startswith("test_")
    }


def test_predictions_are_those_of_the_model(trained, step, tmp_path):
    _, version, params = trained
    source, output = ROOT / "data/raw/2013-06.parquet", tmp_path / "o.parquet"
    assert step("predict", "--input", str(source), "--output", str(output))[0] == 0
    model = module("experiment.registry").load_model(version, params).model
    expected = model.predict_proba(pd.read_parquet(source))[:, 1]
    scored = pd.read_parquet(output)
    assert (scored["probability_True"].to_numpy() == expected).all()
    assert (scored["model_version"] == int(version.version)).all()
