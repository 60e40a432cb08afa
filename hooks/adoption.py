"""A project without an answers file: find its answers, in its history or in its files."""

import re
import tomllib
from pathlib import Path

import record
import yaml
from levels import LEVELS
from plumbing import Refused, ask, git
from record import LEVEL, RECORD


def lost(folder: Path, prefix: str) -> tuple[str, str] | None:
    """The newest commit with an answers file that can be read, and its text."""
    for commit in git(folder, "rev-list", "-n", "100", "HEAD", "--", RECORD).split():
        text = ask(folder, "cat-file", "blob", f"{commit}:{prefix}{RECORD}")
        try:
            if text and record.read(text):
                return commit[:12], text
        except Refused:
            continue
    return None


def from_files(folder: Path) -> dict[str, str]:
    """The answers that the project's own files give; what they do not tell is left out."""
    found = parsed(folder / "pyproject.toml", tomllib.loads).get("project", {})
    params = parsed(folder / "params.yaml", yaml.safe_load)
    author = (found.get("authors") or [{}])[0]
    register = params.get("register")
    packages = sorted(path.parent.name for path in folder.glob("src/*/__init__.py"))
    name = str(found.get("name") or folder.name)
    slug = name.replace("_", "-")
    package = name.replace("-", "_") if name.replace("-", "_") in packages else ""
    package = package or (packages[0] if packages else name.replace("-", "_"))
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    title = re.search(r"^# (.+)$", text, re.M)
    answers = {
        "project_name": title[1].strip() if title else name,
        "project_slug": register.get("name") if isinstance(register, dict) else slug,
        "package_name": package,
        "description": found.get("description"),
        "author_name": author.get("name"),
        "author_email": author.get("email"),
        "task": params.get("task"),
        LEVEL: level_of(folder, package),
        "license": found.get("license"),
    }
    return {key: value for key, value in answers.items() if value and isinstance(value, str)}


def level_of(folder: Path, package: str) -> str:
    """The highest level whose own part of the package is there."""
    parts = {n: [p for p in paths if p.startswith("src/")] for n, paths in LEVELS.items()}
    there = [
        n
        for n, paths in parts.items()
        if n == 0 or any((folder / p.replace("PACKAGE", package)).exists() for p in paths)
    ]
    return str(max(there))


def parsed(path: Path, parse: object) -> dict:
    """A file of settings; empty if there is none, Refused if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        raise Refused(f"{path} cannot be read: {' '.join(str(error).split())}") from None
