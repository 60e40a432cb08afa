"""Whether a template is as new as the one that a project records, and what is new in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from plumbing import Refused, ask


def number(version: str) -> tuple[int, ...]:
    """A version such as 0.10.1 as numbers, to compare by; empty if it is none."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def version_of(template: Path) -> str:
    """The template's own version."""
    asked = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    return asked["__template_version"]


def refuse_older(template: Path, recorded: dict[str, str], source: str) -> None:
    """Refused if the template is older than the recorded one, or if it cannot tell.

    Its history has to contain the recorded commit. Without a history, its version has to be higher.
    """
    version, commit = version_of(template), recorded.get("commit")
    here, last = number(version), number(recorded.get("version", ""))
    repository = ask(template, "rev-parse", "--show-toplevel") == str(template.resolve())
    way = f"git -C {template} pull" if repository else "get a newer copy of it"
    if here < last:
        reason = f"has version {version}, older than the recorded {recorded['version']}"
    elif not commit or (not repository and here > last):
        return
    elif not repository:
        reason = (
            f"has no history that shows that it is newer than the recorded commit {commit[:12]}"
        )
    elif ask(template, "merge-base", "--is-ancestor", commit, "HEAD") is not None:
        return
    elif ask(template, "cat-file", "-e", f"{commit}^{{commit}}") is not None:
        reason = f"is older than the recorded commit {commit[:12]}, or on another branch"
    else:
        reason = (
            f"lacks the recorded commit {commit[:12]}: it is older, or its history is not whole"
        )
        if ask(template, "rev-parse", "--is-shallow-repository") == "true":
            way = f"git -C {template} fetch --unshallow"
    if Path(source).resolve() != template.resolve():  # a clone that `make upgrade` has made
        way = "name a newer one with VERSION= or TEMPLATE="
    knowingly = "or go back knowingly with --allow-older (make upgrade ALLOW_OLDER=1)"
    raise Refused(f"the template at {source} {reason}: {way}, {knowingly}")


def news(template: Path, recorded: dict[str, str]) -> Iterator[str]:
    """The lines of the template's CHANGELOG.md that are newer than the recorded template."""
    path = template / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    old = ask(template, "show", f"{recorded.get('commit', '-')}:CHANGELOG.md")
    if old is None:  # not in its history: from the section of the recorded version on
        start = re.search(rf"^## \[?{re.escape(recorded.get('version', '-'))}\b", text, re.M)
        old = text[start.start() :] if start else ""
    known, headings = set(old.splitlines()), {}
    for line in text[text.find("\n## ") :].splitlines():  # without what introduces the file
        level = len(line) - len(line.lstrip("#"))
        if level:
            headings = {n: title for n, title in headings.items() if n < level} | {level: line}
        elif line.strip() and line not in known:
            yield from headings.values()
            headings = {}
            yield line
