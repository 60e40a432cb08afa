"""Level 1 as a team lives with it: climbing with a champion, own data, a part of a larger repository."""

import json
import shutil

import pytest
import yaml
from conftest import BIN, IDENTITY, TEMPLATE, attach, generate, run

pytestmark = pytest.mark.slow


def step(project, *arguments, check=True):
    command = (project / ".venv/bin/python", "-m", "flight_delays", *arguments)
    return run(*command, cwd=project, check=check, **IDENTITY)


def commit(project):
    run("git", "add", "--all", ".", cwd=project)
    run("git", "commit", "-q", "--no-verify", "-m", "test: a state", cwd=project, **IDENTITY)


def set_params(project, **changes):
    path = project / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        section, key = name.split("__")
        settings[section][key] = value
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    commit(project)


def sample(project, batches):
    """5,000 flights a month."""
    code = f"""
import pandas as pd
from pathlib import Path
Path("data/raw").mkdir(parents=True)
for path in sorted(Path({str(batches)!r}).glob("2013-0[1-5].parquet")):
    frame = pd.read_parquet(path).sample(5000, random_state=0).sort_index()
    frame.to_parquet(f"data/raw/{{path.name}}", index=False)
"""
    run(project / ".venv/bin/python", "-c", code, cwd=project)


def gate(project) -> dict:
    return json.loads((project / "reports/gate.json").read_text())


@pytest.mark.parametrize(
    "task", ["classification", pytest.param("regression", marks=pytest.mark.nightly)]
)
def test_the_champion_of_level_0_is_the_first_to_beat(task, make_project, batches):
    """After the climb runs, models and aliases are there; a worse challenger is refused for it."""
    project = make_project(task=task)
    sample(project, batches)
    run("make", "train", "evaluate", "register", cwd=project)
    before = {p: p.read_bytes() for p in project.glob("mlartifacts/**/*") if p.is_file()}
    run("make", "upgrade", "LEVEL=1", f"TEMPLATE={TEMPLATE}", cwd=project)
    run("git", "commit", "-q", "--no-edit", "--no-verify", cwd=project, **IDENTITY)
    run("make", "setup", "lint", cwd=project)
    run("make", "pipeline", cwd=project)
    assert {p: p.read_bytes() for p in before} == before
    arguments = yaml.safe_load((project / "params.yaml").read_text())["model"]["arguments"]
    set_params(project, model__arguments=arguments | {"max_iter": 2})
    step(project, "retrain")
    found = gate(project)
    assert found["champion"] == {"version": 1}
    assert found["decision"] == "refused"
    assert "metric" in {check["name"] for check in found["checks"] if not check["passed"]}
    assert found["holdout"]["from"].startswith("2013-03-18")
    # On so few flights the first champion is worse than the baseline at LaGuardia in April.
    limits = project / "continuous_training.yaml"
    limits.write_text(limits.read_text().replace("doubt_rows: true ", "doubt_rows: false"))
    set_params(project, model__arguments=arguments, data__through="2013-04")
    step(project, "retrain")
    assert gate(project)["holdout"]["to"].startswith("2013-04-30")
    step(
        project,
        "predict",
        "--input",
        "data/raw/2013-05.parquet",
        "--output",
        "predictions/x.parquet",
    )
    assert gate(project)["decision"] == "promoted"  # the feature views see to that
    assert "nothing to do" in step(project, "retrain").stderr
    if task == "classification":
        labels_that_come_late(project)
        reproduced_after_a_squash(project)
    assert "version 1 is the champion again" in step(project, "rollback").stderr
    assert "was rolled back" in step(project, "retrain", "--demand").stderr


# File -> what is replaced, by what, and the first stage that runs again because of it.
EDITS = {
    "src/flight_delays/feature_views.py": ("hours=2", "hours=4", "build_views"),
    "src/flight_delays/data.py": (
        "frame = frame[~missing]",
        "frame = frame[~missing][1:]",
        "prepare",
    ),
    "src/flight_delays/model.py": ("unknown_value=-1", "unknown_value=-2", "train"),
    "src/flight_delays/helper.py": ("HOURS = 1", "HOURS = 2", "train"),
    "requirements/experiment.txt": ("tqdm==", "tqdm ==", "extract"),
}
STAGES = ("extract", "validate", "build_views", "prepare", "train", "evaluate")


