"""Upgrades with the real cookiecutter and the real git: every row of what a project must get."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN
from ladder import IDENTITY, LINE, RECORD, Ladder, conflicts, files, recorded, snapshot

TASKS = ["classification", "regression"]
ENTRIES: dict[str, Callable] = {"cookiecutter": Ladder.plain, "engine": Ladder.engine}
ABORTED = "git merge --abort"
# One way is enough where both go the same way: cookiecutter ends in the engine.
BY_COOKIECUTTER = pytest.mark.parametrize("entry", [Ladder.plain], ids=["cookiecutter"])
BY_ENGINE = pytest.mark.parametrize("entry", [Ladder.engine], ids=["engine"])


@pytest.fixture(params=ENTRIES)
def entry(request) -> Callable:
    """Either way to upgrade: (ladder, project, level, *options)."""
    return ENTRIES[request.param]


@pytest.fixture
def project(ladder, stock) -> Path:
    """A fresh project of level 0."""
    return stock.project(ladder)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def append(path: Path, text: str) -> None:
    write(path, path.read_text(encoding="utf-8") + text)


def staged(ladder: Ladder, project: Path, stage: int, name: str) -> str:
    return ladder.git(project, "cat-file", "blob", f":{stage}:{name}")


def aborts(ladder: Ladder, project: Path, before: dict) -> None:
    """`git merge --abort` brings back the very files of before."""
    ladder.git(project, "merge", "--abort")
    assert snapshot(project) == before
    assert ladder.git(project, "status", "--porcelain") == ""


# Untouched projects, up and down


@pytest.mark.parametrize("task", TASKS)
def test_untouched_becomes_a_fresh_project_of_the_level(ladder, stock, entry, task):
    project = stock.project(ladder, task=task)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "level 0 -> 1" in done.stdout
    assert "question" not in done.stdout
    assert "no longer" not in done.stdout
    assert "git commit --no-edit" in done.stdout
    assert ABORTED in done.stdout
    fresh = stock.fresh("1", task)
    assert files(project) == files(fresh)
    assert recorded(project) == recorded(fresh)
    assert ladder.git(project, "diff") == ""
    aborts(ladder, project, before)


def test_the_commit_has_one_parent_and_can_be_rebased(ladder, stock, project):
    head = ladder.git(project, "rev-parse", "HEAD")
    ladder.upgrade(project, "1")
    assert ladder.git(project, "log", "-1", "--format=%P") == head
    assert "upgrade to MLOps level 1" in ladder.git(project, "log", "-1", "--format=%s")
    ladder.git(project, "switch", "-q", "-c", "other", "HEAD~1")
    append(project / "params.yaml", "# mine\n")
    ladder.commit(project)
    ladder.git(project, "switch", "-q", "main")
    ladder.git(project, "rebase", "-q", "other")
    assert ladder.git(project, "status", "--porcelain") == ""
    assert (project / stock.only(1)[0]).exists()
    assert (project / "params.yaml").read_text().endswith("# mine\n")
    assert "nothing to do" in ladder.upgrade(project, "1")


@pytest.mark.parametrize("steps", ["02", "012", "210", "20", "0120"])
def test_any_way_up_and_down_ends_in_the_tree_of_the_level(ladder, stock, steps):
    project = stock.project(ladder, steps[0])
    for level in steps[1:]:
        ladder.upgrade(project, level)
    assert files(project) == files(stock.fresh(steps[-1]))
    assert recorded(project) == recorded(stock.fresh(steps[-1]))
    folders = [p for p in project.rglob("*") if p.is_dir() and ".git" not in p.parts]
    assert all(any(folder.iterdir()) for folder in folders)


def test_the_same_command_twice_changes_nothing(ladder, project, entry):
    before = snapshot(project, repository=True)
    done = entry(ladder, project, "0")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert snapshot(project, repository=True) == before
    assert entry(ladder, project, "1").returncode == 0
    waiting = snapshot(project, repository=True)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert "MERGE_HEAD" in done.stderr
    assert snapshot(project, repository=True) == waiting
    ladder.git(project, "commit", "-q", "--no-edit")
    before = snapshot(project, repository=True)
    done = entry(ladder, project, "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(project, repository=True) == before


def test_a_dry_run_tells_and_changes_nothing(ladder, stock, project):
    (project / "README.md").unlink()
    write(project / stock.only(1)[0], "mine\n")
    ladder.commit(project)
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "1", "--dry-run")
    assert done.returncode == 1
    assert f"add {stock.only(1)[1]}\n" in done.stdout
    assert "change pyproject.toml\n" in done.stdout
    assert f"conflict in {stock.only(1)[0]}: added by you and by the template" in done.stdout
    assert "conflict in README.md: deleted by you, changed by the template" in done.stdout
    assert snapshot(project, repository=True) == before


# The owner's changes


@pytest.mark.parametrize("task", TASKS)
def test_edits_elsewhere_are_merged(ladder, stock, entry, task):
    project = stock.project(ladder, task=task)
    for name in ("README.md", "params.yaml", "src/flight_delays/features.py"):
        append(project / name, "\n# mine\n")
    write(project / "src/flight_delays/mine.py", "MINE = 1\n")
    ladder.commit(project)
    assert entry(ladder, project, "1").returncode == 0
    assert LINE in (project / "README.md").read_text()
    for name in ("README.md", "params.yaml", "src/flight_delays/features.py"):
        assert (project / name).read_text().endswith("\n# mine\n")
    fresh = files(stock.fresh("1", task))
    same = fresh.keys() - {"README.md", "params.yaml", "src/flight_delays/features.py"}
    assert {name: files(project)[name] for name in same} == {name: fresh[name] for name in same}
    assert (project / "src/flight_delays/mine.py").read_text() == "MINE = 1\n"


def test_edits_of_the_same_lines_are_a_conflict(ladder, project, entry):
    start = "<!-- level:start -->\n"
    text = (project / "README.md").read_text(encoding="utf-8")
    write(project / "README.md", text.replace(start, f"{start}My own line.\n"))
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert "conflict in README.md: changed by you and by the template" in done.stdout
    assert "resolve the conflicts, git add them, git commit --no-edit" in done.stdout
    assert ABORTED in done.stdout
    assert conflicts(project) == {"README.md": "123"}
    merged = (project / "README.md").read_text(encoding="utf-8")
    for line in ("<<<<<<< yours", "My own line.", "=======", LINE, ">>>>>>> level-1"):
        assert line in merged.splitlines()
    aborts(ladder, project, before)
    assert entry(ladder, project, "1").returncode == 1
    write(project / "README.md", merged.replace("My own line.", "Resolved."))
    ladder.git(project, "add", "README.md")
    ladder.git(project, "commit", "-q", "--no-edit")
    assert len(ladder.git(project, "log", "-1", "--format=%P").split()) == 1
    assert "nothing to do" in ladder.upgrade(project, "1")


def test_a_renamed_file_gets_what_the_template_changes(ladder, project, entry):
    ladder.git(project, "mv", "README.md", "docs.md")
    append(project / "docs.md", "mine\n")
    ladder.commit(project)
    assert entry(ladder, project, "1").returncode == 0
    assert not (project / "README.md").exists()
    text = (project / "docs.md").read_text(encoding="utf-8")
    assert LINE in text
    assert text.endswith("mine\n")


def test_a_renamed_folder_gets_what_the_template_brings_into_it(ladder, stock, project):
    """Where the new file belongs is the owner's to say: it is in the new folder, as a conflict."""
    ladder.configure("[merge]\n\tdirectoryRenames = true\n")
    ladder.git(project, "mv", "src/flight_delays", "src/delays")
    ladder.commit(project)
    template = stock.template.copy(ladder.folder / "newer")
    template.add("src/PACKAGE/more.py", "MORE = 1\n")
    template.replace("src/PACKAGE/experiment/errors.py", '"""', '"""Newer. ')
    ladder.template = template
    done = ladder.engine(project, None)
    assert done.returncode == 1
    assert "conflict in src/delays/more.py" in done.stdout
    assert (project / "src/delays/more.py").read_text() == "MORE = 1\n"
    assert "Newer." in (project / "src/delays/experiment/errors.py").read_text()


