"""A generated project's own commands, as its README gives them to a newcomer."""

import contextlib
import fcntl
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import (
    BATCHES,
    CACHE,
    CLEAN,
    IDENTITY,
    SOURCE,
    TEMPLATE,
    attach,
    free_port,
    generate,
    run,
)

pytestmark = pytest.mark.slow
CHOSEN = [("regression", "0"), ("classification", "2")]
OTHERS = [
    ("classification", "0"),
    ("regression", "1"),
    ("classification", "1"),
    ("regression", "2"),
]
PROJECTS = CHOSEN + [pytest.param(other, marks=pytest.mark.nightly) for other in OTHERS]


@contextlib.contextmanager
def default_ports() -> Iterator[None]:
    """Those of delivery.yaml are one test's at a time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def commands(readme: Path) -> list[str]:
    """The lines of its ```bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module", params=PROJECTS, ids="-".join)
def project(request, tmp_path_factory, environment) -> Path:
    task, level = request.param
    folder = tmp_path_factory.mktemp(f"{task}-{level}")
    return attach(generate(folder, task=task, maturity_level=level), environment)


def test_readme_word_for_word(project):
    """Every command of the README runs, in its order; what it promises is there afterwards."""
    lines = commands(project / "README.md")
    assert lines[0] == "make setup"
    with default_ports():
        for line in lines[1:]:
            run("bash", "-ec", line, cwd=project, **IDENTITY)
    for file in ("reports/model-card-v1.md", "reports/calibration.png", "mlflow.db"):
        assert (project / file).exists(), file
    assert list((project / "predictions").iterdir())
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def test_lint_and_tests(project):
    run("make", "lint", cwd=project)
    done = run("make", "test", cwd=project)
    assert re.search(r"\d+ passed", done.stdout)
    assert "failed" not in done.stdout
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def test_help_lists_every_target(project):
    listed = run("make", cwd=project).stdout
    fragments = [project / "Makefile", *project.glob("make/*.mk")]
    targets = re.findall(r"^([a-z]+):", "\n".join(f.read_text() for f in fragments), re.M)
    assert set(re.findall(r"^  make ([a-z]+)", listed, re.M)) == set(targets)


def test_missing_setup_is_told(tmp_path):
    done = run("make", "train", cwd=generate(tmp_path), check=False)
    assert done.returncode
    assert "make setup" in done.stderr


def test_hooks_guard_a_commit(make_project):
    """Style is mended, outputs are stripped, a secret and a large file are stopped."""
    project = make_project(maturity_level="1")
    run(".venv/bin/pre-commit", "install", cwd=project)
    run(".venv/bin/pre-commit", "run", "--all-files", cwd=project)

    def commit(*files: str, check: bool = False):
        run("git", "add", *files, cwd=project)
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        return run("git", *identity, "commit", "-qm", "test: try", cwd=project, check=check)

    notebook = project / "notebooks/01-explore.ipynb"
    clean = notebook.read_text()
    notebook.write_text(
        clean.replace(
            '"outputs": []',
            '"outputs": [{"output_type": "stream", "name": "stdout", "text": ["x"]}]',
            1,
        )
    )
    assert commit("notebooks").returncode
    assert notebook.read_text() == clean
    run("git", "add", "notebooks", cwd=project)
    key = "AKIA" + "QWERTYUIOPASDFGH"
    (project / "conf.py").write_text(f'KEY = "{key}"\n')
    assert "secrets" in (refused := commit("conf.py")).stdout + refused.stderr
    run("git", "rm", "-q", "--cached", "conf.py", cwd=project)
    (project / "big.bin").write_bytes(os.urandom(700_000))
    assert "large" in (refused := commit("big.bin")).stdout + refused.stderr
    run("git", "rm", "-q", "--cached", "big.bin", cwd=project)
    (project / "ugly.py").write_text("import os\nx = {  'a':1 }\n")
    assert "ruff" in (refused := commit("ugly.py")).stdout + refused.stderr
    assert (project / "ugly.py").read_text() == 'x = {"a": 1}\n'
    commit("ugly.py", check=True)


def bare_path(folder: Path, python: str) -> str:
    """A PATH with Python, git, make and the shell's own tools: no uv, no other Python."""
    folder.mkdir()
    tools = (
        "awk bash basename cat chmod cp dirname env expr git id ln ls make mkdir mktemp mv rm sed"
    )
    tools += " sh sort test touch tr uname which readlink"
    for tool in tools.split():
        if place := shutil.which(tool):
            (folder / tool).symlink_to(place)
    (folder / "python3").symlink_to(python)
    return str(folder)


def setup_and_loop(project: Path, path: str) -> None:
    env = {key: value for key, value in CLEAN.items() if key != "PATH"}
    done = run(
        "env",
        "-i",
        *(f"{k}={v}" for k, v in env.items()),
        f"PATH={path}",
        "make",
        "setup",
        cwd=project,
    )
    assert "ready" in done.stdout
    shutil.copytree(BATCHES, project / "data/raw")
    for target in ("train", "evaluate", "register"):
        run("make", target, cwd=project)


def test_setup_with_nothing_but_python(tmp_path, batches):
    """`make setup` brings uv itself, from the pins, and the loop works."""
    (tmp_path / "bare").mkdir()
    project = generate(tmp_path / "bare")
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    setup_and_loop(project, bare_path(tmp_path / "bin", str(base)))
    assert (project / ".venv/bin/uv").exists()


@pytest.mark.nightly
def test_pip_alone(tmp_path, batches):
    """The README's way without make: pip, with hashes, from the same files."""
    (tmp_path / "pip").mkdir()
    project = generate(tmp_path / "pip")
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    run(base, "-m", "venv", ".venv", cwd=project)
    pip = (".venv/bin/python", "-m", "pip", "install", "-q")
    files = ("-r", "requirements/experiment.txt", "-r", "requirements/example.txt")
    run(*pip, "--require-hashes", *files, cwd=project)
    run(*pip, "--no-deps", "-e", ".", cwd=project)
    shutil.copytree(batches, project / "data/raw")
    run(".venv/bin/python", "-m", "flight_delays", "train", cwd=project)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_pins_resolve_on_each_python(minor, tmp_path):
    """Each supported Python has a file with a known hash for every pin."""
    for file in sorted(SOURCE.glob("requirements/*.txt")):
        only = [] if file.name == "example.txt" else ["--only-binary", ":all:"]
        if file.name == "continuous_training.txt":  # of DVC's, and pure Python
            only += ["--no-binary", "antlr4-python3-runtime"]
        run(
            "uv",
            "pip",
            "install",
            "-q",
            "--dry-run",
            "--require-hashes",
            "--no-deps",
            *only,
            "--python-version",
            f"3.{minor}",
            "--target",
            tmp_path / "x",
            "-r",
            file,
            cwd=tmp_path,
        )


def test_an_odd_name_goes_the_whole_way(make_project, batches):
    """Accents, an apostrophe, a percent sign, braces and a dollar: installed, trained, registered."""
    title = "L'Été à Nîmes: 100% {late} $HOME <b>"
    project = make_project(
        project_name=title, description=f"{title} & {{x}}", author_name="Zoë O'Hara"
    )
    shutil.copytree(batches, project / "data/raw")
    run("make", "lint", "train", "evaluate", "register", cwd=project)
    card = (project / "reports/model-card-v1.md").read_text(encoding="utf-8")
    assert html.escape(title, quote=False) in card
    assert card.startswith(f"# {project.name}, version 1")


def test_serving_answers_as_predicting(make_project, batches, tmp_path):
    """MLflow's server, started by the step, gives what the batch prediction gives."""
    project = make_project()
    shutil.copytree(batches, project / "data/raw")
    run("make", "train", "evaluate", "register", cwd=project)
    code = """
import sys, pandas as pd
rows = pd.read_parquet("data/raw/2013-04.parquet").head(50)
rows.to_parquet("rows.parquet")
rows.to_json("rows.json", orient="split", index=False, date_format="iso")
"""
    python = project / ".venv/bin/python"
    run(python, "-c", code, cwd=project)
    run("make", "predict", "INPUT=rows.parquet", "OUTPUT=scores.parquet", cwd=project)
    code = 'import pandas as pd; print(pd.read_parquet("scores.parquet")["probability_True"].to_list())'
    expected = json.loads(run(python, "-c", code, cwd=project).stdout)
    port = free_port()
    command = [str(python), "-m", "flight_delays", "serve", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=project, env=CLEAN, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{address}/ping", timeout=2).status == 200:
                    break
            assert time.monotonic() < until, (tmp_path / "server.log").read_text()
            time.sleep(0.3)
        body = b'{"dataframe_split": ' + (project / "rows.json").read_bytes() + b"}"
        request = urllib.request.Request(f"{address}/invocations", body)
        request.add_header("Content-Type", "application/json")
        answer = json.load(urllib.request.urlopen(request, timeout=30))["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(30) == 0, "an interrupted server is no error"
    assert [row[1] for row in answer] == pytest.approx(expected, abs=1e-12)


FOUND = {
    "0": ("reports/model-card-v1.md", "reports/calibration.png", "predictions/2013-04.parquet"),
    "1": ("reports/decision.md", "reports/drift.html", "data/quarantine/", "dvc.yaml"),
    "2": ("reports/deployment-production.md", "reports/deployment-dev.md", "delivery.yaml"),
}


@pytest.mark.parametrize(
    "level", ["0", *(pytest.param(level, marks=pytest.mark.nightly) for level in "12")]
)
def test_the_demo(level, tmp_path):
    """`make demo` makes a project and runs its loop; a demo that was edited is not deleted."""
    demo = ("make", "demo", f"LEVEL={level}", f"DEMO={tmp_path}/demo", "UNTIL=2013-05")
    with default_ports():
        done = run(*demo, cwd=TEMPLATE)
    project = tmp_path / f"demo/level-{level}/flight-delays"
    for file in (*FOUND[level], "README.md"):
        assert file in done.stdout
        assert (project / file).exists()
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    if level == "1":
        table = done.stdout.split("what happened")[1]
        decisions = [line.split()[-1] for line in table.splitlines()[1:5]]
        assert decisions[0] == "promoted"
        assert decisions[2] == "quarantined"
        assert len(decisions) == 4  # the first model; April; May, broken and whole
    if level == "2":
        dev, production = ((project / file).read_text() for file in reversed(FOUND["2"][:2]))
        assert dev.startswith("# rolled back: dev, version 1")
        assert production.startswith("# deployed: production, version 1")
        assert re.search(r'\{"version":1,.*"image":"sha256:', done.stdout)
    (project / "mine.txt").write_text("keep me")
    refused = run(*demo, cwd=TEMPLATE, check=False)
    assert refused.returncode
    assert "was edited" in refused.stderr
    assert (project / "mine.txt").exists()
