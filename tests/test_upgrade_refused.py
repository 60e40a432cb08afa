"""Upgrades that are refused: before anything is written, with a sentence that names file and remedy."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN
from ladder import RECORD, Ladder, Stock, conflicts, files, snapshot


class Case:
    """A project in which something is about to be refused, and what makes it so."""

    def __init__(self, ladder: Ladder, stock: Stock) -> None:
        self.ladder, self.project = ladder, stock.project(ladder)
        self.new = stock.only(1)  # the files that the level brings

    def git(self, *arguments: str | Path) -> str:
        return self.ladder.git(self.project, *arguments)

    def write(self, name: str, text: str = "mine\n") -> Path:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def waiting(self, command: str) -> None:
        """A merge, rebase ... that has met a conflict."""
        self.git("switch", "-q", "-c", "other")
        self.write("clash.txt", "one\n")
        self.ladder.commit(self.project)
        self.git("switch", "-q", "main")
        self.write("clash.txt", "two\n")
        self.ladder.commit(self.project)
        word, *options = command.split()
        done = self.ladder.run("git", word, *options, "other", cwd=self.project)
        assert done.returncode
        if word != "rebase":
            self.git("checkout", "-q", "--ours", "clash.txt")
        self.git("add", "clash.txt")
        status = self.git("status", "--porcelain", "-uno")
        assert status == "" or word == "rebase"


def uncommitted(case: Case) -> None:
    case.write("params.yaml")


def staged(case: Case) -> None:
    case.write("params.yaml")
    case.git("add", "params.yaml")


def staged_deletion(case: Case) -> None:
    case.git("rm", "-q", "--cached", "LICENSE")


def intent_to_add(case: Case) -> None:
    case.write("notes.txt")
    case.git("add", "--intent-to-add", "notes.txt")


def mode_alone(case: Case) -> None:
    (case.project / "LICENSE").chmod(0o755)


def untracked_in_the_way(case: Case) -> None:
    case.write(case.new[0])


def ignored_in_the_way(case: Case) -> None:
    case.write(".git/info/exclude", "*\n")
    case.write(case.new[0])


def folder_in_the_way(case: Case) -> None:
    case.write(f"{case.new[0]}/deep/file.txt")


def file_where_a_folder_comes(case: Case) -> None:
    new = (Path(name).parent for name in case.new)
    folder = min(str(parent) for parent in new if not (case.project / parent).exists())
    case.write(folder)


def link_where_a_folder_comes(case: Case) -> None:
    new = (Path(name).parent for name in case.new)
    folder = min(str(parent) for parent in new if not (case.project / parent).exists())
    elsewhere = case.ladder.folder / "elsewhere"
    elsewhere.mkdir()
    (case.project / folder).parent.mkdir(exist_ok=True)
    (case.project / folder).symlink_to(elsewhere)


def link_in_the_way(case: Case) -> None:
    path = case.write(case.new[0])
    path.unlink()
    path.symlink_to("nowhere")


def assumed_unchanged(case: Case) -> None:
    case.git("update-index", "--assume-unchanged", "README.md")
    case.write("README.md")


def skipped(case: Case) -> None:
    case.git("update-index", "--skip-worktree", "README.md")
    case.write("README.md")


def unseen_by_a_monitor(case: Case) -> None:
    """A file system monitor of the owner's misses an edit."""
    monitor = case.write(".git/monitor", "#!/bin/sh\nprintf 'token\\0'\n")
    monitor.chmod(0o755)
    case.git("config", "core.fsmonitor", str(monitor))
    os.utime(case.project / "README.md", (10**9, 10**9))  # long ago, so that git trusts its index
    case.git("update-index", "--fsmonitor", "--refresh")
    case.git("status")
    case.write("README.md")
    assert case.git("status", "--porcelain", "-uno") == ""


def no_repository(case: Case) -> None:
    shutil.rmtree(case.project / ".git")


def no_commit(case: Case) -> None:
    shutil.rmtree(case.project / ".git")
    case.git("init", "-q")
    case.git("add", "--all")


def untracked_in_an_outer_repository(case: Case) -> None:
    shutil.rmtree(case.project / ".git")
    outer = case.project.parent
    case.ladder.git(outer, "init", "-q")
    (outer / "file.txt").write_text("outer\n")
    case.ladder.git(outer, "add", "file.txt")
    case.ladder.git(outer, "commit", "-q", "-m", "outer")


