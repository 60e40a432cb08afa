"""Take a generated project to another level, or to a newer template, by a three-way merge.

base    the project as the template once wrote it: the recorded answers, rendered
yours   the project in HEAD
theirs  the project as the template writes it today, from the new answers

`git merge-tree` merges them in a temporary repository. Only if nothing stands in the way of the
result do index and files change, as in a merge that waits for its commit: `git merge --abort` undoes
it. `python hooks/upgrade.py PROJECT --level 1` is what a project's `make upgrade LEVEL=1` runs, and
floors.py leads cookiecutter here. Exit code 0: merged, or nothing to do; 1: refused, or conflicts.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

if not find_spec("cookiecutter"):
    sys.exit(
        f"{sys.executable} has no cookiecutter: use the project's .venv/bin/python, or install it"
    )

import adoption
import monorepo
import moves
import record
import trees
from plumbing import ENVIRONMENT, Refused, ask, git
from record import LEVEL, RECORD
from versions import news, refuse_older, version_of

VERSION = (2, 38)  # of git: the first with `git merge-tree --write-tree`
WHO = ["-c", "user.name=upgrade", "-c", "user.email=upgrade@localhost"]
RENAMES = ["-c", "merge.renames=true", "-c", "merge.renameLimit=10000"]
RENAMES += ["-c", "merge.directoryRenames=conflict"]
WAITING = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "sequencer"]
WAITING += ["rebase-merge", "rebase-apply", "index.lock"]
CONFLICTS = {  # by the stages that a path has: 1 base, 2 yours, 3 theirs
    "123": "changed by you and by the template",
    "23": "added by you and by the template",
    "12": "changed by you, gone from the template",
    "13": "deleted by you, changed by the template",
    "3": "new or moved by the template, where its folder is now",
}
WORDS = {"A": "add", "M": "change", "T": "change", "D": "delete"}
KEEP = "make setup, look with git diff --cached, keep it with git commit --no-edit"
RESOLVE = "resolve the conflicts, git add them, git commit --no-edit"
UNDO = "undo it with git merge --abort, which takes what you staged since with it"


class Halfway(Refused):
    """What stopped the writing, which had begun."""

    state = "undo what was begun with git reset --hard"


class Change(NamedTuple):
    """What the merge does to a file: status A, M, T or D, and its new mode and object.

    The path is from the repository's root.
    """

    path: str
    status: str
    mode: str
    object: str


class Project:
    """The project's folder, a part or all of a git repository, in a state that can be merged into."""

    def __init__(self, folder: Path, reading: bool = False, adopt: bool = False) -> None:
        version = ask(Path(), "--version") or "none"
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < VERSION:
            raise Refused(f"it takes git {VERSION[0]}.{VERSION[1]} or newer, here is {version}")
        about = ("--show-toplevel", "--absolute-git-dir", "--show-object-format", "--show-prefix")
        try:
            found = git(folder, "rev-parse", *about, "--git-path", "objects").split("\n")
        except Refused as error:
            advice = "git init, commit everything, and try again"
            raise Refused(f"{folder} is in no git repository ({error}): {advice}") from None
        self.folder, self.top, self.git_dir = folder, Path(found[0]), Path(found[1])
        self.format, self.prefix, self.objects = found[2], found[3], (folder / found[4]).resolve()
        self.record = ask(folder, "rev-parse", "-q", "--verify", f"HEAD:{self.prefix}{RECORD}")
        if not self.record and not adopt:
            raise Refused(self.without_record())
        self.head, self.tree = git(folder, "rev-parse", "HEAD", f"HEAD:{self.prefix}").split()
        if not reading:
            self.check()
        if adopt:
            self.adopted()
        else:
            text = git(folder, "cat-file", "blob", self.record)
            self.recorded, self.keep = record.read(text), record.kept(text)
        self.slug = self.recorded["default_context"].get("project_slug", folder.name)
        # Of its workflows those at the repository's root, and those that are to come there.
        self.outside, self.inside = set[str](), set[str]()

    def place(self, path: str) -> str:
        """Where a file of the project is, from the repository's root."""
        return monorepo.place(path, self.prefix, self.slug)

    def shown(self, path: str) -> str:
        """A path from the repository's root as seen from the project's folder."""
        return os.path.relpath(path, self.prefix) if self.prefix else path

    def without_record(self) -> str:
        """Why there is no answers file in HEAD, and the way out."""
        deleted = ("log", "-1", "--format=%h", "--diff-filter=D", "--", RECORD)
        if commit := ask(self.folder, *deleted):
            way = f"git checkout {commit}~ -- {RECORD} brings it back"
            return f"{self.folder / RECORD} was deleted in {commit}: {way}, then commit it"
        way = "commit the project, or adopt one without a record with hooks/upgrade.py --adopt"
        return f"{self.folder / RECORD} is in no commit: {way}"

    def adopted(self) -> None:
        """Take the answers from the project's history or files; Refused if it has a record."""
        self.keep, told, readable = [], "its files", False
        with suppress(Refused):
            record.read(git(self.folder, "cat-file", "blob", self.record or "-"))
            readable = True
        if readable:
            raise Refused(f"it has a {RECORD} already: leave out --adopt")
        if found := adoption.lost(self.folder, self.prefix):
            told, text = found
            self.recorded, self.keep = record.read(text), record.kept(text)
        else:
            answers = adoption.from_files(self.folder)
            self.recorded = {"default_context": answers, "template": {}}
        print(f"{self.folder.name}: adopted, with the answers from {told}")

    def check(self) -> None:
        """Refused unless HEAD, index and files agree, and no other git command waits or works."""
        for path in (self.git_dir / name for name in WAITING):
            if path.exists():
                advice = "git status tells what waits; delete a lock that no git holds"
                raise Refused(f"{path} exists: {advice}")
        changed = git(self.top, "status", "--porcelain", "-uno", "--ignore-submodules=dirty")
        if changed or git(self.top, "rev-parse", "HEAD").strip() != self.head:
            names = ", ".join(line[3:] for line in changed.splitlines()[:5])
            raise Refused(f"changed and not committed: {names}; commit or stash it, and try again")

    def once_written(self, files: str) -> str | None:
        """The tree of a commit of the project's history whose files have this digest."""
        commits = git(self.folder, "rev-list", "-n", "100", "HEAD", "--", RECORD).split()
        trees = (ask(self.folder, "rev-parse", f"{c}:{self.prefix}") for c in commits)
        found = (t for t in trees if t and record.matches(record.files_in(self.folder, t), files))
        return next(found, None)