def test_a_deleted_file_stays_deleted(ladder, stock, project, entry):
    for name in ("README.md", "LICENSE", "src/flight_delays/example.py"):
        (project / name).unlink()
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert conflicts(project) == {"README.md": "13"}
    assert "conflict in README.md: deleted by you, changed by the template" in done.stdout
    assert not (project / "LICENSE").exists()
    assert not (project / "src/flight_delays/example.py").exists()
    aborts(ladder, project, before)
    entry(ladder, project, "1")
    ladder.git(project, "rm", "-q", "README.md")
    ladder.git(project, "commit", "-q", "--no-edit")
    ladder.engine(project, "2")
    for name in ("LICENSE", "src/flight_delays/example.py"):
        assert not (project / name).exists()


@pytest.mark.parametrize("content", ["mine\n", "mine\0\udcff"], ids=["text", "binary"])
def test_an_own_file_where_the_level_brings_one_is_a_conflict(ladder, stock, entry, content):
    project = stock.project(ladder)
    name = stock.only(1)[0]
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_bytes(content.encode(errors="surrogateescape"))
    ladder.commit(project)
    before = snapshot(project)
    assert entry(ladder, project, "1").returncode == 1
    assert conflicts(project) == {name: "23"}
    assert staged(ladder, project, 2, name) == content
    fresh = (stock.fresh("1") / name).read_text(encoding="utf-8")
    assert staged(ladder, project, 3, name) == fresh
    if content == "mine\n":
        text = (project / name).read_text(encoding="utf-8")
        assert text == f"<<<<<<< yours\nmine\n=======\n{fresh}>>>>>>> level-1\n"
    aborts(ladder, project, before)


@BY_ENGINE
def test_an_own_file_at_a_path_of_a_higher_level_is_untouched(ladder, stock, project, entry):
    name = stock.only(2)[0]
    write(project / name, "mine\n")
    ladder.commit(project)
    assert entry(ladder, project, "1").returncode == 0
    assert (project / name).read_text() == "mine\n"
    ladder.git(project, "commit", "-q", "--no-edit")
    assert entry(ladder, project, "2").returncode == 1
    assert conflicts(project) == {name: "23"}