def changed_beside_it(case: Case) -> None:
    """`git reset --hard`, the last resort, would take back what is changed in the whole repository."""
    shutil.rmtree(case.project / ".git")
    outer = case.project.parent
    case.ladder.git(outer, "init", "-q")
    (outer / "file.txt").write_text("outer\n")
    case.ladder.commit(outer)
    (outer / "file.txt").write_text("changed\n")


def locked(case: Case) -> None:
    case.write(".git/index.lock", "")


def bare_of_its_files(case: Case) -> None:
    for name in files(case.project):
        (case.project / name).unlink()


MOVE = "commit it, or move it away"
COMMIT = "commit or stash it, and try again"
STATUS = "git status tells what waits"
CASES: dict[str, tuple[Callable, list[str]]] = {
    "uncommitted": (uncommitted, ["params.yaml", COMMIT]),
    "staged": (staged, ["params.yaml", COMMIT]),
    "staged deletion": (staged_deletion, ["LICENSE", COMMIT]),
    "intent to add": (intent_to_add, ["notes.txt", COMMIT]),
    "mode alone": (mode_alone, ["LICENSE", COMMIT]),
    "files deleted": (bare_of_its_files, ["LICENSE", COMMIT]),
    "untracked in the way": (untracked_in_the_way, ["NEW", MOVE]),
    "ignored in the way": (ignored_in_the_way, ["NEW", MOVE]),
    "folder in the way": (folder_in_the_way, ["NEW", "move it away"]),
    "link in the way": (link_in_the_way, ["NEW", MOVE]),
    "file where a folder comes": (file_where_a_folder_comes, [MOVE]),
    "link where a folder comes": (link_where_a_folder_comes, [MOVE]),
    "assumed unchanged": (assumed_unchanged, ["README.md", "--no-assume-unchanged"]),
    "skipped": (skipped, ["README.md", "--no-skip-worktree"]),
    "unseen by a monitor": (unseen_by_a_monitor, ["README.md", COMMIT]),
    "no repository": (no_repository, ["git init"]),
    "no commit": (no_commit, [RECORD, "commit the project"]),
    "untracked in an outer one": (untracked_in_an_outer_repository, [RECORD, "commit the project"]),
    "changed beside it": (changed_beside_it, ["file.txt", COMMIT]),
    "merge": (lambda case: case.waiting("merge"), ["MERGE_HEAD", STATUS]),
    "rebase": (lambda case: case.waiting("rebase"), ["rebase-merge", STATUS]),
    "rebase --apply": (lambda case: case.waiting("rebase --apply"), ["rebase-apply", STATUS]),
    "cherry-pick": (lambda case: case.waiting("cherry-pick"), ["CHERRY_PICK_HEAD", STATUS]),
    "index.lock": (locked, ["index.lock", "delete a lock"]),
}


@pytest.mark.parametrize("entry", [Ladder.plain, Ladder.engine], ids=["cookiecutter", "engine"])
@pytest.mark.parametrize("name", CASES)
def test_refused(ladder, stock, name, entry):
    case = Case(ladder, stock)
    spoil, words = CASES[name]
    spoil(case)
    if not (case.project / RECORD).exists():
        (case.project / RECORD).write_bytes((stock.fresh() / RECORD).read_bytes())
    before = snapshot(case.project.parent, repository=True)
    done = entry(ladder, case.project, "1")
    assert done.returncode == 1
    for word in words:
        assert word.replace("NEW", case.new[0]) in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("flight-delays is not upgraded, nothing was changed: ")
    assert snapshot(case.project.parent, repository=True) == before


def test_all_that_is_in_the_way_is_named(ladder, stock):
    case = Case(ladder, stock)
    for name in case.new[:3]:
        case.write(name)
    done = ladder.engine(case.project, "1")
    assert all(str(case.project / name) in done.stderr for name in case.new[:3])


def test_hidden_files_that_do_not_change_are_no_obstacle(ladder, stock):
    case = Case(ladder, stock)
    case.git("update-index", "--skip-worktree", "params.yaml")
    case.write("params.yaml", "mine\n")
    assert ladder.engine(case.project, "1").returncode == 0
    assert (case.project / "params.yaml").read_text() == "mine\n"


