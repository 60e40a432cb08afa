"""Climb the maturity levels, or follow a newer template, without losing a line of your work.

`make upgrade LEVEL=1` merges what the template writes at that level into the committed project; what
you changed stays, and where both changed the same lines it is an ordinary git conflict. Where the
template is and what you answered is in .cookiecutter.yaml. Needs git 2.38.
"""

import os
import subprocess
import sys
import tempfile

import yaml

from .errors import UserError
from .params import ROOT

RECORD = ROOT / ".cookiecutter.yaml"


def run(
    level: str | None,
    package_name: str | None,
    template: str | None,
    version: str | None,
    dry_run: bool,
) -> int:
    place = template or _recorded()
    with tempfile.TemporaryDirectory(prefix="upgrade-") as folder:
        found = _find(place, version, folder)
        command = [sys.executable, os.path.join(found, "hooks", "upgrade.py"), str(ROOT)]
        if not os.path.isfile(command[1]):
            raise UserError(f"{place} is no template that can upgrade: name one with TEMPLATE=")
        command += ["--source", place, *(["--level", level] if level else [])]
        command += ["--package", package_name] if package_name else []
        return subprocess.run(command + ["--dry-run"] * dry_run).returncode


def _recorded() -> str:
    """Where the template was: its folder if that still exists, else its address."""
    try:
        recorded = yaml.safe_load(RECORD.read_text(encoding="utf-8"))["template"]
        places = [recorded["source"], recorded.get("remote")]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{RECORD} does not say where the template is: use TEMPLATE=") from None
    return next((p for p in places if p and os.path.isdir(p)), places[1] or places[0])


def _find(place: str, version: str | None, folder: str) -> str:
    """The template's folder: `place` itself, or a clone of it in `folder`."""
    from cookiecutter.config import get_user_config
    from cookiecutter.repository import expand_abbreviations

    if os.path.isdir(place) and not version:
        return os.path.abspath(place)
    address = expand_abbreviations(place, get_user_config()["abbreviations"]).removeprefix("git+")
    found = os.path.join(folder, "template")
    commands = [["git", "clone", "-q", address, found]]
    commands += [["git", "-C", found, "checkout", "-q", version]] if version else []
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split())
            raise UserError(f"no template at {place}: name it with TEMPLATE= ({reason})")
    return found
