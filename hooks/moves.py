"""Files in other places than the template's: what the owner moved, and a package with a new name."""

import posixpath
import re
from collections import Counter, defaultdict
from pathlib import Path

import record
from moved import MOVED
from plumbing import Refused, git
from record import RECORD

Entries = dict[str, tuple[str, str] | None]  # path -> mode and object; None: no such file


def moved_folders(repository: Path, base: str, yours: str) -> dict[str, str]:
    """Folders of the base most of whose files are in another folder of yours, and that folder.

    git finds such a folder only if nothing is left in it and new files come directly into it.
    """
    flags = ("diff-tree", "-r", "-z", "-M", "-l10000", "--diff-filter=R", "--name-status")
    words = git(repository, *flags, base, yours).split("\0")[:-1]
    votes: defaultdict[str, Counter] = defaultdict(Counter)
    for old, new in zip(words[1::3], words[2::3], strict=True):
        old, new = posixpath.dirname(old), posixpath.dirname(new)
        while old and old != new:
            votes[old][new] += 1
            if posixpath.basename(old) != posixpath.basename(new):
                break
            old, new = posixpath.dirname(old), posixpath.dirname(new)
    if not votes:
        return {}
    folders = Counter(f for path in record.files_in(repository, base) for f in above(path))
    found = {old: counts.most_common(1)[0] for old, counts in votes.items()}
    return {old: new for old, (new, count) in found.items() if new and 2 * count > folders[old]}


def above(path: str) -> list[str]:
    """The folders that a path is in, the nearest first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


def relocated(
    repository: Path, merged: str, new: list[str], folders: dict[str, str]
) -> tuple[str, dict[str, list[str]]]:
    """The merged tree with the new files where their folders are now, and each as a conflict.

    Where yours has a file at that place, the new one stays at the template's.
    """
    files = record.files_in(repository, merged)
    entries: Entries = {}
    conflicts = {}
    for path in new:
        folder = next((folder for folder in above(path) if folder in folders), None)
        if folder is not None:
            target = folders[folder] + path[len(folder) :]
            target = path if target in files else target
            mode, blob = files[path]
            entries |= {path: None, target: (mode, blob)}
            conflicts[target] = [f"{mode} {blob} 3"]
    return rewritten(repository, merged, entries), conflicts


def rewritten(repository: Path, tree: str, entries: Entries) -> str:
    """A tree with other entries in it."""
    if not entries:
        return tree
    lines = [f"0 {'0' * len(tree)}\t{path}\0" for path in entries]  # first, for folders and files
    lines += [f"{about[0]} {about[1]}\t{path}\0" for path, about in entries.items() if about]
    index = {"GIT_INDEX_FILE": repository / "rewritten"}
    git(repository, "read-tree", tree, **index)
    git(repository, "update-index", "-z", "--add", "--index-info", text="".join(lines), **index)
    return git(repository, "write-tree", **index).strip()


def mentions(repository: Path, tree: str, name: str) -> list[str]:
    """The files of a tree that have a name as a word, but for the answers file and binary ones."""
    found = git(repository, "grep", "--no-color", "-zlwIF", "-e", name, tree, fine=(0, 1)).split(
        "\0"
    )[:-1]
    paths = (entry.partition(":")[2] for entry in found)
    return sorted(path for path in paths if path != RECORD)


def refuse_untracked(project: Path, package: str) -> None:
    """Refused if the package has files that git does not track: they would stay behind."""
    others = ("ls-files", "-z", "--others", "--exclude-standard", "--", f"src/{package}")
    if found := git(project, *others).split("\0")[:-1]:
        raise Refused(f"git does not track {', '.join(found[:5])}: commit it, and it moves too")


def renamed(repository: Path, tree: str, old: str, new: str) -> str:
    """A tree whose package has another name: files moved; imports, `-m` and paths changed.

    What else says the old name may mean something else, and is left for `mentions` to tell.
    """
    files = record.files_in(repository, tree)
    say = set(mentions(repository, tree, old))
    code = re.compile(rf"(?:(?<=\bimport )|(?<=\bfrom )|(?<=-m )|(?<=\bsrc/)){re.escape(old)}\b")
    entries: Entries = {}
    for path, (mode, blob) in files.items():
        inside = path.startswith(f"src/{old}/")
        target = f"src/{new}/" + path.removeprefix(f"src/{old}/") if inside else path
        if target != path and target in files:
            raise Refused(f"{path} cannot become {target}, which is there: move one of them away")
        if path in say:
            text = git(repository, "cat-file", "blob", blob)
            store = ("hash-object", "-w", "--stdin")
            blob = git(repository, *store, text=code.sub(new, text)).strip()
        entries |= {path: None} if inside else {}
        entries |= {target: (mode, blob)} if inside or path in say else {}
    return rewritten(repository, tree, entries)


def followed(repository: Path, tree: str, theirs: str, package: str) -> str:
    """A tree whose files are where the template has them now, if they are still where it had them."""
    files, wanted = record.files_in(repository, tree), record.files_in(repository, theirs)
    entries: Entries = {}
    for pair in MOVED.items():
        old, new = (path.replace("PACKAGE", package) for path in pair)
        if old in files and new not in files and new in wanted and old not in wanted:
            entries |= {old: None, new: files[old]}
    return rewritten(repository, tree, entries)
