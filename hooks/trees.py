"""The template's trees as this project would have them: kept files left out, git's filters applied.

A filter (LFS, git-crypt, nbstripout) makes git store something else than what is in the file. The
template's files go through the project's filters first, so that like is merged with like.
"""

from pathlib import Path

import record
from moves import Entries, rewritten
from plumbing import Refused, git

NONE = ("unspecified", "unset", "set")  # what git answers where a file has no filter
DRIVES = ("clean", "smudge", "process")


def is_kept(path: str, keep: list[str]) -> bool:
    """Whether the list of kept files names a file or a folder above it."""
    return any(path == name or path.startswith(f"{name}/") for name in keep)


def filters(project: Path, paths: list[str]) -> dict[str, tuple[str, set[str]]]:
    """For each path with a filter its name, and which commands of it are set up here."""
    names = "".join(f"{path}\0" for path in paths)
    words = git(project, "check-attr", "-z", "--stdin", "filter", text=names).split("\0")[:-1]
    found = {p: name for p, name in zip(words[::3], words[2::3], strict=True) if name not in NONE}
    if not found:
        return {}
    settings = git(project, "config", "-z", "--get-regexp", r"^filter\.", fine=(0, 1)).split("\0")
    keys = {setting.partition("\n")[0] for setting in settings}
    return {
        path: (name, {drive for drive in DRIVES if f"filter.{name}.{drive}" in keys})
        for path, name in found.items()
    }


def as_in_project(
    repository: Path, project: Path, yours: str, keep: list[str], *trees: str
) -> tuple[list[str], list[str]]:
    """The trees as the project would have them, and the kept files in which they differ."""
    contents = [record.files_in(repository, tree) for tree in trees]
    every = sorted({path for files in contents for path in files})
    mine = record.files_in(repository, yours) if keep else {}
    held: Entries = {p: mine.get(p) for p in {*every, *mine} if is_kept(p, keep)}
    through = [
        path
        for path, (_, drives) in filters(project, every).items()
        if path not in held and drives & {"clean", "process"}
    ]
    cleaned: dict[tuple[str, str], str] = {}
    objects = {"GIT_OBJECT_DIRECTORY": repository / ".git/objects"}
    new = []
    for tree, files in zip(trees, contents, strict=True):
        entries = dict(held)
        for path in (path for path in through if path in files):
            mode, blob = files[path]
            if (path, blob) not in cleaned:
                content = git(repository, "cat-file", "blob", blob)
                store = ("hash-object", "-w", "--stdin", "--path", path)
                cleaned[path, blob] = git(project, *store, text=content, **objects).strip()
            entries[path] = (mode, cleaned[path, blob])
        new.append(rewritten(repository, tree, entries))
    differ = [p for p in sorted(held) if len({files.get(p) for files in contents}) > 1]
    return new, differ


def rehearse(repository: Path, top: Path, paths: list[str], index: Path) -> None:
    """Refused if a filter is not set up for one of the files, or fails to write it.

    Paths are from the root of the project's repository. The index holds what is to be written; the
    files go into the temporary repository.
    """
    found = filters(top, paths)
    for path, (name, drives) in found.items():
        if not drives:
            way = "set it up (git lfs install, git-crypt unlock), or list the file under keep"
            raise Refused(f"{path} goes through the filter {name}, which git has not here: {way}")
    names = "".join(f"{path}\0" for path, (_, drives) in found.items() if drives)
    if names:
        env = {"GIT_INDEX_FILE": index}
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = repository / ".git/objects"
        write = ("checkout-index", "-q", "-z", "--stdin", f"--prefix={repository / 'written'}/")
        git(top, *write, text=names, **env)