class Workshop:
    """A temporary repository that also sees the project's objects: renderings, trees, the merge."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder, self.project, self.modes = folder, project, True
        git(folder, "init", "-q", f"--object-format={project.format}")
        # What is rendered here stays in its folder.
        (folder / ".git/info/exclude").write_text("*\n")
        (folder / ".git/objects/info/alternates").write_bytes(os.fsencode(project.objects) + b"\n")
        places = {"cookiecutters_dir": str(folder), "replay_dir": str(folder / "replay")}
        (folder / "cookiecutter.yaml").write_text(json.dumps(places), encoding="utf-8")
        if project.prefix:
            where = (project.top, project.prefix, project.slug)
            project.tree, project.outside, project.inside = monorepo.gathered(
                folder, project.tree, *where
            )

    def start(self, template: Path, answers: dict, name: str) -> subprocess.Popen:
        """Begin to render the template into the folder `name`; no commit, as it is in a repository."""
        self.modes &= ask(template, "config", "--type=bool", "core.fileMode") != "false"
        command = [sys.executable, "-m", "cookiecutter", template.resolve(), "--no-input"]
        command += ["--config-file", self.folder / "cookiecutter.yaml", "-o", self.folder / name]
        command += [f"{key}={answer}" for key, answer in answers.items()]
        options = {"cwd": self.folder, "env": ENVIRONMENT, "stdin": subprocess.DEVNULL}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        return subprocess.Popen(command, **options, **pipes)

    def rendered(self, process: subprocess.Popen, name: str) -> tuple[Path, record.Files]:
        """The folder that `start` was to render, and its files; Refused if the answers are."""
        said = process.communicate()[0].strip() or "cookiecutter failed"
        if process.returncode:
            raise Refused(f"the template does not take the answers: {said.splitlines()[0]}")
        folder = next((self.folder / name).iterdir())
        return folder, record.files_of(folder)

    def tree(self, folder: Path, only: str = ".") -> str:
        """The git tree of a rendered folder, or of one file in it."""
        place = ("--git-dir", self.folder / ".git", "--work-tree", folder)
        place += () if self.modes else ("-c", "core.fileMode=false")  # they come from the drive
        index = {"GIT_INDEX_FILE": folder.parent / "index"}
        git(folder, *place, "add", "--all", "--force", "--", only, **index)
        return git(folder, *place, "write-tree", **index).strip()

    def old(self, template: Path, commit: str | None) -> Path:
        """The template as of its recorded commit if it still has that, else as it is now."""
        place, index = self.folder / "old", {"GIT_INDEX_FILE": self.folder / "old-index"}
        if commit and commit != record.clean_commit(template):
            with suppress(Refused):
                place.mkdir()
                git(template, "--work-tree", place, "read-tree", "-u", "--reset", commit, **index)
        return place if (place / "cookiecutter.json").exists() else template

    def base(self, process: subprocess.Popen) -> tuple[str, bool]:
        """The tree that the template once wrote, and whether that is proved by the recorded digest.

        If not, a tree of the answers file alone: with no base, all that differs is a conflict.
        """
        about, folder, found = self.project.recorded["template"], None, {}
        with suppress(Refused):
            folder, found = self.rendered(process, "base")
            record.stamp(folder, about)
        if folder and record.matches(found, about.get("files")):
            project = self.project
            plain = monorepo.plain_hooks(self.folder, project.tree, project.prefix)
            monorepo.adapt(folder, project.prefix, project.slug, project.inside | plain)
            return self.tree(folder), True
        if tree := self.project.once_written(about.get("files", record.digest(found))):
            return tree, True
        return self.tree(folder, RECORD) if folder else git(self.folder, "mktree").strip(), False

    def merge(
        self, base: str, yours: str, theirs: str, label: str
    ) -> tuple[str, dict[str, list[str]]]:
        """The merged tree, and for each path in conflict its versions: mode, object and stage."""
        start = git(self.folder, *WHO, "commit-tree", base, "-m", "base").strip()
        for name, tree in (("yours", yours), (label, theirs)):
            commit = git(self.folder, *WHO, "commit-tree", tree, "-p", start, "-m", name).strip()
            git(self.folder, "update-ref", f"refs/heads/{name}", commit)
        merge = ("merge-tree", "--write-tree", "-z", "--no-messages", "yours", label)
        tree, *entries = git(self.folder, *RENAMES, *merge, fine=(0, 1)).split("\0")
        conflicts: dict[str, list[str]] = {}
        for about, _, path in (entry.partition("\t") for entry in entries if entry):
            conflicts.setdefault(path, []).append(about)
        return tree, conflicts

    def relocate(
        self, merged: str, conflicts: dict[str, list[str]], base: str, yours: str
    ) -> tuple[str, dict[str, str]]:
        """The merged tree with new files in the folders that the owner moved, and those folders.

        Each such file is added to the conflicts: where it belongs is the owner's to say.
        """
        mine = record.files_in(self.folder, yours)
        new = [p for p in record.files_in(self.folder, merged) if p not in mine | conflicts]
        folders = moves.moved_folders(self.folder, base, yours)
        merged, found = moves.relocated(self.folder, merged, new, folders)
        conflicts |= found
        return merged, folders

    def changes(self, merged: str) -> list[Change]:
        """What the merged tree changes in yours; deletions come first."""
        flags = ("diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames")
        words = git(self.folder, *flags, self.project.tree, merged).split("\0")[:-1]
        pairs = ((about.split(), path) for about, path in zip(words[::2], words[1::2], strict=True))
        found, project = [], self.project
        for about, path in pairs:
            status = about[4]
            if path in project.inside:
                found.append(Change(project.prefix + path, "D", "0", "0" * len(about[3])))
                status = "" if status == "D" else "A"
            if status:
                found.append(Change(project.place(path), status, about[1], about[3]))
        return sorted(found, key=lambda change: change.status != "D")

    def apply(self, changes: list[Change], conflicts: dict[str, list[str]], message: str) -> None:
        """Bring the merge into index and files; HEAD stays.

        The index goes first: after a kill `git reset --hard` then knows every file that was written.
        """
        project, objects = self.project, self.folder / ".git/objects"
        for path in objects.glob("[0-9a-f][0-9a-f]/*"):
            target = project.objects / path.relative_to(objects)
            target.parent.mkdir(exist_ok=True)
            # A name that `git gc` sweeps up after a kill.
            os.replace(shutil.copy2(path, target.with_name(f"tmp_obj_{target.name}")), target)
        plain = self.index("plain", {c.path: [f"{c.mode} {c.object}"] for c in changes})
        unmerged = {path: [f"0 {'0' * len(project.head)}", *at] for path, at in conflicts.items()}
        project.check()  # again: an editor may have saved a file meanwhile
        self.publish(self.index("unmerged", unmerged, plain))
        try:
            (project.git_dir / "MERGE_MSG").write_text(message, encoding="utf-8")
            # HEAD itself: git drops it from the parents, so the commit is ordinary, to be rebased.
            (project.git_dir / "MERGE_HEAD").write_text(f"{project.head}\n", encoding="utf-8")
            for path in (project.top / c.path for c in changes if c.status == "D"):
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    while (path := path.parent) not in (project.folder, project.top):
                        path.rmdir()
            names = "".join(f"{c.path}\0" for c in changes if c.status != "D")
            write = ("checkout-index", "-f", "-q", "-z", "--stdin")
            git(project.top, *write, text=names, GIT_INDEX_FILE=plain)
            seen = self.index("seen", {})
            git(project.top, "update-index", "-q", "--refresh", fine=(0, 1), GIT_INDEX_FILE=seen)
            self.publish(seen)
        except (Refused, OSError) as error:
            raise Halfway(str(error)) from None

    def index(self, name: str, entries: dict[str, list[str]], start: Path | None = None) -> Path:
        """A copy of the project's index, or of another one, with some entries changed."""
        index = shutil.copy2(start or self.project.git_dir / "index", self.folder / name)
        pairs = ((about, path) for path, versions in entries.items() for about in versions)
        text = "".join(f"{about}\t{path}\0" for about, path in pairs)
        add = ("update-index", "-z", "--add", "--index-info")
        git(self.project.top, *add, text=text, GIT_INDEX_FILE=index)
        return index

    def publish(self, index: Path) -> None:
        """Make it the project's index, with git's own lock held as briefly as it takes to rename."""
        ready, lock = self.project.git_dir / "index.upgrade", self.project.git_dir / "index.lock"
        os.link(shutil.copy(index, ready), lock)
        ready.unlink()
        os.replace(lock, self.project.git_dir / "index")


