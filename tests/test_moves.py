"""Folders that the owner moved, and a package with another name."""

import re
from pathlib import Path

import pytest
from conftest import run
from ladder import conflicts, files, recorded, snapshot
from test_climb import commit, make, setup  # noqa: F401 (a fixture)


@pytest.fixture
def project(ladder, stock) -> Path:
    """A fresh project of level 1: all that level 2 brings into the package is in a new folder."""
    return stock.project(ladder, "1")


def move(ladder, project: Path, folder: str, to: str) -> None:
    (project / to).parent.mkdir(parents=True, exist_ok=True)
    ladder.git(project, "mv", folder, to)
    ladder.commit(project)


@pytest.mark.parametrize(
    ("folder", "to", "left"),
    [
        ("src/flight_delays", "src/fd", None),
        ("src/flight_delays", "src/fd", "__init__.py"),
        ("src/flight_delays", "lib/ml/fd", None),
        ("src", "lib", None),
        ("tests", "checks", None),
    ],
    ids=["package", "with something left", "elsewhere", "above", "tests"],
)
def test_new_files_come_into_the_folder_that_was_moved(ladder, stock, project, folder, to, left):
    """As conflicts, so that nobody overlooks them; where the folder was, nothing new appears."""
    move(ladder, project, folder, to)
    if left:
        (project / folder).mkdir(parents=True)
        (project / folder / left).write_text(f"from {Path(to).name} import *\n")
        ladder.commit(project)
    before = snapshot(project)
    done = ladder.engine(project, "2")
    assert done.returncode == 1
    new = [name for name in stock.only(2) if name.startswith(f"{folder}/")]
    places = {to + name[len(folder) :] for name in new}
    assert new
    assert {p for p, stages in conflicts(project).items() if stages == "3"} == places
    for place in places:
        assert f"conflict in {place}: new or moved by the template" in done.stdout
        assert (project / place).is_file()
    assert not any((project / name).exists() for name in new)
    ladder.git(project, "merge", "--abort")
    assert snapshot(project) == before
    ladder.engine(project, "2")
    ladder.git(project, "add", "--all")
    ladder.git(project, "commit", "-q", "--no-edit")
    assert "nothing to do" in ladder.engine(project, "2").stdout


def test_a_place_that_is_taken(ladder, stock, project):
    """The owner's file stays, the new one is where the template has it, as a conflict."""
    move(ladder, project, "src/flight_delays", "src/fd")
    (project / "src/fd/delivery/release").mkdir(parents=True)
    (project / "src/fd/delivery/release/build.py").write_text("MINE = 1\n")
    ladder.commit(project)
    done = ladder.engine(project, "2")
    assert "conflict in src/flight_delays/delivery/release/build.py" in done.stdout
    assert (project / "src/fd/delivery/release/build.py").read_text() == "MINE = 1\n"
    assert (project / "src/flight_delays/delivery/release/build.py").exists()
    assert (project / "src/fd/delivery/release/deploy.py").exists()


def test_a_file_that_moved_alone_moves_nothing_else(ladder, stock, project):
    move(
        ladder,
        project,
        "src/flight_delays/experiment/plots.py",
        "src/flight_delays/charts/plots.py",
    )
    assert ladder.engine(project, "2").returncode == 0
    assert (project / "src/flight_delays/delivery/release/build.py").exists()


def says(project: Path, name: str) -> set[str]:
    """The files of git's that have a name as a word."""
    texts = {path: content for path, (_, content) in files(project).items()}
    return {p for p, text in texts.items() if re.search(rb"\b%s\b" % name.encode(), text)}


