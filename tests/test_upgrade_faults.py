"""Whatever an owner did, and whenever an upgrade is killed: no committed line is lost."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import BIN, TEMPLATE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ladder import RECORD, Ladder, Stock, Template, conflicts, files, snapshot

sys.path.insert(0, str(TEMPLATE / "hooks"))
import plumbing
import upgrade

ODD = [
    "Größe/日本 語.py",
    "a'b\"c.txt",
    "new\nline/tab\t.md",
    "return\r.txt",
    "-x",
    "back\\slash",
    ".hidden/.deep/.file",
    "make",  # a file where a level brings a folder
    "notebooks/01-explore.ipynb/inside.txt",  # a folder where the template has a file
]
PLACES = st.integers(0, 10**6)
EDIT = st.tuples(
    st.sampled_from(["insert", "insert", "append", "replace", "crlf", "mode", "delete"]),
    PLACES,
    PLACES,
)
MOVE = st.tuples(st.sampled_from(["rename", "copy", "link"]), PLACES, PLACES)
ADD = st.tuples(st.sampled_from(["add", "add", "binary", "move folder", "ignored"]), PLACES, PLACES)
WORK = st.lists(st.one_of(EDIT, MOVE, ADD), max_size=12)
ROUTES = st.sampled_from(["01", "02", "12", "10", "20", "21", "0n", "1n", "2n"])


class Owner:
    """Does random things to a project, and knows which words it has written."""

    def __init__(self, project: Path, stock: Stock) -> None:
        self.project = project
        self.names = sorted({*snapshot(stock.fresh("2")), *ODD, "own/file.txt", "deep/er/own.bin"})
        self.count = 0

    def word(self) -> str:
        self.count += 1
        return f"mine-{self.count:04d}-enim"

    def old(self, place: int) -> Path | None:
        """A file that is there."""
        there = [
            n for n, (m, _) in sorted(snapshot(self.project).items()) if (m & 0o170000) != 0o040000
        ]
        there = [name for name in there if name != RECORD]
        return self.project / there[place % len(there)] if there else None

    def new(self, place: int) -> Path | None:
        """A path to write to: one that a level has, or an odd one; not inside of a file."""
        path = self.project / self.names[place % len(self.names)]
        inside = [p for p in path.parents if self.project in p.parents]
        if (
            path.name == RECORD
            or path.is_dir()
            or any(p.is_symlink() or p.is_file() for p in inside)
        ):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def do(self, what: str, one: int, two: int) -> None:
        if what in ("add", "binary", "link", "rename", "copy", "ignored"):
            path = self.new(two)
        else:
            path = self.old(one)
        if path is None:
            return
        getattr(self, what.replace(" ", "_"))(path, one, two)

    def insert(self, path: Path, one: int, two: int) -> None:
        if not path.is_symlink():
            lines = path.read_bytes().splitlines(keepends=True)
            lines.insert(two % (len(lines) + 1), f"# {self.word()}\n".encode())
            path.write_bytes(b"".join(lines))

    def append(self, path: Path, one: int, two: int) -> None:
        if not path.is_symlink():
            path.write_bytes(path.read_bytes() + f"\n{self.word()}".encode())

    def replace(self, path: Path, one: int, two: int) -> None:
        if not path.is_symlink():
            path.write_text(f"{self.word()}\n" * 3)

    def crlf(self, path: Path, one: int, two: int) -> None:
        if not path.is_symlink():
            path.write_bytes(path.read_bytes().replace(b"\n", f" {self.word()}\r\n".encode(), 5))

    def mode(self, path: Path, one: int, two: int) -> None:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o111)

    def delete(self, path: Path, one: int, two: int) -> None:
        path.unlink()

    def add(self, path: Path, one: int, two: int) -> None:
        path.unlink(missing_ok=True)
        path.write_text(f"{self.word()}\n{self.word()}\n")

    def binary(self, path: Path, one: int, two: int) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(f"{self.word()}\0".encode() + bytes(range(256)))

    def link(self, path: Path, one: int, two: int) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(self.word())

    def ignored(self, path: Path, one: int, two: int) -> None:
        """Never committed, and never to be touched."""
        if not path.exists() and not path.is_symlink():
            with (self.project / ".git/info/exclude").open("a", newline="") as file:
                file.write("/ignored-*\n")
            (self.project / f"ignored-{two}").write_text(self.word())

    def rename(self, path: Path, one: int, two: int) -> None:
        if (old := self.old(one)) and old != path:
            path.unlink(missing_ok=True)
            old.rename(path)

    def copy(self, path: Path, one: int, two: int) -> None:
        if (old := self.old(one)) and old != path and not old.is_symlink():
            path.unlink(missing_ok=True)
            shutil.copy2(old, path)

    def move_folder(self, path: Path, one: int, two: int) -> None:
        target = self.project / f"moved-{two % 3}"
        if path.parent != self.project and not target.exists():
            path.parent.rename(target)


def words(contents: list[bytes]) -> set[bytes]:
    """The owner's words in files, links, blobs."""
    return {word for content in contents for word in re.findall(rb"mine-\d{4}-enim", content)}