@BY_ENGINE
def test_an_edited_file_of_a_higher_level_is_not_deleted(ladder, stock, entry):
    project = stock.project(ladder, "2")
    first, *others = stock.only(2)
    append(project / first, "# mine\n")
    write(project / Path(others[-1]).parent / "own.txt", "own\n")
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "0")
    assert done.returncode == 1
    assert conflicts(project) == {first: "12"}
    assert f"conflict in {first}: changed by you, gone from the template" in done.stdout
    assert (project / first).read_text(encoding="utf-8").endswith("# mine\n")
    assert (project / Path(others[-1]).parent / "own.txt").exists()
    assert not any((project / name).exists() for name in others)
    aborts(ladder, project, before)


def test_what_git_does_not_track_is_untouched(ladder, project, entry):
    """Store, data, environment, secrets, DVC's cache: ignored or merely untracked."""
    own = ["mlflow.db", "mlartifacts/1/model/MLmodel", "data/raw/2013-01.parquet", ".env"]
    own += [".venv/bin/python", ".dvc/cache/files/md5/ab/cd", ".dvc/tmp/lock", "notes/todo.md"]
    for name in own:
        write(project / name, f"{name} of mine\n")
        os.utime(project / name, (1, 1))
    assert entry(ladder, project, "1").returncode == 0
    for name in own:
        assert (project / name).read_text() == f"{name} of mine\n"
        assert (project / name).stat().st_mtime == 1
    ladder.git(project, "merge", "--abort")
    for name in own:
        assert (project / name).read_text() == f"{name} of mine\n"


# Answers and the template's questions


@pytest.mark.parametrize(
    "other",
    [
        {"project_slug": "other"},
        {"task": "regression"},
        {"package_name": "other", "author_name": "Someone Else"},
    ],
    ids=lambda other: "-".join(other),
)
def test_other_answers_are_refused(ladder, project, other):
    if "project_slug" in other:  # the folder is called otherwise than its project
        project = project.rename(project.with_name(other["project_slug"]))
    before = snapshot(project, repository=True)
    done = ladder.plain(project, "1", *(f"{key}={value}" for key, value in other.items()))
    assert done.returncode == 1
    for key, value in other.items():
        assert f"{key} is" in done.stderr
        assert value in done.stderr
    assert "--config-file" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(project, repository=True) == before


def test_a_level_that_is_not_offered_is_refused(ladder, project):
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "7")
    assert done.returncode == 1
    assert "maturity_level 7 is not offered: choose one of 0, 1" in done.stderr
    assert ladder.plain(project, "7").returncode
    assert snapshot(project, repository=True) == before


def test_a_new_question_takes_its_default(ladder, stock, project, entry):
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.questions(region="north", license=["MIT", "Proprietary"])
    ladder.template.replace("params.yaml", "task:", "# << cookiecutter.region >>\ntask:")
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stderr
    assert "new question region: 'north', its default" in done.stdout
    assert recorded(project)["default_context"]["region"] == "north"
    assert "# north\n" in (project / "params.yaml").read_text()
    ladder.git(project, "merge", "--abort")
    done = ladder.plain(project, "1", "region=south")  # a new one may be answered
    assert done.returncode == 0, done.stderr
    assert "# south\n" in (project / "params.yaml").read_text()


def test_a_removed_question_is_told(ladder, stock, project, entry):
    old = stock.template.copy(ladder.folder / "old")
    old.questions(region="north")
    old.commit()
    ladder.template = old
    shutil.rmtree(project)
    project = ladder.generate()
    ladder.template.questions(region=None)
    ladder.template.commit()
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stderr
    assert "the template no longer asks region" in done.stdout
    assert "region" not in recorded(project)["default_context"]


def test_a_choice_that_is_gone_takes_the_default(ladder, stock, entry):
    ladder.template = stock.template.copy(ladder.folder / "newer")
    project = ladder.generate(license="Apache-2.0")
    ladder.template.questions(license=["MIT", "Proprietary"])
    ladder.template.commit()
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stderr
    assert "license 'Apache-2.0' is no longer offered: is 'MIT', the default" in done.stdout
    assert recorded(project)["default_context"]["license"] == "MIT"
    assert "cannot be proved" not in done.stdout


# A newer template


def test_a_newer_template_renames_moves_and_deletes(ladder, stock, entry):
    """What the owner did to such files is merged into the new name, or is a conflict."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    project = ladder.generate()
    for name in ("plots.py", "ui.py", "serve.py"):
        append(project / "src/flight_delays/experiment" / name, "\n# mine\n")
    append(
        project / "src/flight_delays/experiment/errors.py", "\n# mine, the template edits the top\n"
    )
    ladder.commit(project)
    template = ladder.template
    template.move("src/PACKAGE/experiment/plots.py", "src/PACKAGE/experiment/figures.py")
    template.move("src/PACKAGE/experiment/ui.py", "src/PACKAGE/experiment/pages/ui.py")
    template.delete("src/PACKAGE/experiment/serve.py")
    template.delete("tests/test_features.py")
    template.replace("src/PACKAGE/experiment/errors.py", '"""', '"""Newer. ')
    template.commit()
    before = snapshot(project)
    done = entry(ladder, project, None)
    assert done.returncode == 1
    package = project / "src/flight_delays/experiment"
    assert (package / "figures.py").read_text().endswith("# mine\n")
    assert (package / "pages/ui.py").read_text().endswith("# mine\n")
    assert not (package / "plots.py").exists()
    assert not (package / "ui.py").exists()
    assert not (project / "tests/test_features.py").exists()
    text = (package / "errors.py").read_text()
    assert '"""Newer. ' in text
    assert text.endswith("edits the top\n")
    assert conflicts(project) == {"src/flight_delays/experiment/serve.py": "12"}
    assert (package / "serve.py").read_text().endswith("# mine\n")
    aborts(ladder, project, before)