def obstacles(project: Project, changes: list[Change]) -> list[str]:
    """What is in the way and git does not see: untracked, ignored, hidden files, submodules."""
    found, at = [], {project.top / change.path: change for change in changes}
    gone = {path for path, change in at.items() if change.status == "D"}
    for path, change in at.items():
        if change.mode == "160000" or (path in gone and path.is_dir() and not path.is_symlink()):
            found.append(f"{path} is a submodule where the template writes: move it away")
        inside = [p for p in path.parents if project.top in p.parents]
        for place in (path, *inside) if change.status == "A" else ():
            if place.is_symlink() or not place.is_dir():
                if os.path.lexists(place) and place not in gone:
                    found.append(f"{place} is in the way: commit it, or move it away")
            elif place == path and any(p not in gone and not p.is_dir() for p in path.rglob("*")):
                found.append(f"{place} is a folder where a file comes: move it away")
    sparse = ask(project.folder, "config", "--type=bool", "core.sparseCheckout") == "true"
    for entry in git(project.top, "ls-files", "-v", "-z").split("\0")[:-1]:
        path = project.top / entry[2:]
        if entry[0] != "H" and path in at and at[path].status != "A":
            bits = "--no-skip-worktree" if entry[0] in "Ss" else "--no-assume-unchanged"
            way = f"git update-index {bits} {path}"
            if sparse and entry[0] == "S":
                way = "git sparse-checkout disable, until the upgrade is committed"
            found.append(f"{path} is hidden from git: {way}")
    return list(dict.fromkeys(found))