def unmerged(ladder: Ladder, project: Path) -> list[bytes]:
    """The contents of all stages in the index."""
    found = ladder.git(project, "ls-files", "-uz").split("\0")[:-1]
    objects = [entry.split()[1] for entry in found]
    return [os.fsencode(ladder.git(project, "cat-file", "blob", name)) for name in objects]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Its files as git has them: no empty folder, and LF, as .gitattributes asks for."""
    found = snapshot(folder).items()
    return {p: (m, c.replace(b"\r\n", b"\n")) for p, (m, c) in found if not stat.S_ISDIR(m)}


def newer(stock: Stock) -> Template:
    """Another version of the template: files edited, renamed, moved, deleted and added."""
    folder = stock.folder / "newer-version"
    if folder.exists():
        return Template(folder)
    template = stock.template.copy(folder)
    template.replace("params.yaml", "task:", "# newer\ntask:")
    template.replace("src/PACKAGE/experiment/errors.py", '"""', '"""Newer. ')
    template.move("src/PACKAGE/experiment/plots.py", "src/PACKAGE/experiment/figures.py")
    template.move("src/PACKAGE/experiment/ui.py", "pages/ui.py")
    template.delete("tests/test_features.py")
    template.add("own/file.txt", "the template's\n")
    template.path("README.md").chmod(0o755)
    template.commit()
    return template


def loses_nothing(stock: Stock, route: str, work: list, task: str) -> None:
    """Make a project, let its owner work, upgrade it, and look for every word; then go back."""
    start, to = route
    with tempfile.TemporaryDirectory(prefix="example-", dir=stock.folder) as folder:
        ladder = Ladder(Path(folder), newer(stock) if to == "n" else stock.template)
        project = stock.project(ladder, start, task)
        owner = Owner(project, stock)
        for step in work:
            owner.do(*step)
        ladder.commit(project)
        for name in (".env", "data/raw/2013-01.parquet", "mlflow.db"):
            if not os.path.lexists(project / name) and (project / name).parent.is_dir():
                (project / name).write_text("never touched")
        before, head = contents(project), ladder.git(project, "rev-parse", "HEAD")
        everything = snapshot(project, repository=True)
        tracked = ladder.git(project, "ls-files", "-z").split("\0")[:-1]
        mine = words([before[name][1] for name in tracked])
        given = {} if to == "n" else {"maturity_level": to}
        said, complained = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            template = ladder.template.folder
            code = upgrade.run(project, template, given, str(template))
        complained.seek(0)
        if "nothing was changed" in complained.read():
            assert code == 1
            assert snapshot(project, repository=True) == everything
            return
        after = contents(project)
        kept = words([content for _, content in after.values()])
        kept |= words(unmerged(ladder, project))
        assert mine <= kept, sorted(mine - kept)
        assert (code == 1) == bool(conflicts(project))
        untracked = ladder.git(project, "ls-files", "-oz").split("\0")[:-1]
        assert {name: after[name] for name in untracked} == {
            name: before[name] for name in untracked
        }
        differs = ladder.git(project, "diff", "--name-only", "-z").split("\0")[:-1]
        assert set(differs) == set(conflicts(project))
        ladder.git(project, "merge", "--abort")
        assert contents(project) == before
        assert ladder.git(project, "rev-parse", "HEAD") == head
        assert ladder.git(project, "diff-index", "--name-only", "HEAD") == ""


@pytest.fixture(autouse=True)
def engine_in_process(ladder, monkeypatch):
    """The engine runs in this process, with the same home and settings as elsewhere."""
    monkeypatch.setattr(plumbing, "ENVIRONMENT", ladder.env | {"LC_ALL": "C"})
    monkeypatch.setattr(upgrade, "ENVIRONMENT", ladder.env | {"LC_ALL": "C"})
    monkeypatch.setattr(tempfile, "tempdir", str(ladder.temporary))


QUICK = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
TASKS = st.sampled_from(["classification", "regression"])


@QUICK
@given(route=ROUTES, work=WORK, task=TASKS)
def test_no_line_is_lost(stock, route, work, task):
    loses_nothing(stock, route, work, task)


@pytest.mark.nightly
@settings(QUICK, max_examples=500)
@given(route=ROUTES, work=WORK, task=TASKS)
def test_no_line_is_lost_whatever_is_tried(stock, route, work, task):
    loses_nothing(stock, route, work, task)


# Kills


class Victim:
    """A project with edits and a conflict, slow to be written, and an upgrade to be killed."""

    def __init__(self, ladder: Ladder, stock: Stock) -> None:
        self.ladder, self.project = ladder, stock.project(ladder, "1")
        own = self.project / stock.only(2)[0]
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text("mine\n")
        (self.project / "LICENSE").unlink()
        readme = self.project / "README.md"
        readme.write_text(readme.read_text() + "mine\n")
        ladder.template = template = newer(stock).copy(ladder.folder / "newer")
        for number in range(20):
            template.add(f"many/{number}.txt", f"{number}\n")
        template.commit()
        ladder.commit(self.project)
        self.before, self.head = snapshot(self.project), self.git("rev-parse", "HEAD")
        start = time.monotonic()
        self.upgrade().wait()
        self.seconds = time.monotonic() - start
        self.after = self.state()
        assert conflicts(self.project)
        self.git("reset", "-q", "--hard")
        assert snapshot(self.project) == self.before

    def git(self, *arguments: str) -> str:
        return self.ladder.git(self.project, *arguments)

    def upgrade(self) -> subprocess.Popen:
        engine = self.ladder.template.folder / "hooks/upgrade.py"
        return subprocess.Popen(
            [str(BIN / "python"), str(engine), str(self.project), "--level", "2"],
            env=self.ladder.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def state(self) -> tuple:
        return self.git("ls-files", "-s"), snapshot(self.project)

    def slow(self, on: bool) -> None:
        """Each file takes its time: a filter of git's own, without a trace in the project's files."""
        attributes = self.project / ".git/info/attributes"
        if on:
            self.git("config", "filter.slow.smudge", "sleep 0.01; cat")
            attributes.write_text("* filter=slow\n")
        else:
            attributes.unlink()

    def kill(self, chance: random.Random, writing: bool) -> str:
        """Kill at a random moment, of the writing or of the whole; in which state that left it."""
        index = self.project / ".git/index"
        before = index.stat().st_ino
        self.slow(True)
        process = self.upgrade()
        try:
            if writing:  # begins with another index
                while index.stat().st_ino == before and process.poll() is None:
                    time.sleep(0.0002)
                time.sleep(chance.uniform(0, 0.5))
            else:
                time.sleep(chance.uniform(0, self.seconds))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.slow(False)
        shutil.rmtree(self.ladder.temporary)
        self.ladder.temporary.mkdir()
        if index.stat().st_ino == before:
            return "not begun"
        return "finished" if self.state() == self.after else "half-way"

    def recover(self) -> str:
        """What brings back HEAD: nothing, `git merge --abort`, or the last resort."""
        way = "nothing"
        if (self.project / ".git/MERGE_HEAD").exists():
            way = "abort"
            if self.ladder.run("git", "merge", "--abort", cwd=self.project).returncode:
                way = "reset"
        if way == "reset" or self.git("status", "--porcelain"):
            way = "reset"
            self.git("reset", "-q", "--hard")
        assert self.git("rev-parse", "HEAD") == self.head
        assert self.git("status", "--porcelain", "--ignored") == ""
        assert snapshot(self.project) == self.before
        assert self.git("fsck", "--no-dangling") == ""
        return way


def kills(ladder: Ladder, stock: Stock, number: int) -> dict[str, int]:
    """Kill, recover, and upgrade undisturbed; how often each state was met."""
    victim, chance = Victim(ladder, stock), random.Random()
    met: dict[str, int] = {}
    for count in range(number):
        state = victim.kill(chance, writing=count % 4 != 0)
        way = victim.recover()
        met[f"{state}, {way}"] = met.get(f"{state}, {way}", 0) + 1
        if count % 4 == 1:
            victim.upgrade().wait()
            assert victim.state() == victim.after
            victim.git("merge", "--abort")
            assert snapshot(victim.project) == victim.before
    leftovers = [p.name for p in (victim.project / ".git").iterdir() if "upgrade" in p.name]
    assert not leftovers
    return met


def test_a_killed_upgrade_can_be_taken_back(ladder, stock):
    met = kills(ladder, stock, 20)
    assert sum(n for state, n in met.items() if state.startswith("half-way")) >= 5, met


@pytest.mark.nightly
def test_two_hundred_kills(ladder, stock):
    met = kills(ladder, stock, 200)
    assert sum(n for state, n in met.items() if state.startswith("half-way")) >= 50, met


def test_files_lists_what_git_tracks(stock):
    """The comparison that other tests rely on sees every file, its mode, and no answers file."""
    found = files(stock.fresh())
    assert "README.md" in found
    assert RECORD not in found