@BY_COOKIECUTTER
def test_level_and_version_at_once(ladder, stock, project, entry):
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.replace("params.yaml", "task:", "# newer\ntask:")
    ladder.template.commit()
    append(project / "params.yaml", "# mine\n")
    ladder.commit(project)
    assert entry(ladder, project, "2").returncode == 0
    text = (project / "params.yaml").read_text()
    assert "# newer\n" in text
    assert text.endswith("# mine\n")
    assert (project / stock.only(2)[0]).exists()


def test_upgrades_follow_each_other(ladder, stock, project):
    """The base of the second is the rendering of the commit that the first has recorded."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    (project / "LICENSE").unlink()
    append(project / "README.md", "mine 0\n")
    ladder.commit(project)
    ladder.upgrade(project, "1")
    append(project / "README.md", "mine 1\n")
    name = stock.only(1)[0]
    append(project / name, "# mine\n")
    ladder.commit(project)
    ladder.template.replace("README.md", LINE, f"{LINE} It is newer.")
    ladder.template.add("src/PACKAGE/more.py", "MORE = 1\n")
    ladder.template.commit()
    said = ladder.upgrade(project, "2")
    assert "cannot be proved" not in said
    text = (project / "README.md").read_text(encoding="utf-8")
    assert f"{LINE} It is newer." in text
    assert text.endswith("mine 0\nmine 1\n")
    assert (project / name).read_text(encoding="utf-8").endswith("# mine\n")
    assert not (project / "LICENSE").exists()
    (project / "src/flight_delays/more.py").unlink()
    ladder.commit(project)
    for _ in range(2):  # what was deleted once is not brought back
        ladder.template.replace("params.yaml", "task:", "# again\ntask:")
        ladder.template.commit()
        ladder.upgrade(project, None)
        assert not (project / "src/flight_delays/more.py").exists()


# What the base is proved by


def squash(ladder: Ladder, project: Path) -> None:
    """One commit of all, without a parent."""
    ladder.commit(project)
    tree = ladder.git(project, "rev-parse", "HEAD^{tree}").strip()
    commit = ladder.git(project, "commit-tree", tree, "-m", "all of it").strip()
    ladder.git(project, "reset", "-q", "--hard", commit)


def forget(template: Path) -> None:
    """The template's history is gone; its version and files are newer than what was once written."""
    shutil.rmtree(template / ".git")
    questions = (template / "cookiecutter.json").read_text(encoding="utf-8")
    write(template / "cookiecutter.json", questions.replace('"0.2.0"', '"0.3.0"'))


@BY_COOKIECUTTER
def test_gone_commit_is_proved_by_the_projects_history(ladder, stock, project, entry):
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.replace("params.yaml", "task:", "# newer\ntask:")
    forget(ladder.template.folder)
    (project / "LICENSE").unlink()
    append(project / "params.yaml", "# mine\n")
    ladder.commit(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stderr
    assert "cannot be proved" not in done.stdout
    text = (project / "params.yaml").read_text()
    assert "# newer\n" in text
    assert text.endswith("# mine\n")
    assert not (project / "LICENSE").exists()


@BY_ENGINE
def test_without_proof_all_that_differs_is_a_conflict(ladder, stock, project, entry):
    """Squashed history and a lost commit: nothing tells what the template once wrote."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.replace("params.yaml", "task:", "# newer\ntask:")
    forget(ladder.template.folder)
    append(project / "params.yaml", "# mine\n")
    write(project / "own.txt", "own\n")
    shutil.rmtree(project / ".git")
    ladder.git(project, "init", "-q")
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert "cannot be proved: all that differs is a conflict" in done.stdout
    found = conflicts(project)
    assert found["params.yaml"] == found["README.md"] == "23"
    assert RECORD not in found
    assert "own.txt" not in found
    text = (project / "params.yaml").read_text()
    assert "# newer" in text
    assert "# mine" in text
    aborts(ladder, project, before)


@pytest.mark.parametrize("history", ["shallow", "squashed", "cloned"])
def test_other_histories_of_the_project(ladder, stock, project, history):
    """The template's recorded commit proves the base, whatever became of the project's history."""
    append(project / "params.yaml", "# mine\n")
    (project / "LICENSE").unlink()
    ladder.commit(project)
    append(project / "params.yaml", "# more\n")
    ladder.commit(project)
    if history == "squashed":
        squash(ladder, project)
    else:
        clone = ladder.folder / "clone/flight-delays"
        depth = ["--depth", "1"] if history == "shallow" else []
        ladder.git(ladder.folder, "clone", "-q", *depth, f"file://{project}", clone)
        project = clone
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.replace("params.yaml", "task:", "# newer\ntask:")
    ladder.template.commit()
    said = ladder.upgrade(project, "1")
    assert "cannot be proved" not in said
    text = (project / "params.yaml").read_text()
    assert "# newer\n" in text
    assert text.endswith("# mine\n# more\n")
    assert not (project / "LICENSE").exists()


def test_hand_edited_values_are_answers(ladder, project):
    """A new author in the answers file is merged in, as the history proves what was written."""
    text = (project / RECORD).read_text(encoding="utf-8")
    write(project / RECORD, text.replace('author_name: "Your Name"', "author_name: Someone"))
    ladder.commit(project)
    said = ladder.upgrade(project, "1")
    assert "cannot be proved" not in said
    assert "Someone" in (project / "pyproject.toml").read_text()


@BY_COOKIECUTTER
def test_hand_edited_level_and_comments(ladder, project, entry):
    """A level without quotes; a comment of the owner's stays, or is in a conflict."""
    text = (project / RECORD).read_text(encoding="utf-8")
    text = text.replace('maturity_level: "0"', "maturity_level: 0")
    write(project / RECORD, f"# my comment\n{text}")
    ladder.commit(project)
    done = entry(ladder, project, "1")
    assert "cannot be proved" not in done.stdout
    assert set(conflicts(project)) == {RECORD}, done.stderr
    assert "# my comment" in (project / RECORD).read_text()


def test_a_digest_that_is_wrong_proves_nothing(ladder, project):
    text = (project / RECORD).read_text(encoding="utf-8")
    start = text.index('files: "')
    write(project / RECORD, f'{text[:start]}files: "0000"\n')
    append(project / "README.md", "mine\n")
    ladder.commit(project)
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert "cannot be proved" in done.stdout
    assert "README.md" in conflicts(project)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("default_context: [", "cannot be read"),
        ("mine\n", "cannot be read"),
        ("default_context: {}\n", "maturity_level"),
        ("", "cannot be read"),
        (None, "was deleted in"),
    ],
)
def test_a_broken_answers_file_is_refused(ladder, project, text, word):
    if text is None:
        (project / RECORD).unlink()
    else:
        write(project / RECORD, text)
    ladder.commit(project)
    before = snapshot(project, repository=True)
    done = ladder.engine(project, None)
    assert done.returncode == 1
    assert word in done.stderr
    assert RECORD in done.stderr or word == "maturity_level"
    assert len(done.stderr.splitlines()) == 1
    command = [BIN / "cookiecutter", ladder.template.folder, "--no-input", "-f"]
    done = ladder.run(*command, "-o", project.parent)  # with the answers that it takes by itself
    if word == "maturity_level":
        assert "new question project_name" in done.stdout
        return
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert snapshot(project, repository=True) == before