def upgrade(
    folder: Path,
    template: Path,
    given: dict,
    source: str,
    dry_run: bool = False,
    allow_older: bool = False,
    adopt: bool = False,
    package: str | None = None,
) -> int:
    """Merge; the answers `given` may differ from the recorded ones in the level alone.

    With `package` the project's package gets that name.
    """
    project = Project(folder, adopt=adopt)
    recorded, was = project.recorded["default_context"], project.recorded["template"]
    if adopt and not was:  # found in files, where an answer that is given counts more
        recorded |= given
    if not allow_older:
        refuse_older(template, was, source)
    asked = record.answers(recorded, given, template)
    was_called = recorded.get("package_name", "")
    if package:
        asked["package_name"] = package
    with tempfile.TemporaryDirectory(prefix="upgrade-") as place:
        shop = Workshop(Path(place), project)
        old = shop.old(template, was.get("commit"))
        with shop.start(old, recorded, "base") as base, shop.start(template, asked, "new") as new:
            rendering, files = shop.rendered(new, "new")
            now = record.read((rendering / RECORD).read_text(encoding="utf-8"))["default_context"]
            once, proved = shop.base(base)
        moving = any((rendering / path).exists() for path in project.inside)
        same = record.matches(files, was.get("files")) and now == recorded
        if same and not (adopt or moving):
            print(f"nothing to do: {folder} has level {now[LEVEL]} of this template already")
            return 0
        version = record.write(rendering, template, source)
        if adopt:  # the answers file is the template's, whatever the project has there
            mine = ("100644", project.record) if project.record else None
            once = moves.rewritten(shop.folder, once, {RECORD: mine})
            path, keep = rendering / RECORD, f"keep: {json.dumps(project.keep)}"
            text = path.read_text(encoding="utf-8").replace("keep: []", keep)
            path.write_text(text, encoding="utf-8", newline="\n")
        monorepo.adapt(rendering, project.prefix, project.slug)
        yours = project.tree
        if package and package != was_called:
            moves.refuse_untracked(folder, was_called)
            yours = moves.renamed(shop.folder, yours, was_called, package)
        both = (once, shop.tree(rendering))
        (once, theirs), kept = trees.as_in_project(shop.folder, folder, yours, project.keep, *both)
        inside = package or was_called
        once, mine = (moves.followed(shop.folder, t, theirs, inside) for t in (once, yours))
        merged, conflicts = shop.merge(once, mine, theirs, f"level-{now[LEVEL]}")
        merged, folders = shop.relocate(merged, conflicts, once, mine)
        changes = shop.changes(merged)
        conflicts = {project.place(path): versions for path, versions in conflicts.items()}
        print(f"{folder.name}: level {recorded.get(LEVEL)} -> {now[LEVEL]}, template {version}")
        if not proved:
            print("  what the template once wrote cannot be proved: all that differs is a conflict")
        if package and package != was_called:
            print(f"  package {was_called} -> {package}: its files move, yours too")
        for change in record.differences(recorded | {"package_name": now["package_name"]}, now):
            print(f"  {change}")
        for path in kept:
            print(f"  kept as it is: {path}")
        for change in sorted(c for c in changes if dry_run and c.path not in conflicts):
            print(f"  {WORDS[change.status]} {project.shown(change.path)}")
        count = Counter(WORDS[c.status] for c in changes)
        print("  " + ", ".join(f"{count[w]} to {w}" for w in ("add", "change", "delete")))
        for path, versions in conflicts.items():
            stages = "".join(version[-1] for version in versions)
            about = CONFLICTS.get(stages, "moved by you or by the template")
            print(f"  conflict in {project.shown(path)}: {about}")
        called = package or Path(folders.get(f"src/{was_called}", was_called)).name
        if called != was_called:
            for path in moves.mentions(shop.folder, merged, was_called):
                print(f"  {project.shown(project.place(path))} still says {was_called}")
            if not package:
                print(f"  you call the package {called}: make upgrade PACKAGE={called} does so too")
        if found := obstacles(project, changes):
            raise Refused("; ".join(found[:5]))
        written = {c.path: [f"{c.mode} {c.object}"] for c in changes if c.status != "D"}
        paths = sorted({*written, *conflicts})
        trees.rehearse(shop.folder, project.top, paths, shop.index("rehearsal", written))
        if not dry_run:
            title = f"chore: upgrade to MLOps level {now[LEVEL]}, template {version}\n"
            shop.apply(changes, conflicts, title)
            print(f"  next: {RESOLVE if conflicts else KEEP}; or {UNDO}")
    return 1 if conflicts else 0