@pytest.mark.nightly  # by day tests/continuous_training/test_code.py of the project tells the stages
def test_each_edit_of_the_owner_retrains(make_project, batches):
    """What she changes is trained with, and no stage before it runs again; a document changes nothing."""
    project = make_project(maturity_level="1")
    sample(project, batches)
    limits = project / "continuous_training.yaml"
    loose = yaml.safe_load(limits.read_text())
    loose["gate"] |= {"tolerance": 1.0, "calibration_tolerance": 1.0, "segment_tolerance": 1.0}
    limits.write_text(yaml.safe_dump(loose, sort_keys=False))
    (project / "src/flight_delays/helper.py").write_text("HOURS = 1\n")
    features = project / "src/flight_delays/features.py"
    features.write_text(
        features.read_text()
        .replace("import pandas as pd\n", "import pandas as pd\n\nfrom .helper import HOURS\n")
        .replace("values.dt.hour +", "values.dt.hour // HOURS +")
    )
    arguments = yaml.safe_load((project / "params.yaml").read_text())["model"]["arguments"]
    set_params(project, model__arguments=arguments | {"max_iter": 10}, data__through="2013-02")
    step(project, "retrain")
    commit(project)
    for version, (name, (old, new, first)) in enumerate(EDITS.items(), start=2):
        path = project / name
        text = path.read_text()
        assert old in text, name
        path.write_text(text.replace(old, new, 1))
        commit(project)
        said = step(project, "retrain").stderr
        assert "code or settings changed" in said, name
        assert gate(project)["challenger"]["version"] == version, name
        ran = [stage for stage in STAGES if f"\n{stage}: " in said]
        assert ran[0] == first and "train" in ran, (name, ran)
        commit(project)
    (project / "README.md").write_text("Ours.\n")
    commit(project)
    assert "nothing to do: no trigger fired" in step(project, "retrain").stderr


BLANK = """
import pandas as pd
frame = pd.read_parquet("data/raw/2013-04.parquet")
late = frame["scheduled_departure"] >= "2013-04-25"
frame.assign(late=frame["late"].where(~late)).to_parquet("data/raw/2013-04.parquet", index=False)
"""


def labels_that_come_late(project):
    """They change only the rows held out: that is decided anew, and learnt; then the trigger is silent."""
    batch = project / "data/raw/2013-04.parquet"
    whole, before = batch.read_bytes(), gate(project)
    run(project / ".venv/bin/python", "-c", BLANK, cwd=project)
    for rows in ("fewer", "all"):
        commit(project)
        said = step(project, "retrain").stderr
        assert "replaced: 2013-04.parquet" in said, rows
        decision = gate(project)
        assert decision["decision"] == "promoted", rows
        assert (decision["holdout"]["rows"] < before["holdout"]["rows"]) is (rows == "fewer")
        assert "no trigger fired" in step(project, "retrain").stderr
        batch.write_bytes(whole)


# A batch in DVC's cache, with its modes: DVC takes it for what its name says.
CHANGE_CACHE = """
import filecmp, shutil
from pathlib import Path
import pandas as pd
batch = Path("data/raw/2013-02.parquet")
files = (path for path in Path(".dvc/cache/files").rglob("*") if path.is_file())
(kept,) = (path for path in files if filecmp.cmp(path, batch, shallow=False))
shutil.copy2(kept, "../original")
Path("../changed").write_text(str(kept.resolve()))
frame = pd.read_parquet(kept)
kept.chmod(0o644)
frame.assign(carrier=frame["carrier"].sample(frac=1, random_state=0).to_numpy()).to_parquet(kept)
kept.chmod(0o444)
"""


def reproduced_after_a_squash(project):
    """Lineage and reproduction do without the commit; a version that differs is told."""
    version = str(gate(project)["challenger"]["version"])
    said = step(project, "lineage").stderr
    for words in (
        "(in this repository)",
        "2013-01.parquet",
        "version 1",
        "train ",
        "data/extracted",
    ):
        assert words in said, words
    commit(project)
    for command in (
        ("checkout", "-q", "--orphan", "squashed"),
        ("commit", "-q", "--no-verify", "-m", "test: squashed"),
        ("branch", "-q", "-D", "main"),
        ("branch", "-q", "-m", "main"),
        ("reflog", "expire", "--expire=now", "--all"),
        ("gc", "-q", "--prune=now"),
    ):
        run("git", *command, cwd=project, **IDENTITY)
    assert "not in this repository" in step(project, "lineage", "--version", version).stderr
    step(project, "pipeline")  # the cache is what reproduction may use; the state stays as it is
    before = run("git", "status", "--porcelain", cwd=project).stdout
    assert f"version {version} is reproduced" in step(project, "reproduce").stderr
    assert run("git", "status", "--porcelain", cwd=project).stdout == before
    run(project / ".venv/bin/python", "-c", CHANGE_CACHE, cwd=project)
    told = step(project, "reproduce", check=False)
    assert told.returncode == 1
    assert "is not reproduced: " in told.stderr
    (project.parent / "original").replace((project.parent / "changed").read_text())
    changed_in_the_store(project)
    code = """
from flight_delays.experiment import registry, tracking
client = tracking.connect()
version = registry.find_version(client, "flight-delays", "champion")
judged = tracking.find_run(version.run_id).data.tags["judged_run"]
client.log_metric(judged, "test_brier", client.get_run(judged).data.metrics["test_brier"] + 1e-15)
"""
    run(project / ".venv/bin/python", "-c", code, cwd=project)
    told = step(project, "reproduce", check=False)
    assert told.returncode == 1
    assert "is not reproduced: brier" in told.stderr
    hand = step(project, "reproduce", "--version", "1", check=False)
    assert "is not the pipeline's" in hand.stderr


