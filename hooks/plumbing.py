"""git, called so that no setting and no variable of the user's changes what it does."""

import os
import subprocess
from pathlib import Path

# Variables by which git finds another repository than the one it is pointed to.
MISLEADING = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"}
MISLEADING |= {"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_COMMON_DIR"}
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in MISLEADING} | {"LC_ALL": "C"}
# No lock for a mere look; nothing that hides a change, runs a hook, or stops an `add`.
OPTIONS = ["--no-optional-locks", "-c", "core.quotePath=false", "-c", "core.fsmonitor=false"]
OPTIONS += ["-c", f"core.hooksPath={os.devnull}", "-c", "core.safecrlf=false"]


class Refused(Exception):  # noqa: N818
    """Why nothing was done, and what to do about it."""

    state = "nothing was changed"


def git(folder: Path, *arguments: str | Path, text: str = "", fine=(0,), **env: str | Path) -> str:
    """What git prints; Refused with what it says if its exit code is not fine."""
    command = ["git", "-C", folder, *OPTIONS, *arguments]
    options = {"capture_output": True, "env": ENVIRONMENT | env}
    try:
        done = subprocess.run(command, input=os.fsencode(text), **options)  # names are bytes
    except OSError as error:
        raise Refused(f"git cannot be run: {error}") from None
    if done.returncode not in fine:
        word = next(a for a in map(str, arguments) if a[0] != "-" and "=" not in a)
        raise Refused(f"git {word}: {' '.join(os.fsdecode(done.stderr).split())}")
    return os.fsdecode(done.stdout)


def ask(folder: Path, *arguments: str | Path) -> str | None:
    """What git prints, or None if it fails or is not installed."""
    try:
        return git(folder, *arguments).strip()
    except Refused:
        return None
