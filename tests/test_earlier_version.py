"""A project of the template's version 0.1.0, whose modules lay flat, comes to this layout and lives on.

earlier/0.1.0.tar.xz is that version of the template, without the pins. The owner has edits in each of
her files and in modules of the template, a champion in MLflow, and a release that runs.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from conftest import BIN, IDENTITY, SOURCE, TEMPLATE, free_port, generate, run
from ladder import conflicts, files

pytestmark = pytest.mark.slow
EARLIER = Path(__file__).parent / "earlier/0.1.0.tar.xz"
# Before, now -> what the owner changed there.
FIGURES = "contourpy|cycler|fonttools|kiwisolver|matplotlib|pillow|pyparsing"
EDITS = {
    ("data.py", "data.py"): (
        "    data, missing = params.data,",
        '    frame = frame[frame["distance"] > 100]  # ours\n    data, missing = params.data,',
    ),
    ("features.py", "features.py"): (
        "    return pd.DataFrame(columns, index=frame.index)\n\n\nclass Tidy",
        '    columns["far"] = (frame["distance"] > 1000).astype(float)  # ours\n'
        "    return pd.DataFrame(columns, index=frame.index)\n\n\nclass Tidy",
    ),
    ("model.py", "model.py"): ("[50, 100, 200],", "[50, 100, 200, 400],  # ours"),
    ("feature_views.py", "feature_views.py"): ("Timedelta(hours=2)", "Timedelta(hours=3)"),
    ("train.py", "experiment/train.py"): (
        '    log.info("run %s: look',
        '    log.info("ours")\n    log.info("run %s: look',
    ),
    ("register.py", "experiment/register.py"): ("- Words that it", "- Ours.\n- Words that it"),
    ("continuous_training/gate.py", "continuous_training/decision/gate.py"): (
        'wrong = "every row gets the same prediction"',
        'wrong = "every row gets the same prediction"  # ours',
    ),
}
SAMPLE = """
import pandas as pd
for month in ("2013-01", "2013-02", "2013-03"):
    table = pd.read_parquet("{batches}/" + month + ".parquet").sample(2500, random_state=0)
    table.sort_index().to_parquet("data/raw/" + month + ".parquet", index=False)
"""
SCORED_BY = """
import pandas as pd
print(set(pd.read_parquet("predictions/march.parquet")["model_version"].tolist()))
"""


@pytest.fixture
def project(tmp_path: Path, environment: Path, batches: Path) -> Path:
    """A project of the earlier version with the owner's edits and three small months, committed."""
    template = tmp_path / "earlier"
    template.mkdir()
    with tarfile.open(EARLIER) as archive:
        archive.extractall(template, filter="data")
    shutil.copytree(SOURCE / "requirements", template / SOURCE.name / "requirements")
    # Its service imported matplotlib, which is not in the image any more.
    pins = (SOURCE / "requirements/experiment.txt").read_text()
    with (template / SOURCE.name / "requirements/service.txt").open("a") as service:
        service.writelines(re.findall(rf"^(?:{FIGURES})==(?:.*\\\n)+.*\n", pins, re.M))
    git = {"cwd": template, **IDENTITY}
    run("git", "init", "-q", **git)
    run("git", "add", "--all", **git)
    run("git", "commit", "-q", "-m", "version 0.1.0", **git)
    command = [BIN / "cookiecutter", template, "--no-input", "-o", tmp_path, "maturity_level=2"]
    run(*command, cwd=tmp_path)
    project = tmp_path / "flight-delays"
    for (name, _), (old, new) in EDITS.items():
        change(project / "src/flight_delays" / name, old, new)
    change(project / "params.yaml", "max_iter: 100", "max_iter: 20")
    settings = yaml.safe_load((project / "delivery.yaml").read_text())
    for place in settings["environments"].values():
        place["port"] = free_port()
    (project / "delivery.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (project / "data/raw").mkdir(parents=True)
    run("cp", "-al", environment, ".venv", cwd=project)
    run(".venv/bin/python", "-c", SAMPLE.format(batches=batches), cwd=project)
    commit(project)
    return project


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, path
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def commit(project: Path) -> None:
    run("git", "add", "--all", cwd=project)
    run("git", "commit", "-q", "--no-verify", "-m", "feat: ours", cwd=project, **IDENTITY)


def make(project: Path, *words: str) -> str:
    done = run("make", *words, cwd=project, **IDENTITY)
    return done.stdout + done.stderr


def install(project: Path) -> None:
    run("uv", "pip", "install", "-q", "-p", ".venv", "--no-deps", "-e", ".", cwd=project)


def test_an_earlier_project_follows_the_new_layout(project, tmp_path):
    install(project)
    assert "promoted: version 1" in make(project, "retrain")
    commit(project)
    try:
        before = make(project, "deploy", "ENV=dev")
        assert "dev: version 1 in" in before
        make(project, "upgrade", "LEVEL=2", f"TEMPLATE={TEMPLATE}")
        assert not conflicts(project)
        commit(project)
        install(project)
        is_as_new(project, tmp_path)
        make(project, "lint")
        goes_on(project)
    finally:
        make(project, "deploy", "ENV=dev", "STOP=1")


def is_as_new(project: Path, folder: Path) -> None:
    """It is a project of this version, and the owner's edits are in it."""
    (folder / "new").mkdir()
    fresh = files(generate(folder / "new", maturity_level="2"))
    upgraded = files(project)
    package = "src/flight_delays"
    edited = {f"{package}/{new}" for _, new in EDITS} | {"params.yaml", "delivery.yaml"}
    assert {name for name in fresh if upgraded.get(name) != fresh[name]} == edited
    kept = {name for name in upgraded if name not in fresh}
    assert not [name for name in kept if name.startswith("src/")]
    for (_, name), (old, new) in EDITS.items():
        line = next(line for line in new.splitlines() if line not in old)
        assert line in (project / package / name).read_text(encoding="utf-8"), name


def goes_on(project: Path) -> None:
    """The old champion scores, serves beside its old release, and is what the gate compares with."""
    make(project, "predict", "INPUT=data/raw/2013-03.parquet", "OUTPUT=predictions/march.parquet")
    assert run(".venv/bin/python", "-c", SCORED_BY, cwd=project).stdout.strip() == "{1}"
    old = json.loads((project / ".delivery/dev.json").read_text())["image"]
    assert "dev: version 1 in" in make(project, "deploy", "ENV=dev", "VERSION=1")
    assert json.loads((project / ".delivery/dev.json").read_text())["image"] != old
    assert "dev: version 1 in" in make(project, "deploy", "ENV=dev", "VERSION=1", f"DIGEST={old}")
    decided = make(project, "retrain")
    assert "code or settings changed since version 1" in decided
    decision = json.loads((project / "reports/gate.json").read_text())
    assert decision["champion"] == {"version": 1}
    assert decision["challenger"]["version"] == 2