def test_a_package_that_the_owner_renamed(ladder, project):
    """Every file that still says the old name is named; PACKAGE tells the template the new one."""
    move(ladder, project, "src/flight_delays", "src/fd")
    for name in says(project, "flight_delays") - {"README.md"}:
        path = project / name
        path.write_text(path.read_text().replace("flight_delays", "fd"))
    ladder.commit(project)
    done = ladder.engine(project, "2")
    assert done.returncode == 1
    assert "make upgrade PACKAGE=fd" in done.stdout
    told = re.findall(r"^  (.+) still says flight_delays$", done.stdout, re.M)
    assert "README.md" in told
    assert "tests/delivery/test_deploy.py" in told
    assert set(told) == says(project, "flight_delays")
    ladder.git(project, "merge", "--abort")
    done = ladder.engine(project, "2", "--package", "fd")
    assert done.returncode == 0, done.stdout
    assert says(project, "flight_delays") == set()
    assert not (project / "src/flight_delays").exists()
    assert recorded(project)["default_context"]["package_name"] == "fd"


def test_another_name_for_the_package(ladder, stock, project):
    """The project is as one that was generated with that name, and the owner's work is in it."""
    done = ladder.engine(project, "2", "--package", "fd")
    assert done.returncode == 0, done.stderr
    assert "package flight_delays -> fd" in done.stdout
    assert "no longer offered" not in done.stdout
    fresh = ladder.generate(output=ladder.folder, maturity_level="2", package_name="fd")
    assert files(project) == files(fresh)
    assert recorded(project) == recorded(fresh)
    ladder.git(project, "merge", "--abort")
    package = project / "src/flight_delays"
    (package / "mine").mkdir()
    (package / "mine/own.py").write_text(
        "import flight_delays\nfrom flight_delays.data import split\n\nNAME = 'flight_delays'\n"
    )
    (package / "mine/raw.bin").write_bytes(b"flight_delays\0\xff")
    text = (package / "experiment/train.py").read_text()
    (package / "experiment/train.py").write_text(text + "\n# mine\n")
    (project / "run.sh").write_text("python -m flight_delays train\nruff check src/flight_delays\n")
    (project / "LICENSE").unlink()
    ladder.commit(project)
    before = snapshot(project)
    done = ladder.engine(project, "2", "--package", "fd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "src/fd/mine/own.py still says flight_delays\n" in done.stdout
    own = "import fd\nfrom fd.data import split\n\nNAME = 'flight_delays'\n"
    assert (project / "src/fd/mine/own.py").read_text() == own
    assert (project / "src/fd/mine/raw.bin").read_bytes() == b"flight_delays\0\xff"
    assert (project / "src/fd/experiment/train.py").read_text().endswith("\n# mine\n")
    assert (project / "run.sh").read_text() == "python -m fd train\nruff check src/fd\n"
    assert not (project / "src/flight_delays").exists()
    assert not (project / "LICENSE").exists()
    ladder.git(project, "merge", "--abort")
    assert snapshot(project) == before
    ladder.engine(project, "2", "--package", "fd")
    ladder.git(project, "commit", "-q", "--no-edit")
    for options in (["--package", "fd"], []):
        assert "nothing to do" in ladder.engine(project, "2", *options).stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("9x", "cannot be imported"),
        ("numpy", "hide an installed package"),
        ("fd", "is there"),
        ("free", "git does not track src/flight_delays/new.py"),
    ],
)
def test_a_name_that_cannot_be_is_refused(ladder, project, name, said):
    (project / "src/fd").mkdir()
    (project / "src/fd/data.py").write_text("MINE = 1\n")
    ladder.commit(project)
    if name == "free":
        (project / "src/flight_delays/new.py").write_text("MINE = 1\n")
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "2", "--package", name)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(project, repository=True) == before


@pytest.mark.slow
def test_the_new_name_is_at_work(ladder, stock, setup):  # noqa: F811
    """`make upgrade PACKAGE=fd`, set up, committed with the hooks; its commands and tests run."""
    project = setup(stock.project(ladder))
    make(ladder, project, "upgrade PACKAGE=fd LEVEL=1")
    setup(project)
    commit(ladder, project, "--no-edit")
    make(ladder, project, "lint")
    run(".venv/bin/pytest", "tests/test_features.py", cwd=project)
    assert "retrain" in ladder.run(".venv/bin/python", "-m", "fd", "--help", cwd=project).stdout
    assert "nothing to do" in make(ladder, project, "upgrade")