def test_a_folder_that_becomes_a_file_and_back(ladder, stock):
    """Only tracked files of the template are in the folder, so nothing is in the way."""
    case = Case(ladder, stock)
    ladder.template = template = stock.template.copy(ladder.folder / "newer")
    shutil.rmtree(template.path("notebooks"))
    template.add("notebooks", "no folder any more\n")
    template.commit()
    (case.project / "notebooks/.ipynb_checkpoints").mkdir()
    ladder.upgrade(case.project, None)
    assert (case.project / "notebooks").read_text() == "no folder any more\n"
    ladder.template = stock.template.copy(ladder.folder / "newest")
    ladder.upgrade(case.project, None, "--allow-older")
    assert files(case.project) == files(stock.fresh())
    case.write("notebooks/.ipynb_checkpoints/x.ipynb")
    ladder.template = template
    done = ladder.engine(case.project, None)
    assert done.returncode == 1
    assert f"{case.project / 'notebooks'} is a folder where a file comes" in done.stderr
    assert (case.project / "notebooks/.ipynb_checkpoints/x.ipynb").exists()


def test_a_template_that_fails_is_refused(ladder, stock):
    """One that refuses the answers, one with a mistake in it, one that is none."""
    case = Case(ladder, stock)
    before = snapshot(case.project, repository=True)
    ladder.template = stock.template.copy(ladder.folder / "newer")
    ladder.template.questions(project_name="x", description="")
    path = ladder.template.folder / "hooks/answers.py"
    path.write_text(
        path.read_text().replace(
            '    """The first thing that is wrong with the answers."""\n',
            '    return "description is out of fashion"\n',
        )
    )
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "description is out of fashion" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    ladder.template = stock.template.copy(ladder.folder / "wrong")
    ladder.template.replace("params.yaml", "task:", "<< nothing.at.all >>\ntask:")
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "the template does not take the answers" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(case.project, repository=True) == before


