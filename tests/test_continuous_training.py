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


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_champion_of_level_0_is_the_first_to_beat(task, make_project, batches):
    """After the climb runs, models and aliases are there; a worse challenger is refused for it."""
    project = make_project(task=task)
    sample(project, batches)
    run("make", "train", "evaluate", "register", cwd=project)
    before = {p: p.read_bytes() for p in project.glob("mlartifacts/**/*") if p.is_file()}
    run("make", "upgrade", "LEVEL=1", f"TEMPLATE={TEMPLATE}", cwd=project)
    run("git", "commit", "-q", "--no-edit", "--no-verify", cwd=project, **IDENTITY)
    run("make", "setup", "lint", *(["test"] if task == "classification" else []), cwd=project)
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
    if gate(project)["decision"] == "promoted":
        assert "nothing to do" in step(project, "retrain").stderr
        assert "version 1 is the champion again" in step(project, "rollback").stderr
        assert "was rolled back" in step(project, "retrain").stderr


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