def test_an_answer_line_that_is_gone_takes_the_default(ladder, project):
    text = (project / RECORD).read_text(encoding="utf-8")
    write(project / RECORD, text.replace('  license: "MIT"\n', ""))
    ladder.commit(project)
    done = ladder.engine(project, "1")
    assert done.returncode in (0, 1)
    assert "new question license: 'MIT', its default" in done.stdout
    assert "cannot be proved" not in done.stdout


def test_hooks_switched_off(ladder, stock, project):
    """An existing project is merged into all the same, never overwritten."""
    append(project / "README.md", "mine\n")
    write(project / "untracked.txt", "mine\n")
    ladder.commit(project)
    done = ladder.plain(project, "1", "--accept-hooks", "no")
    assert done.returncode == 0, done.stderr
    text = (project / "README.md").read_text(encoding="utf-8")
    assert text.endswith("mine\n")
    assert LINE in text
    assert files(project).keys() == files(stock.fresh("1")).keys() | {"untracked.txt"}
    ladder.git(project, "merge", "--abort")
    append(project / "README.md", "not committed\n")
    before = snapshot(project, repository=True)
    assert ladder.plain(project, "1", "--accept-hooks", "no").returncode == 1
    assert snapshot(project, repository=True) == before


@BY_COOKIECUTTER
def test_generated_with_hooks_switched_off(ladder, stock, entry):
    """Nothing is recorded; the history proves the base if the files were committed as written."""
    project = ladder.generate("--accept-hooks", "no")
    assert not (project / ".git").exists()
    assert "files" not in recorded(project)["template"]
    ladder.git(project, "init", "-q")
    ladder.commit(project)
    append(project / "README.md", "mine\n")
    ladder.commit(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stdout
    assert "cannot be proved" not in done.stdout
    text = (project / "README.md").read_text(encoding="utf-8")
    assert LINE in text
    assert text.endswith("mine\n")
    assert files(project).keys() == files(stock.fresh("1")).keys()
    ladder.git(project, "merge", "--abort")
    squash(ladder, project)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert "cannot be proved" in done.stdout


# Where a project may be


def test_only_its_own_folder_of_a_monorepo_changes(ladder, stock, entry):
    """Even with a file outside that the merge could take for a renamed one of the project."""
    repository = ladder.folder / "mono"
    project = repository / "teams/flight-delays"
    shutil.copytree(stock.fresh(), project)
    shutil.rmtree(project / ".git")
    shutil.move(project / "README.md", repository / "README.md")
    append(project / "params.yaml", "# mine\n")
    ladder.git(repository, "init", "-q")
    ladder.commit(repository)
    shutil.copy(repository / "README.md", project / "notes.md")
    ladder.commit(repository)
    if entry is Ladder.engine:
        project = project.rename(project.with_name("renamed"))
        ladder.commit(repository)
    outside = (repository / "README.md").read_bytes()
    before = snapshot(repository)
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (repository / "README.md").read_bytes() == outside
    assert LINE in (project / "notes.md").read_text(encoding="utf-8")
    changed = ladder.git(repository, "diff", "--cached", "--name-only").split()
    own = (f"teams/{project.name}/", ".github/workflows/flight-delays-")
    assert all(name.startswith(own) for name in changed)
    inside = {name for name in stock.only(1) if not name.startswith(".github/")}
    assert set(snapshot(project)) > inside
    assert ladder.git(repository, "diff") == ""
    aborts(ladder, repository, before)


@BY_ENGINE
def test_worktree_and_detached_head(ladder, stock, project, entry):
    tree = ladder.folder / "trees/flight-delays"
    ladder.git(project, "worktree", "add", "-q", "--detach", tree)
    before = snapshot(project)
    assert entry(ladder, tree, "1").returncode == 0
    assert files(tree) == files(stock.fresh("1"))
    assert snapshot(project) == before
    assert ladder.git(project, "status", "--porcelain") == ""
    ladder.git(tree, "commit", "-q", "--no-edit")
    assert len(ladder.git(tree, "log", "-1", "--format=%P").split()) == 1
    assert ladder.git(tree, "rev-parse", "--abbrev-ref", "HEAD").strip() == "HEAD"


@BY_COOKIECUTTER
def test_a_submodule(ladder, stock, project, entry):
    outer = ladder.folder / "outer"
    outer.mkdir()
    ladder.git(outer, "init", "-q")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(project))
    ladder.git(outer, *add, "flight-delays")
    ladder.commit(outer)
    inner = outer / "flight-delays"
    assert entry(ladder, inner, "1").returncode == 0
    assert files(inner) == files(stock.fresh("1"))
    ladder.git(inner, "commit", "-q", "--no-edit")
    assert ladder.git(outer, "status", "--porcelain") == " M flight-delays\n"