def check(folder: Path, template: Path, given: dict, source: str, **options: bool) -> int:
    """Tell whether the project is what the template writes today: 0 if so; 1, and what is new."""
    project = Project(folder, reading=True)
    recorded, was = project.recorded["default_context"], project.recorded["template"]
    if not options.get("allow_older"):
        refuse_older(template, was, source)
    with tempfile.TemporaryDirectory(prefix="upgrade-") as place:
        shop = Workshop(Path(place), project)
        with shop.start(template, record.answers(recorded, {}, template), "new") as new:
            rendering, files = shop.rendered(new, "new")
        now = record.read((rendering / RECORD).read_text(encoding="utf-8"))["default_context"]
    current = record.matches(files, was.get("files")) and now == recorded
    print(f"{folder.name}: template {was.get('version')} -> {version_of(template)}", end="")
    print(", current" if current else ", behind: make upgrade")
    for line in () if current else news(template, was):
        print(line)
    return 0 if current else 1


def difference(folder: Path, template: Path, given: dict, source: str, **options: bool) -> int:
    """Show where the committed project differs from what the template wrote; own files are left out."""
    project = Project(folder, reading=True)
    recorded, was = project.recorded["default_context"], project.recorded["template"]
    with tempfile.TemporaryDirectory(prefix="upgrade-") as place:
        shop = Workshop(Path(place), project)
        with shop.start(shop.old(template, was.get("commit")), recorded, "base") as base:
            once, proved = shop.base(base)
        if not proved:
            raise Refused(
                "what the template once wrote cannot be proved, so nothing tells the edits"
            )
        (once,), _ = trees.as_in_project(shop.folder, folder, project.tree, [], once)
        flags = ("-r", "-M", "--patch-with-stat", "--diff-filter=a", "--no-ext-diff")
        print(git(shop.folder, "diff-tree", *flags, once, project.tree), end="")
    return 0


