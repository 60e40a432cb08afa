"""Which answers make a working project; everything else gets one sentence that says what to do."""

import keyword
import os
import re
import sys
from pathlib import Path

from levels import LEVELS

PATH_WORDS = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
LONGEST = 50
MARKS = ("<<", "<%", "<#")  # where Jinja begins, as cookiecutter.json sets it


def problem(answers: dict) -> str | None:
    """The first thing that is wrong with the answers."""
    for name, text in answers.items():
        if not name.startswith("_") and not isinstance(text, str):
            return f"{name} is {text!r}, which is no text: put it in quotation marks"
        if not name.startswith("_") and (mark := template_mark(text)):
            return f"{name} holds {mark!r}, a mark of the template: leave it out"
    slug, package = answers["project_slug"], answers["package_name"]
    for name in ("project_name", "description", "author_name"):
        text = answers[name]
        if not text.strip():
            return f"{name} is empty: give it some words"
        bad = [c for c in text if c in '"\\' or not c.isprintable()]
        if bad:
            return (
                f"{name} holds {bad[0]!r}: leave out quotation marks, backslashes and line breaks"
            )
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slug) or len(slug) > LONGEST:
        return (
            f"project_slug {slug!r} cannot name a folder and a model:"
            f" use at most {LONGEST} of a-z, 0-9 and inner '-'"
        )
    if slug in PATH_WORDS:
        return f"project_slug {slug!r} is a reserved file name on Windows: choose another"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or len(package) > LONGEST:
        return (
            f"package_name {package!r} cannot be imported: start with a letter,"
            f" then at most {LONGEST} of a-z, 0-9 and '_'"
        )
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        return f"package_name {package!r} is a word of Python: choose another"
    if package in taken():
        return f"package_name {package!r} would hide an installed package: choose another"
    printable = answers["author_email"].isprintable()
    if not printable or not re.fullmatch(
        r"[^@\s\"\\<>]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", answers["author_email"]
    ):
        return (
            f"author_email {answers['author_email']!r} is no address: give one like you@example.com"
        )
    return level_problem(answers["maturity_level"])


def level_problem(level: str) -> str | None:
    """What is wrong with the answer to the question for the level."""
    offered = [str(number) for number in LEVELS]
    if level in offered:
        return None
    return f"maturity_level {level} is not offered: choose one of {', '.join(offered)}"


def template_mark(text: str) -> str | None:
    """The mark in a text that Jinja would run what follows of; None if there is none."""
    return next((mark for mark in MARKS if mark in text), None)


def taken() -> set[str]:
    """Names that the standard library, the pinned dependencies or the project itself import by.

    `make pins` writes the dependencies' names beside this file.
    """
    listed = (Path(__file__).parent / "taken_names.txt").read_text(encoding="utf-8").split()
    return {name.lower() for name in sys.stdlib_module_names} | set(listed)


def remove_empty_folders(answers: dict) -> None:
    """Take back the folders that cookiecutter made on the way to a slug like a/b/c."""
    inside, top = Path.cwd(), Path(answers["_output_dir"]).resolve()
    if inside.parent == top or top not in inside.parents:
        return
    os.chdir(top)
    while inside != top and not any(inside.iterdir()):
        inside.rmdir()
        inside = inside.parent