def test_a_submodule_in_the_project(ladder, stock, project):
    """One elsewhere stays; one at a file's path is a conflict, one where a folder comes refused."""
    other = ladder.folder / "other"
    shutil.copytree(stock.fresh(), other)
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--force", "--name")
    ladder.git(project, *add, "vendor", other, "vendor")
    ladder.commit(project)
    ladder.upgrade(project, "1")
    assert (project / "vendor/README.md").exists()
    head = ladder.git(project, "rev-parse", "HEAD").strip()
    taken = stock.only(2)[0]
    ladder.git(project, *add, "file", other, taken)
    ladder.commit(project)
    done = ladder.engine(project, "2")
    assert f"conflict in {taken}" in done.stdout
    assert (project / taken / "README.md").exists()
    ladder.git(project, "reset", "-q", "--hard", head)
    shutil.rmtree(project / taken)
    taken = min(
        str(parent)
        for name in stock.only(2)
        for parent in Path(name).parents
        if not (project / parent).exists()
    )
    ladder.git(project, *add, "folder", other, taken)
    ladder.commit(project)
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "2")
    assert done.returncode == 1
    assert f"{project / taken} is a submodule" in done.stderr
    assert snapshot(project, repository=True) == before


def test_relative_paths_from_anywhere(ladder, project):
    """The template and the project given relative to the folder that the command starts in."""
    os.symlink(ladder.template.folder, ladder.folder / "T")
    somewhere = ladder.folder / "some/where"
    somewhere.mkdir(parents=True)
    config = f"../../projects/flight-delays/{RECORD}"
    command = [BIN / "cookiecutter", "../../T", "--no-input", "-f", "--config-file", config]
    command += ["maturity_level=1", "-o", "../../projects"]
    done = ladder.run(*command, cwd=somewhere)
    assert done.returncode == 0, done.stderr
    assert recorded(project)["template"]["source"] == str(ladder.template.folder)
    ladder.git(project, "commit", "-q", "--no-edit")
    upgrade = ladder.template.folder / "hooks/upgrade.py"
    done = ladder.run(BIN / "python", upgrade, "../../projects/flight-delays", cwd=somewhere)
    assert "nothing to do" in done.stdout
    done = ladder.run(BIN / "python", "../../T/hooks/upgrade.py", ".", "--level", "2", cwd=project)
    assert done.returncode == 0, done.stderr
    assert recorded(project)["template"]["source"] == str(ladder.template.folder)


# Kinds of files


@BY_COOKIECUTTER
def test_crlf_is_kept(ladder, stock, entry):
    """Line ends in the files by autocrlf and by attribute, CRLF in the blobs of a file of one's own."""
    ladder.configure("[core]\n\tautocrlf = true\n")
    origin = stock.project(ladder, name="origin")
    write(origin / ".gitattributes", "* text=auto\nwindows.txt eol=crlf\nraw.txt -text\n")
    write(origin / "windows.txt", "one\r\ntwo\r\n")
    write(origin / "raw.txt", "one\r\ntwo\r\n")
    append(origin / "README.md", "mine\n")
    ladder.commit(origin)
    project = ladder.folder / "projects/flight-delays"
    ladder.git(ladder.folder, "clone", "-q", origin, project)
    assert b"mine\r\n" in (project / "README.md").read_bytes()
    before = snapshot(project)
    assert entry(ladder, project, "1").returncode == 0
    assert conflicts(project) == {}
    for name in ("README.md", stock.only(1)[0]):
        content = (project / name).read_bytes()
        assert content.count(b"\n") == content.count(b"\r\n") > 0, name
    assert b"mine\r\n" in (project / "README.md").read_bytes()
    assert LINE.encode() in (project / "README.md").read_bytes()
    for name in ("windows.txt", "raw.txt"):
        assert (project / name).read_bytes() == b"one\r\ntwo\r\n"
    assert ladder.git(project, "diff", "--name-only") == ""
    aborts(ladder, project, before)


