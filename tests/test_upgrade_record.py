"""What an upgrade makes of the answers file: its template's age, kept files, a check, an adoption."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from ladder import LINE, RECORD, Ladder, Template, conflicts, files, recorded, snapshot

NEWS = "- Trains twice as fast."
FILTER = '[filter "swap"]\n\tclean = tr a-z n-za-m\n\tsmudge = tr n-za-m a-z\n\trequired = true\n'


@pytest.fixture
def project(ladder, stock) -> Path:
    """A fresh project of level 0."""
    return stock.project(ladder)


def newer(ladder: Ladder, stock, version: str = "0.3.0") -> Template:
    """The next version of the template, with a line in its changelog, committed."""
    template = stock.template.copy(ladder.folder / f"template-{version}")
    file = template.folder / "cookiecutter.json"
    asked = json.loads(file.read_text()) | {"__template_version": version}
    file.write_text(json.dumps(asked))
    log = template.folder / "CHANGELOG.md"
    section = f"## [{version}] - 2030-01-01\n\n### Changed\n\n{NEWS}\n\n## ["
    log.write_text(log.read_text().replace("## [", section, 1))
    template.replace("params.yaml", "task:", "# newer\ntask:")
    template.commit()
    return template


# A template that is older than the recorded one


@pytest.mark.parametrize("entry", [Ladder.plain, Ladder.engine], ids=["cookiecutter", "engine"])
def test_an_older_template_is_refused(ladder, stock, project, entry):
    old, ladder.template = ladder.template, newer(ladder, stock)
    ladder.upgrade(project, None)
    before = snapshot(project, repository=True)
    ladder.template = old
    done = entry(ladder, project, "1")
    assert done.returncode == 1
    assert "has version 0.2.0, older than the recorded 0.3.0: git -C" in done.stderr
    assert f"git -C {old.folder} pull, or go back knowingly with --allow-older" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(project, repository=True) == before


def test_a_stale_clone_of_the_same_version_is_refused(ladder, stock, project):
    """It has the recorded commit but is not there yet, lacks it, or has a part of the history."""
    new, version = newer(ladder, stock, "0.2.0"), ("--level", "1")
    ladder.template = new
    ladder.upgrade(project, None)
    before = snapshot(project, repository=True)
    commit = recorded(project)["template"]["commit"][:12]
    behind = new.copy(ladder.folder / "behind")
    ladder.git(behind.folder, "checkout", "-q", "HEAD~1")
    shallow = ladder.folder / "shallow"
    new.replace("params.yaml", "task:", "# newest\ntask:")
    new.commit()
    ladder.git(ladder.folder, "clone", "-q", "--depth", "1", f"file://{new.folder}", shallow)
    copied = new.copy(ladder.folder / "copied")
    shutil.rmtree(copied.folder / ".git")
    cases = [
        (behind, f"is older than the recorded commit {commit}, or on another branch: git -C"),
        (stock.template, f"lacks the recorded commit {commit}"),
        (Template(shallow), f"git -C {shallow} fetch --unshallow"),
        (copied, "has no history that shows that it is newer"),
    ]
    for template, words in cases:
        ladder.template = template
        done = ladder.engine(project, None, *version)
        assert done.returncode == 1
        assert words in done.stderr
        assert snapshot(project, repository=True) == before
    ladder.template = behind
    assert "2 to change" in ladder.engine(project, None, "--allow-older").stdout
    ladder.git(project, "merge", "--abort")
    ladder.template = new
    assert "level 0 -> 1" in ladder.upgrade(project, "1")


# What is new, and what is one's own


def test_check_tells_what_is_new(ladder, stock, project):
    done = ladder.engine(project, None, "--check")
    assert (done.returncode, done.stdout) == (
        0,
        "flight-delays: template 0.2.0 -> 0.2.0, current\n",
    )
    (project / "README.md").write_text("not committed\n")
    before = snapshot(project, repository=True)
    ladder.template = newer(ladder, stock)
    told = [
        "flight-delays: template 0.2.0 -> 0.3.0, behind: make upgrade",
        "## [0.3.0] - 2030-01-01",
        "### Changed",
        NEWS,
    ]
    done = ladder.engine(project, None, "--check")
    assert (done.returncode, done.stdout.splitlines()) == (1, told)
    shutil.rmtree(ladder.template.folder / ".git")  # by the sections alone
    done = ladder.engine(project, None, "--check")
    assert (done.returncode, done.stdout.splitlines()) == (1, told)
    assert snapshot(project, repository=True) == before


def test_diff_shows_the_owners_edits(ladder, stock, project):
    for name in ("params.yaml", "mine.txt"):
        with (project / name).open("a") as file:
            file.write("# mine\n")
    (project / "LICENSE").unlink()
    ladder.commit(project)
    ladder.template = newer(ladder, stock)
    done = ladder.engine(project, None, "--diff")
    assert done.returncode == 0, done.stderr
    for words in ("params.yaml |  1 +", "deleted file mode 100644", "\n+# mine\n"):
        assert words in done.stdout
    for words in ("newer", "mine.txt", RECORD):
        assert words not in done.stdout
    text = (project / RECORD).read_text()
    (project / RECORD).write_text(text.replace('files: "', 'files: "0'))
    ladder.git(project, "reset", "-q", "--soft", "HEAD~1")
    ladder.git(project, "commit", "-q", "--amend", "-a", "-m", "a false digest")
    done = ladder.engine(project, None, "--diff")
    assert done.returncode == 1
    assert "cannot be proved" in done.stderr


# Kept files


def test_kept_files_are_never_touched(ladder, stock, project):
    """Neither changed, nor deleted, nor added again; the list itself is merged with the rest."""
    keep = "keep:\n  - ./README.md\n  - tests/"
    text = (project / RECORD).read_text()
    (project / RECORD).write_text(text.replace("keep: []", keep))
    (project / "README.md").write_text("all mine\n")
    (project / "tests/test_data.py").unlink()
    ladder.commit(project)
    ladder.template = template = newer(ladder, stock)
    template.delete("tests/test_features.py")
    template.add("tests/test_more.py", "MORE = 1\n")
    template.replace("tests/test_data.py", '"""', '"""Newer. ')
    template.commit()
    before = snapshot(project / "tests")
    done = ladder.engine(project, "1")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("README.md", "tests/test_features.py", "tests/test_more.py", "tests/test_data.py"):
        assert f"  kept as it is: {name}\n" in done.stdout
    assert snapshot(project / "tests") == before
    assert (project / "README.md").read_text() == "all mine\n"
    assert "# newer" in (project / "params.yaml").read_text()
    assert keep in (project / RECORD).read_text()
    ladder.git(project, "commit", "-q", "--no-edit")
    assert "nothing to do" in ladder.upgrade(project, "1")


@pytest.mark.parametrize("keep", ["README.md", "{a: b}", "[1]", f"[{RECORD}]", "[../x]", "[.]"])
def test_a_list_of_kept_files_that_is_none_is_refused(ladder, project, keep):
    text = (project / RECORD).read_text()
    (project / RECORD).write_text(text.replace("keep: []", f"keep: {keep}"))
    ladder.commit(project)
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert f"keep in {RECORD}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# A project without an answers file


def without_record(ladder: Ladder, project: Path, history: bool) -> None:
    (project / RECORD).unlink()
    ladder.commit(project, "without a record")
    if not history:
        shutil.rmtree(project / ".git")
        ladder.git(project, "init", "-q")
        ladder.commit(project)


def test_a_project_without_a_record_is_adopted(ladder):
    """Its answers are found in its files; what is the same is merged, what differs is a conflict."""
    names = {"project_slug": "late-flights", "package_name": "delays", "license": "BSD-3-Clause"}
    project = ladder.generate(task="regression", maturity_level="1", **names)
    was = recorded(project)
    with (project / "params.yaml").open("a") as file:
        file.write("# mine\n")
    (project / "LICENSE").unlink()
    without_record(ladder, project, history=False)
    done = ladder.engine(project, None, "--adopt")
    assert done.returncode == 1
    assert "adopted, with the answers from its files" in done.stdout
    assert conflicts(project) == {"params.yaml": "23"}
    assert recorded(project) == was
    assert (project / "LICENSE").exists()
    ladder.git(project, "checkout", "-q", "--ours", "params.yaml")
    ladder.commit(project)
    assert "nothing to do" in ladder.upgrade(project, None)
    done = ladder.engine(project, None, "--adopt")
    assert done.returncode == 1
    assert f"it has a {RECORD} already: leave out --adopt" in done.stderr


def test_answers_that_are_told_count_more(ladder, stock, project):
    (project / "pyproject.toml").unlink()
    (project / "params.yaml").unlink()
    without_record(ladder, project, history=False)
    given = {"project_slug": "other-flights", "author_name": "Ada"}
    options = [word for pair in given.items() for word in ("--answer", "=".join(pair))]
    done = ladder.engine(project, "1", "--adopt", *options)
    assert "new question license: 'MIT', its default" in done.stdout
    answers = recorded(project)["default_context"]
    assert given.items() <= answers.items()
    assert (answers["package_name"], answers["maturity_level"]) == ("flight_delays", "1")
    assert (project / "params.yaml").exists()
    done = ladder.engine(project, "1", "--answer", "task=regression")
    assert "goes with --adopt" in done.stderr


def test_a_lost_record_is_found_in_the_history(ladder, stock, project):
    """The sentence says how to get it back; adopted with it, nothing is a conflict."""
    text = (project / RECORD).read_text()
    (project / RECORD).write_text(text.replace("keep: []", 'keep: ["params.yaml"]'))
    ladder.commit(project)
    (project / "LICENSE").unlink()
    with (project / "README.md").open("a") as file:
        file.write("mine\n")
    without_record(ladder, project, history=True)
    commit = ladder.git(project, "rev-parse", "--short", "HEAD").strip()
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert f"was deleted in {commit}: git checkout {commit}~ -- {RECORD} brings" in done.stderr
    done = ladder.engine(project, "1", "--adopt")
    assert (done.returncode, done.stderr) == (0, "")
    assert "adopted, with the answers from " in done.stdout
    assert recorded(project) == recorded(stock.fresh("1")) | {"keep": ["params.yaml"]}
    assert not (project / "LICENSE").exists()
    assert LINE in (project / "README.md").read_text()
    assert (project / "README.md").read_text().endswith("mine\n")


# Drives and filters


def test_a_drive_without_modes(ladder, stock):
    """There every file may be executed, and git is told not to look: no change of modes comes of it."""
    clean, drive = ladder.template, stock.template.copy(ladder.folder / "drive")
    ladder.git(drive.folder, "config", "core.fileMode", "false")
    for path in drive.folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.chmod(0o777)
    setting = {"GIT_CONFIG_KEY_0": "core.fileMode", "GIT_CONFIG_VALUE_0": "false"}
    ladder.env |= setting | {"GIT_CONFIG_COUNT": "1"}
    ladder.template = drive
    project = ladder.generate()
    del ladder.env["GIT_CONFIG_COUNT"]
    assert os.access(project / "README.md", os.X_OK)
    assert recorded(project)["template"]["files"] == recorded(stock.fresh())["template"]["files"]
    ladder.git(project, "config", "core.fileMode", "false")
    for template, target in ((clean, project), (drive, stock.project(ladder, name="elsewhere"))):
        ladder.template = template
        assert "cannot be proved" not in ladder.upgrade(target, "1")
        assert "100755" not in ladder.git(target, "ls-files", "-s")


def test_a_digest_with_modes_is_recognised(ladder, stock, project):
    """Records of before have the modes in it."""
    sys.path.insert(0, str(ladder.template.folder / "hooks"))
    import record

    found = record.digest(record.files_in(project, "HEAD"), modes=True)
    assert found != recorded(project)["template"]["files"]
    text = (project / RECORD).read_text()
    (project / RECORD).write_text(f'{text[: text.index("files:")]}files: "{found}"\n')
    (project / "LICENSE").unlink()
    ladder.commit(project)
    assert "nothing to do" in ladder.engine(project, None).stdout
    assert "cannot be proved" not in ladder.upgrade(project, "1")
    assert recorded(project) == recorded(stock.fresh("1"))


def test_a_filter_of_gits(ladder, stock, project):
    """What the template writes goes through it as well: stored encrypted, readable in the folder.

    Also in a folder of a repository.
    """
    ladder.configure(FILTER)
    shutil.rmtree(project / ".git")
    ladder.git(project.parent, "init", "-q")
    (project / ".gitattributes").write_text("* text=auto\n*.md filter=swap\n*.mk filter=swap\n")
    with (project / "README.md").open("a") as file:
        file.write("mine\n")
    ladder.git(project, "add", "--renormalize", ".")
    ladder.commit(project)
    assert "# Flight" not in ladder.git(project, "show", "HEAD:./README.md")
    before = snapshot(project)
    done = ladder.engine(project, "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert LINE in (project / "README.md").read_text()
    assert (project / "README.md").read_text().endswith("mine\n")
    makefile = "make/continuous_training.mk"
    fresh = (stock.fresh("1") / makefile).read_text()
    assert (project / makefile).read_text() == fresh
    assert ladder.git(project, "show", f":./{makefile}") != fresh
    assert ladder.git(project, "status", "--porcelain").count(" M ") == 0
    ladder.git(project, "merge", "--abort")
    assert snapshot(project) == before
    for level in ("1", "0"):
        assert ladder.engine(project, level).returncode == 0
        ladder.git(project, "commit", "-q", "--no-edit")
    assert not (project / makefile).exists()


@pytest.mark.parametrize("way", ["absent", "smudge", "clean"])
def test_a_filter_that_fails_is_refused(ladder, project, way):
    """Before anything is written: one that is not set up here, one that cannot write or read."""
    bad = FILTER.replace(f"{way} = tr", f"{way} = false")
    (project / ".git/info/attributes").write_text("*.mk filter=swap\n")
    ladder.configure("" if way == "absent" else bad)
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert "nothing was changed: " in done.stderr
    assert "make/continuous_training.mk" in done.stderr
    assert "filter" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(project, repository=True) == before


def test_a_sparse_checkout(ladder, stock, project):
    """Files come into folders that it leaves out; after `git merge --abort` they are gone again."""
    ladder.git(project, "sparse-checkout", "set", "src", "tests", "requirements", "notebooks")
    before = snapshot(project)
    assert ladder.engine(project, "1").returncode == 0
    assert files(project) == files(stock.fresh("1"))
    ladder.git(project, "merge", "--abort")
    assert snapshot(project) == before
    ladder.git(project, "sparse-checkout", "set", "--no-cone", "/*", "!/README.md")
    assert not (project / "README.md").exists()
    before = snapshot(project, repository=True)
    done = ladder.engine(project, "1")
    assert done.returncode == 1
    assert "README.md is hidden from git: git sparse-checkout disable" in done.stderr
    assert snapshot(project, repository=True) == before


# Between the upgrade and its commit


def test_a_branch_that_is_made_too_late(ladder, stock, project):
    """`git checkout -b` makes git forget the merge: it is committed with a message, or reset."""
    before = snapshot(project)
    ladder.engine(project, "1")
    assert ladder.run("git", "switch", "-c", "x", cwd=project).returncode
    ladder.git(project, "checkout", "-q", "-b", "level-1")
    assert ladder.run("git", "merge", "--abort", cwd=project).returncode
    ladder.git(project, "reset", "-q", "--merge")
    assert snapshot(project) == before
    ladder.engine(project, "1")
    ladder.git(project, "checkout", "-q", "-b", "again")
    ladder.git(project, "commit", "-q", "-m", "level 1")
    assert files(project) == files(stock.fresh("1"))
    assert "nothing to do" in ladder.upgrade(project, "1")


def test_abort_takes_what_was_staged_with_it(ladder, project):
    """As the summary says; what is not staged stays."""
    done = ladder.engine(project, "1")
    assert "git merge --abort, which takes what you staged since with it" in done.stdout
    (project / "staged.txt").write_text("mine\n")
    ladder.git(project, "add", "staged.txt")
    (project / "untracked.txt").write_text("mine\n")
    ladder.git(project, "merge", "--abort")
    assert not (project / "staged.txt").exists()
    assert (project / "untracked.txt").exists()


def test_a_python_without_cookiecutter_gets_a_sentence(ladder, project):
    bare = Path(sys.base_prefix) / "bin" / Path(sys.executable).name
    upgrade = ladder.template.folder / "hooks/upgrade.py"
    command = [bare, "-S", upgrade, project]
    done = ladder.run(*command)
    assert done.returncode == 1
    assert "has no cookiecutter: use the project's .venv/bin/python, or install it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