def run(folder: Path, *arguments: object, act: Callable = upgrade, **options: bool) -> int:
    """`upgrade` as a command: a refusal is one sentence on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # any file name can be shown
    try:
        return act(folder.resolve(), *arguments, **options)
    except (Refused, OSError) as reason:
        sys.stdout.flush()
        state = getattr(reason, "state", Refused.state)
        print(f"{folder.resolve().name} is not upgraded, {state}: {reason}", file=sys.stderr)
        return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--level", help="maturity level (default: the recorded one)")
    parser.add_argument("--source", default=str(Path(__file__).parents[1]), help="to be recorded")
    parser.add_argument("--package", help="the package's new name (default: the recorded one)")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would change")
    parser.add_argument("--check", action="store_true", help="only tell whether it is current")
    parser.add_argument("--diff", action="store_true", help="show what differs from the template's")
    older = "take a template older than the recorded one"
    parser.add_argument("--allow-older", action="store_true", help=older)
    parser.add_argument("--adopt", action="store_true", help="take a project without a record")
    answer = "an answer for --adopt, instead of the one that is found"
    parser.add_argument("--answer", action="append", default=[], metavar="KEY=VALUE", help=answer)
    arguments = parser.parse_args()
    if arguments.answer and not (arguments.adopt and all("=" in a for a in arguments.answer)):
        parser.error("--answer KEY=VALUE goes with --adopt")
    given = dict(answer.split("=", 1) for answer in arguments.answer)
    given |= {LEVEL: arguments.level} if arguments.level else {}
    template = Path(__file__).resolve().parents[1]
    options = {"allow_older": arguments.allow_older}
    if arguments.check or arguments.diff:
        act = check if arguments.check else difference
    else:
        act, options = upgrade, options | {"dry_run": arguments.dry_run, "adopt": arguments.adopt}
        options["package"] = arguments.package
    return run(arguments.project, template, given, arguments.source, act=act, **options)


if __name__ == "__main__":
    sys.exit(main())