@BY_ENGINE
def test_crlf_blobs_are_kept_or_a_conflict(ladder, project, entry):
    """The owner has turned files into CRLF for good."""
    write(project / ".gitattributes", "* -text\n")
    for name in ("README.md", "params.yaml"):
        write(project / name, (project / name).read_text().replace("\n", "\r\n"))
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert conflicts(project) == {"README.md": "123"}
    assert (project / "params.yaml").read_bytes().count(b"\r\n") > 10
    assert staged(ladder, project, 2, "README.md").encode().count(b"\r\n") > 10
    aborts(ladder, project, before)


def test_a_template_cloned_with_crlf_proves_as_well(ladder, stock, project):
    """A clone by another git setting has the files with CRLF; it is the same template."""
    ladder.configure("[core]\n\tautocrlf = true\n")
    clone = ladder.folder / "cloned"
    ladder.git(ladder.folder, "clone", "-q", stock.template.folder, clone)
    template = stock.template.copy(ladder.folder / "newer")
    template.folder = clone
    ladder.template = template
    append(project / "params.yaml", "# mine\n")
    squash(ladder, project)
    said = ladder.upgrade(project, "1")
    assert "cannot be proved" not in said
    assert "\r" not in ladder.git(project, "show", "HEAD:README.md")


@BY_ENGINE
def test_modes_links_and_odd_names(ladder, stock, entry):
    project = stock.project(ladder)
    (project / "params.yaml").chmod(0o755)
    (project / "README.md").chmod(0o755)
    write(project / "run.sh", "#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("params.yaml")
    (project / "dangling").symlink_to("../nowhere")
    (project / "LICENSE").unlink()
    (project / "LICENSE").symlink_to("pyproject.toml")
    odd = ["Größe/日本 語.py", "a'b\"c.txt", "tab\there.md", "-x.txt", "new\nline", "back\\slash"]
    odd += [os.fsdecode(b"latin-\xe9.txt"), "a b/ c ", "*.md", ":(top)x"]
    for name in odd:
        write(project / name, "mine\n")
    (project / "image.png").write_bytes(b"\x89PNG\r\n\0" + bytes(range(256)))
    ladder.commit(project)
    before = snapshot(project)
    assert entry(ladder, project, "1").returncode == 0
    after = snapshot(project)
    template = {*stock.only(1), "README.md", "pyproject.toml", RECORD}
    same = {name for name in before if name not in template and (project / name).is_file()}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (project / "README.md").stat().st_mode & stat.S_IXUSR
    assert LINE in (project / "README.md").read_text(encoding="utf-8")
    assert (project / "LICENSE").is_symlink()
    assert (project / "dangling").is_symlink()
    aborts(ladder, project, before)


@BY_ENGINE
def test_a_template_file_replaced_by_a_link(ladder, project, entry):
    """README.md is the owner's link now, and the template changes it: a conflict, the link stays."""
    shutil.move(project / "README.md", project / "GUIDE.md")
    (project / "README.md").symlink_to("GUIDE.md")
    ladder.commit(project)
    before = snapshot(project)
    done = entry(ladder, project, "1")
    after = snapshot(project)
    assert done.returncode in (0, 1)
    links = [name for name, (mode, _) in after.items() if stat.S_ISLNK(mode)]
    stages = [a for a in ladder.git(project, "ls-files", "-s").splitlines() if a[:6] == "120000"]
    assert links
    assert stages
    text = (project / "GUIDE.md").read_text(encoding="utf-8")
    assert text.startswith("# Flight Delays")
    assert LINE in text or done.returncode == 1
    aborts(ladder, project, before)


def test_an_odd_name_among_conflicts_is_shown(ladder, stock, project):
    """A name that is no UTF-8 does not stop the command."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.replace("LICENSE", "MIT", "MIT or so")
    name = os.fsdecode(b"licen\xe9e")
    ladder.git(project, "mv", "LICENSE", name)
    (project / name).write_bytes(b"MIT, but\n" + (project / name).read_bytes()[4:])
    ladder.commit(project)
    done = ladder.engine(project, None)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "conflict in" in done.stdout
    assert b"MIT, but" in (project / name).read_bytes()


def test_a_binary_file_that_both_changed(ladder, stock):
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.add("logo.bin", "logo\n")
    ladder.template.commit()
    project = ladder.generate()
    (project / "logo.bin").write_bytes(b"mine\0")
    ladder.commit(project)
    ladder.template.path("logo.bin").write_bytes(b"theirs\0")
    ladder.template.commit()
    assert ladder.engine(project, None).returncode == 1
    assert conflicts(project) == {"logo.bin": "123"}
    assert (project / "logo.bin").read_bytes() == b"mine\0"
    assert staged(ladder, project, 2, "logo.bin") == "mine\0"
    assert staged(ladder, project, 3, "logo.bin") == "theirs\0"


@BY_COOKIECUTTER
def test_a_notebook_with_outputs(ladder, stock, entry):
    """Outputs that the owner has committed stay when the template changes another cell."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    project = ladder.generate()
    path = next((project / "notebooks").glob("*.ipynb"))
    name = f"notebooks/{path.name}"
    book = path.read_text(encoding="utf-8")
    last = book.rindex('"outputs": []')
    shown = '"outputs": [{"name": "stdout", "output_type": "stream", "text": ["mine"]}]'
    write(path, book[:last] + shown + book[last + len('"outputs": []') :])
    ladder.commit(project)
    ladder.template.replace(name, '"cells": [', '"cells":  [')
    ladder.template.commit()
    done = entry(ladder, project, None)
    assert done.returncode == 0, done.stdout
    text = path.read_text(encoding="utf-8")
    assert shown in text
    assert '"cells":  [' in text
    json.loads(text)


@BY_COOKIECUTTER
def test_odd_answers(ladder, entry):
    title = "L'Été à Nîmes: 100% {late} $HOME & <b>"
    project = ladder.generate(project_name=title, author_name="Zoë O'Hara", project_slug="ete")
    append(project / "params.yaml", "# mine\n")
    ladder.commit(project)
    done = entry(ladder, project, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot be proved" not in done.stdout
    assert recorded(project)["default_context"]["project_name"] == title
    assert title in (project / "README.md").read_text(encoding="utf-8")


# The user's settings of git


SETTINGS = {
    "diff3": "[merge]\n\tconflictStyle = diff3\n",
    "zdiff3": "[merge]\n\tconflictStyle = zdiff3\n",
    "signing": "[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /nonexistent\n[log]\n\tshowSignature = true\n",
    "no untracked": "[status]\n\tshowUntrackedFiles = no\n\trelativePaths = true\n\tbranch = true\n",
    "no renames": "[merge]\n\trenames = false\n\tdirectoryRenames = true\n[diff]\n\trenames = false\n",
    "diff": "[diff]\n\tnoprefix = true\n\tmnemonicPrefix = true\n\texternal = /bin/false\n",
    "colour": "[color]\n\tui = always\n\tstatus = always\n\tdiff = always\n",
    "monitor": "[core]\n\tfsmonitor = true\n\tuntrackedCache = true\n\tsplitIndex = true\n",
    "strict line ends": "[core]\n\tautocrlf = true\n\tsafecrlf = true\n",
    "sparse": "[index]\n\tsparse = true\n[feature]\n\tmanyFiles = true\n",
    "fsck": "[transfer]\n\tfsckObjects = true\n[core]\n\tfsync = all\n",
    "excludes": "[core]\n\texcludesFile = ~/ignore\n\tattributesFile = ~/attributes\n",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_git_change_nothing(ladder, stock, name):
    project = stock.project(ladder)
    ladder.configure(SETTINGS[name])
    write(ladder.home / "ignore", "*.yaml\n*.mk\n*.py\n")
    write(ladder.home / "attributes", "*.ipynb diff=x\n*.md merge=union\n")
    ladder.git(project, "mv", "README.md", "docs.md")
    write(project / stock.only(1)[0], "mine\n")
    ladder.git(project, "-c", "core.safecrlf=false", "add", "--force", "--all")
    ladder.git(project, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "my work")
    before = snapshot(project)
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert not done.stderr
    assert conflicts(project) == {stock.only(1)[0]: "23"}
    docs = (project / "docs.md").read_text(encoding="utf-8")
    assert LINE in docs
    assert not (project / "README.md").exists()
    text = (project / stock.only(1)[0]).read_text(encoding="utf-8")
    assert "<<<<<<< yours" in text
    assert {p: c for p, c in snapshot(project).items() if p in stock.only(1)[1:]}.keys() == set(
        stock.only(1)[1:]
    )
    ladder.git(project, "merge", "--abort")
    after = {p: (m, c.replace(b"\r\n", b"\n")) for p, (m, c) in snapshot(project).items()}
    assert after == before
    assert ladder.git(project, "diff-index", "--name-only", "HEAD") == ""


@BY_ENGINE
def test_no_hook_of_the_users_runs(ladder, project, entry):
    """Neither by core.hooksPath nor by the project's own hooks, on the way to the merged files."""
    for folder in (ladder.folder / "hooks", project / ".git/hooks"):
        for name in (
            "pre-commit",
            "post-commit",
            "post-checkout",
            "post-index-change",
            "pre-merge",
        ):
            write(folder / name, f"#!/bin/sh\necho {name} >> {ladder.folder}/ran\nexit 1\n")
            (folder / name).chmod(0o755)
    assert entry(ladder, project, "1").returncode == 0
    ladder.git(project, "merge", "--abort")
    (ladder.folder / "ran").unlink(missing_ok=True)
    write(ladder.home / ".gitconfig", f"{IDENTITY}[core]\n\thooksPath = {ladder.folder}/hooks\n")
    assert entry(ladder, project, "1").returncode == 0
    assert not (ladder.folder / "ran").exists()


def test_no_identity_is_needed(ladder, project):
    """Nothing is committed, so it takes no name and no address."""
    write(ladder.home / ".gitconfig", "[user]\n\tuseConfigOnly = true\n")
    assert ladder.engine(project, "1").returncode == 0


def test_variables_of_a_git_hook_do_not_mislead(ladder, stock, project, entry):
    """Run from a hook of another repository, git's variables point there."""
    other = stock.project(ladder, name="other")
    before = snapshot(other, repository=True)
    ladder.env |= {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}
    ladder.env |= {"GIT_INDEX_FILE": str(other / ".git/index"), "GIT_PREFIX": "src/"}
    assert entry(ladder, project, "1").returncode == 0
    assert snapshot(other, repository=True) == before
    assert files(project) == files(stock.fresh("1"))
