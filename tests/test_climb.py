"""Every step of docs/upgrading.md at every pair of levels, with the git hooks at work.

The project has a real environment and real hooks; `make setup` is the real one throughout, and takes
what it needs from the environment that is linked in.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run
from ladder import conflicts, recorded
from test_commands import default_ports

pytestmark = pytest.mark.slow
PAIRS = ["01", "02", "12", "21", "10", "20"]
HOOKS = ["ruff", "format", "no outputs in notebooks", "no secrets", "no large files", "YAML"]
# What a level is there for; the last ends what the others leave running.
MAIN = {
    "0": ["train evaluate register"],
    "1": ["retrain"],
    "2": ["retrain", "build", "deploy ENV=dev", "deploy ENV=dev STOP=1"],
}


@pytest.fixture
def setup(environment) -> Callable[[Path], Path]:
    """`make setup` in a project, from an environment that is there."""

    def setup(project: Path) -> Path:
        if not (project / ".venv").exists():
            run("cp", "-al", environment, project / ".venv", cwd=project)
        run("make", "setup", cwd=project)
        return project

    return setup


def make(ladder, project: Path, words: str, code: int = 0) -> str:
    """What a command says; make turns the 1 of a command into its own 2."""
    done = ladder.run("make", *words.split(), cwd=project)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def commit(ladder, project: Path, *options: str, hooks: list[str] = HOOKS) -> str:
    """What a commit says whose hooks have run and let it pass."""
    done = ladder.run("git", "commit", *options, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    for hook in hooks:
        assert re.search(rf"^ *{hook}\.+(Passed|.*Skipped)$", done.stderr, re.M), done.stderr
    assert ladder.git(project, "status", "--porcelain") == ""
    return done.stderr


def plant(project: Path) -> None:
    """The owner's own words where each level has others."""
    text = (project / "README.md").read_text(encoding="utf-8")
    start, _, rest = text.partition("<!-- level:start -->\n")
    assert rest
    end = rest.partition("<!-- level:end -->")[2]
    text = f"{start}<!-- level:start -->\nMy own words.\n<!-- level:end -->{end}"
    (project / "README.md").write_text(text, encoding="utf-8")


def resolve(ladder, project: Path) -> None:
    """Keep both sides of each conflict."""
    for name in conflicts(project):
        text = (project / name).read_text(encoding="utf-8")
        text = re.sub(r"^(<<<<<<< yours|=======|>>>>>>> level-\d)\n", "", text, flags=re.M)
        (project / name).write_text(text, encoding="utf-8")
        ladder.git(project, "add", name)


def climb(ladder, stock, setup, pair: str) -> Path:
    """docs/upgrading.md, line by line, to the commit."""
    old, new = pair
    project = setup(stock.project(ladder, old))
    plant(project)
    ladder.git(project, "add", "README.md")
    commit(ladder, project, "-m", "docs: our own words")
    make(ladder, project, f"upgrade LEVEL={new} DRY_RUN=1", code=2)
    assert ladder.git(project, "status", "--porcelain") == ""
    said = make(ladder, project, f"upgrade LEVEL={new}", code=2)
    assert "conflict in README.md: changed by you and by the template" in said
    assert conflicts(project) == {"README.md": "123"}
    setup(project)
    refused = ladder.run("git", "commit", "--no-edit", cwd=project)
    assert refused.returncode, "the conflict is not resolved"
    resolve(ladder, project)
    commit(ladder, project, "--no-edit")
    assert len(ladder.git(project, "log", "-1", "--format=%P").split()) == 1
    assert "My own words." in (project / "README.md").read_text(encoding="utf-8")
    assert recorded(project)["default_context"]["maturity_level"] == new
    assert "nothing to do" in make(ladder, project, f"upgrade LEVEL={new}")
    return project


@pytest.mark.parametrize("pair", PAIRS)
def test_every_climb_can_be_committed(ladder, stock, setup, pair):
    project = climb(ladder, stock, setup, pair)
    make(ladder, project, "lint")


@pytest.mark.nightly
@pytest.mark.parametrize("pair", PAIRS)
def test_every_climb_works(ladder, stock, setup, batches, pair):
    """The project's own tests and the level's main command, after the climb."""
    project = climb(ladder, stock, setup, pair)
    run("make", "lint", "test", cwd=project)
    shutil.copytree(batches, project / "data/raw", dirs_exist_ok=True)
    with default_ports():
        for words in MAIN[pair[1]]:
            run("make", *words.split(), cwd=project)


@pytest.mark.parametrize("level", "012")
def test_a_first_commit_a_push_and_a_clone(ladder, stock, setup, level):
    """A repository of the owner's own: its first commit has every file, and passes the hooks."""
    project = stock.project(ladder, level)
    shutil.rmtree(project / ".git")
    ladder.git(project, "init", "-q")
    setup(project)
    ladder.git(project, "add", "--all")
    said = commit(ladder, project, "-m", "feat: our project")
    assert "Skipped" not in said
    server, clone = ladder.folder / "server.git", ladder.folder / "elsewhere/flights"
    ladder.git(ladder.folder, "init", "-q", "--bare", server)
    ladder.git(project, "push", "-q", server, "HEAD:main")
    ladder.git(ladder.folder, "clone", "-q", server, clone)
    setup(clone)
    assert ladder.git(clone, "status", "--porcelain") == ""
    plant(clone)
    ladder.git(clone, "add", "README.md")
    commit(ladder, clone, "-m", "docs: our own words")
    make(ladder, clone, "lint")
    other = "1" if level == "0" else "0"
    make(ladder, clone, f"upgrade LEVEL={other}", code=2)
    ladder.git(clone, "merge", "--abort")
