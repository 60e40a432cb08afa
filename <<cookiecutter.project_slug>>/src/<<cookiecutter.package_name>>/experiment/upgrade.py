"""Climb the maturity levels, or follow a newer template, without losing a line of your work.

`make upgrade LEVEL=1` merges what the template writes at that level into the committed project; what
you changed stays, and where both changed the same lines it is an ordinary git conflict. Where the
template is and what you answered is in .cookiecutter.yaml. Its newest version is taken from its
remote. Needs git 2.38.
"""

import logging
import os
import re
import subprocess
import sys
import tempfile

import yaml

from .errors import UserError
from .params import ROOT

RECORD = ROOT / ".cookiecutter.yaml"
SECONDS_TO_ANSWER = 60
log = logging.getLogger(__name__)


def run(
    template: str | None,
    version: str | None,
    level: str | None,
    package_name: str | None,
    **flags: bool,
) -> int:
    with tempfile.TemporaryDirectory(prefix="upgrade-") as folder:
        source, folder_of_template = _find(template, version, os.path.join(folder, "template"))
        command = [
            sys.executable,
            os.path.join(folder_of_template, "hooks", "upgrade.py"),
            str(ROOT),
        ]
        if not os.path.isfile(command[1]):
            raise UserError(f"{source} is no template that can upgrade: name one with TEMPLATE=")
        command += ["--source", source, *(["--level", level] if level else [])]
        command += ["--package", package_name] if package_name else []
        command += [f"--{name.replace('_', '-')}" for name, given in flags.items() if given]
        return subprocess.run(command).returncode


def _find(template: str | None, version: str | None, clone: str) -> tuple[str, str]:
    """The template as it is to be recorded, and its folder: a folder that is there, or a clone."""
    recorded = _recorded(needed=template is None)
    places = [template] if template else [recorded.get("source", ""), recorded.get("remote", "")]
    local = next((place for place in places if os.path.isdir(place)), "")
    remote = next((place for place in reversed(places) if place and place != local), "")
    if local and not remote and not version:
        return local, os.path.abspath(local)
    reason = ""
    for address in filter(None, (remote, local)):
        try:
            return local or remote, _newest(_address(address), version, local, recorded, clone)
        except UserError as error:
            reason = str(error)
        if local and address == remote:
            log.warning("%s: took the template in %s as it is", reason, local)
            if not version:
                return local, os.path.abspath(local)
    raise UserError(f"no template at {remote or local}: name it with TEMPLATE= ({reason})")


def _recorded(needed: bool) -> dict[str, str]:
    """What the answers file says of the template."""
    if needed and not RECORD.exists():
        back = f"git checkout HEAD -- {RECORD.name} brings it back if it was committed"
        adopt = "hooks/upgrade.py --adopt of the template makes a new one"
        raise UserError(f"{RECORD} is missing: {back}, {adopt}")
    try:
        recorded = yaml.safe_load(RECORD.read_text(encoding="utf-8"))["template"]
        if isinstance(recorded["source"], str):
            return recorded
        raise TypeError
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        if not needed:
            return {}
        raise UserError(f"{RECORD} does not say where the template is: use TEMPLATE=") from None


def _address(place: str) -> str:
    """A place as git takes it: cookiecutter's abbreviations, such as gh:, are written out."""
    try:
        from cookiecutter.config import get_user_config
        from cookiecutter.repository import expand_abbreviations
    except ImportError:
        raise UserError("this environment has no cookiecutter: run make setup") from None
    return expand_abbreviations(place, get_user_config()["abbreviations"]).removeprefix("git+")


def _newest(address: str, version: str | None, local: str, recorded: dict, clone: str) -> str:
    """A folder with the wanted version, or with the newest that a tag names.

    Without tags it is the head of the default branch. A project may be ahead of the newest tag: then
    it is the commit that the project records.
    """
    if not version:
        version, commit = _released(address)
        if local and _is_in(commit, "HEAD", local):
            return os.path.abspath(local)
    _git("clone", "-q", "--", address, clone)
    has = recorded.get("commit", "")
    if version != "HEAD":
        ahead = has and _is_in(version, has, clone) and version.startswith("refs/tags/")
        _git("-C", clone, "checkout", "-q", has if ahead else version)
    return clone


def _released(address: str) -> tuple[str, str]:
    """The newest tag that is a version, and its commit; else HEAD."""
    lines = _git("ls-remote", "--", address, "HEAD", "refs/tags/*").splitlines()
    # A tag of its own object has a second line, with the commit.
    commits = {name.removesuffix("^{}"): commit for commit, name in (x.split("\t") for x in lines)}
    tags = {name: re.fullmatch(r"refs/tags/v?(\d+(?:\.\d+)+)", name) for name in commits}
    versions = {n: [int(x) for x in match[1].split(".")] for n, match in tags.items() if match}
    newest = max(versions, key=lambda name: versions[name], default="HEAD")
    return newest, commits.get(newest, "")


def _is_in(commit: str, other: str, folder: str) -> bool:
    """Whether a commit is the other one, or one before it."""
    command = ["git", "-C", folder, "merge-base", "--is-ancestor", commit, other]
    return subprocess.run(command, capture_output=True).returncode == 0


def _git(*arguments: str) -> str:
    """What git prints; UserError if it fails, or gets no answer."""
    command = ["git", *arguments]
    seconds = SECONDS_TO_ANSWER if arguments[0] == "ls-remote" else None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UserError(f"{arguments[2]} gave no answer in {SECONDS_TO_ANSWER} s") from None
    if done.returncode:
        raise UserError(" ".join(done.stderr.split()))
    return done.stdout