def changed_in_the_store(project):
    """Of the files that a run keeps none is used that is not the one that was logged."""
    for name, command in {
        "code.zip": "reproduce",
        "params.yaml": "reproduce",
        "dvc.lock": "lineage",
        "batches.json": "lineage",
        "gate.json": "lineage",
    }.items():
        found = list(project.glob(f"mlartifacts/**/{name}"))
        before = [path.read_bytes() for path in found]
        assert found, name
        for path, content in zip(found, before, strict=True):
            path.write_bytes(content + b"\n")
        told = step(project, command, check=False)
        for path, content in zip(found, before, strict=True):
            path.write_bytes(content)
        assert told.returncode == 1
        assert f"its file {name} is refused: it is not the one that was logged" in told.stderr


def test_a_conflict_in_dvc_lock(make_project, batches, tmp_path):
    """One branch has a new month, the other a new recipe; the paragraph of the README mends the merge."""
    project = make_project(maturity_level="1")
    sample(project, batches)
    params, may = project / "params.yaml", project / "data/raw/2013-05.parquet"
    shutil.move(may, tmp_path)
    step(project, "pipeline")
    commit(project)
    run("git", "checkout", "-q", "-b", "other", cwd=project)
    params.write_text(params.read_text().replace("through: 2013-03", "through: 2013-05"))
    shutil.move(tmp_path / may.name, may)
    step(project, "pipeline")
    commit(project)
    run("git", "checkout", "-q", "main", cwd=project)
    params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    may.unlink()
    step(project, "pipeline")
    commit(project)
    merge = run("git", "merge", "-q", "other", cwd=project, check=False, **IDENTITY)
    assert merge.returncode
    assert "dvc.lock" in run("git", "diff", "--name-only", "--diff-filter=U", cwd=project).stdout
    readme = (project / "README.md").read_text()
    told = readme.split("A conflict in `dvc.lock`")[1].split("```console")[1].split("```")[0]
    for line in told.strip().splitlines():
        run("bash", "-ec", line.strip(), cwd=project, **IDENTITY)
    assert may.exists()
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert "2013-05" in (project / "reports/validation.json").read_text()


@pytest.mark.nightly  # by day each half of it has a test of its own
def test_own_data_without_time_in_a_larger_repository(tmp_path, environment, batches):
    """CSV with semicolons, no time column, the project a folder of a repository."""
    run("git", "init", "-q", cwd=tmp_path)
    (tmp_path / "README.md").write_text("the company's\n")
    project = attach(generate(tmp_path, maturity_level="1"), environment)
    code = """
import pandas as pd
from pathlib import Path
Path("data/raw").mkdir(parents=True)
for month in ("2013-01", "2013-02", "2013-03"):
    frame = pd.read_parquet(f"{source}/{month}.parquet").sample(3000, random_state=0)
    frame = frame.drop(columns="scheduled_departure").dropna(subset="late")
    frame["late"] = frame["late"].map({True: "ja", False: "nein"})
    frame.to_csv(f"data/raw/{month}.csv", sep=";", decimal=",", index=False)
"""
    code = f"source = {str(batches)!r}\n{code}"
    run(project / ".venv/bin/python", "-c", code, cwd=project)
    path = project / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["data"] |= {"source": "data/raw/*.csv", "time": None, "through": "2013-02"}
    settings["data"]["csv"] |= {"sep": ";", "decimal": ","}
    for optional in ("id", "text", "unlabelled"):
        del settings["data"][optional]
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    commit(tmp_path)
    step(project, "retrain")
    assert gate(project)["decision"] == "promoted"
    assert gate(project)["holdout"]["from"] is None
    commit(tmp_path)
    set_params(project, data__through="2013-03")
    (tmp_path / "README.md").write_text("a colleague's change, not committed\n")
    step(project, "retrain")
    assert gate(project)["champion"] == {"version": 1}
    set_params(project, split__test=0.3)  # the same batches: the champion's recipe is fitted again
    step(project, "retrain")
    assert {"metric", "calibration"} <= {check["name"] for check in gate(project)["checks"]}
    set_params(project, data__source="data/elsewhere/*.csv")
    shutil.copytree(project / "data/raw", project / "data/elsewhere")
    refused = step(project, "pipeline", check=False)
    assert refused.returncode == 1
    assert "dvc.yaml: the stage extract does not depend on data/elsewhere" in refused.stderr
    changed = run("git", "status", "--porcelain", "--untracked-files=all", cwd=tmp_path).stdout
    assert all("flight-delays/" in line or "README.md" in line for line in changed.splitlines())


def test_without_git(tmp_path, environment, batches):
    """One sentence, not DVC's."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cookiecutter").symlink_to(BIN / "cookiecutter")
    (tmp_path / "out").mkdir()
    command = [tools / "cookiecutter", TEMPLATE, "--no-input", "-o", tmp_path / "out"]
    run(*command, "maturity_level=1", cwd=tmp_path, PATH=str(tools))
    project = attach(tmp_path / "out/flight-delays", environment)
    shutil.copytree(batches, project / "data/raw")
    for name in ("pipeline", "retrain"):
        done = step(project, name, check=False)
        assert done.returncode == 1
        assert "git init" in done.stderr.splitlines()[-1]