RECORDS = {  # what somebody put into the answers file, and a word of the answer to it
    "a command": ("description: \"<< cycler.__init__.__globals__.os.popen('COMMAND') >>\"", "'<<'"),
    "a sum": ('description: "shift << 7*7 >> b"', "'<<'"),
    "a block": ('description: "<% x"', "'<%'"),
    "a comment": ('description: "<# x"', "'<#'"),
    "other marks": (
        "description: \"{{ cycler.__init__.__globals__.os.popen('COMMAND') }}\"\n"
        '  _jinja2_env_vars: {variable_start_string: "{{", variable_end_string: "}}"}',
        "_jinja2_env_vars",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_recorded_answer_runs_nothing(ladder, stock, name):
    """Neither by an upgrade nor by cookiecutter's own command, which reads that file by itself."""
    case = Case(ladder, stock)
    written, word = RECORDS[name]
    evidence = ladder.folder / "evidence"
    record = (case.project / RECORD).read_text()
    written = written.replace("COMMAND", f"touch {evidence}")
    case.write(RECORD, re.sub("description: .*", lambda _: written, record))
    ladder.commit(case.project)
    before = snapshot(case.project, repository=True)
    runs = [ladder.plain(case.project, "1", "--accept-hooks", hooks) for hooks in ("yes", "no")]
    if name != "other marks":  # an upgrade does not take them from there
        runs += [ladder.engine(case.project, "1", *options) for options in ([], ["--dry-run"])]
    for done in runs:
        assert not evidence.exists()
        assert done.returncode == 1
        assert word in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert snapshot(case.project, repository=True) == before


FORGED = {  # the answers file, and a word of the sentence
    "tag": (
        "default_context: !!python/object/apply:os.system ['touch EVIDENCE']\n",
        "python/object",
    ),
    "nested": ("default_context: " + "[" * 5000 + "\n", "recursion"),
    "nested tables": ("default_context: " + "{a: " * 5000 + "\n", "recursion"),
    "table as an answer": ("default_context: {maturity_level: {a: b}}\n", "not a list or a table"),
    "number as a key": ("default_context: {1: b}\n", "startswith"),
    "other commit": (
        "default_context: {maturity_level: '0'}\ntemplate: {commit: --output=EVIDENCE}\n",
        "template.commit is no commit",
    ),
    "bytes": ("default_context: \0\n", "cannot be read"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_answers_file_is_refused(ladder, stock, name):
    case = Case(ladder, stock)
    text, word = FORGED[name]
    evidence = ladder.folder / "evidence"
    case.write(RECORD, text.replace("EVIDENCE", str(evidence)))
    ladder.commit(case.project)
    before = snapshot(case.project, repository=True)
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not evidence.exists()
    assert snapshot(case.project, repository=True) == before


def test_a_file_saved_meanwhile_is_not_overwritten(ladder, stock):
    """An editor saves while the template is rendered: refused, as if it had been saved before."""
    case = Case(ladder, stock)
    ladder.template = stock.template.copy(ladder.folder / "newer")
    path = case.project / "README.md"
    hook = ladder.template.folder / "hooks/post_gen_project.py"
    text = hook.read_text(encoding="utf-8")
    start = 'if __name__ == "__main__":\n'
    save = f"    Path({str(path)!r}).write_text('saved meanwhile')\n"
    hook.write_text(text.replace(start, start + save), encoding="utf-8")
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "README.md; commit or stash it" in done.stderr
    assert path.read_text() == "saved meanwhile"
    assert not (case.project / ".git/MERGE_HEAD").exists()
    assert case.git("diff", "--name-only") == "README.md\n"


def test_an_old_git_and_no_git_are_refused(ladder, stock):
    case = Case(ladder, stock)
    before = snapshot(case.project, repository=True)
    tools = ladder.folder / "bin"
    tools.mkdir()
    (tools / "git").write_text("#!/bin/sh\necho git version 2.37.9\n")
    (tools / "git").chmod(0o755)
    path = ladder.env["PATH"]
    ladder.env["PATH"] = f"{tools}{os.pathsep}{path}"
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "it takes git 2.38 or newer, here is git version 2.37.9" in done.stderr
    ladder.env["PATH"] = str(ladder.home)
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "it takes git 2.38 or newer" in done.stderr
    assert snapshot(case.project, repository=True) == before


def test_a_broken_repository_is_refused(ladder, stock):
    """An error of git's that nobody foresaw is a sentence too, and nothing is written."""
    case = Case(ladder, stock)
    blob = case.git("rev-parse", "HEAD:README.md").strip()
    path = case.project / ".git/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(b"rubbish")
    before = snapshot(case.project, repository=True)
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "nothing was changed: git " in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(case.project, repository=True) == before


def test_a_stop_on_the_way_is_told(ladder, stock):
    """A filter of the owner's fails while files are written: it says so, and how to get back.

    It fails the second time: whether it works at all is tried before.
    """
    case = Case(ladder, stock)
    case.git("config", "filter.bad.clean", "cat")
    marker = ladder.folder / "marker"
    case.git("config", "filter.bad.smudge", f"test ! -e {marker} && touch {marker} && cat")
    case.git("config", "filter.bad.required", "true")
    case.write(".git/info/attributes", "README.md filter=bad\n")
    before = snapshot(case.project)
    done = ladder.engine(case.project, "1")
    assert done.returncode == 1
    assert "nothing was changed" not in done.stderr
    assert "undo what was begun with git reset --hard" in done.stderr
    (case.project / ".git/info/attributes").unlink()
    case.git("reset", "-q", "--hard")
    assert snapshot(case.project) == before
    assert case.git("status", "--porcelain") == ""
    assert ladder.engine(case.project, "1").returncode == 0


def test_a_folder_that_is_no_project_is_refused(ladder, stock):
    """cookiecutter neither overwrites nor empties what it finds, whatever its options are."""
    project = ladder.folder / "projects/flight-delays"
    project.mkdir()
    (project / "mine.txt").write_text("mine\n")
    before = snapshot(ladder.folder / "projects")
    command = [BIN / "cookiecutter", ladder.template.folder, "--no-input", "-o", project.parent]
    for options in (["-f"], ["-f", "-s"], ["-f", "--accept-hooks", "no"], []):
        done = ladder.run(*command, *options)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert snapshot(ladder.folder / "projects") == before
    done = ladder.run(*command, "-f")
    assert "is not empty" in done.stderr
    done = ladder.engine(ladder.folder / "nowhere", "1")
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_two_upgrades_at_once(ladder, stock):
    """One of them wins; the other is refused; the project is as after one."""
    case = Case(ladder, stock)
    command = [BIN / "python", ladder.template.folder / "hooks/upgrade.py", case.project]
    options = {"env": ladder.env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([*map(str, command), "--level", "1"], **options) for _ in range(2)]
    codes = sorted(process.wait(60) for process in both)
    for process in both:
        process.communicate()
    assert codes in ([0, 1], [0, 0])
    assert conflicts(case.project) == {}
    assert files(case.project) == files(stock.fresh("1"))
    case.git("merge", "--abort")
    assert case.git("status", "--porcelain") == ""
