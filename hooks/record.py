"""The answers file of a project: what was answered, and which template wrote which files.

`template.files` is a digest of all files as rendered. An upgrade believes a rendering to be what the
template once wrote only if it has this digest.
"""

import hashlib
import json
import os
import posixpath
import re
from pathlib import Path

import yaml
from answers import level_problem, template_mark
from plumbing import Refused, ask, git

RECORD = ".cookiecutter.yaml"
LEVEL = "maturity_level"
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError)
Files = dict[str, tuple[str, str]]  # path -> (mode, SHA-1 of the blob) as git has them


def clean_commit(template: Path) -> str | None:
    """The commit of a template that is a clean checkout of its own."""
    if ask(template, "rev-parse", "--show-toplevel") != str(template.resolve()):
        return None
    commit = ask(template, "rev-parse", "HEAD")
    return commit if ask(template, "status", "--porcelain", "-unormal") == "" else None


def source(given: str, template: Path) -> dict[str, str]:
    """Where an upgrade finds the template: the address, or the folder and the remote of its clone."""
    if not os.path.isdir(given):
        address = re.sub(r"//[^@/]*@", "//", given)  # without a name and a password
        # Without `git+` cookiecutter knows no file:// address.
        return {"source": f"git+{address}" if address.startswith("file://") else address}
    remote = ask(Path(given), "config", "remote.origin.url") or ""
    found = {"source": str(Path(given).resolve())}
    if re.match(r"\w+://|[\w.-]+@[\w.-]+:", remote):
        found["remote"] = re.sub(r"//[^@/]*@", "//", remote)
    return found


def digest(files: Files, modes: bool = False) -> str:
    """SHA-256 over the files, the answers file left out.

    Modes are left out too: some drives have none, so that one template would have two digests.
    """
    lines = [
        f"{mode} {blob} {path}\n" if modes else f"{blob} {path}\n"
        for path, (mode, blob) in files.items()
        if path != RECORD
    ]
    return hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def matches(files: Files, recorded: str | None) -> bool:
    """Whether files have the recorded digest, which older records took with the modes."""
    return recorded in (digest(files), digest(files, modes=True))


def kept(text: str) -> list[str]:
    """The files and folders that the answers file lists under `keep`: no upgrade touches them."""
    listed = yaml.safe_load(text).get("keep") or []
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise Refused(f"keep in {RECORD} is no list of files: write it as [README.md, docs]")
    paths = [posixpath.normpath(path) for path in listed]
    for path in paths:
        if path in (RECORD, ".", "..") or path.startswith(("/", "../")):
            advice = "name files and folders of the project, from its root"
            raise Refused(f"keep in {RECORD} cannot name {path!r}: {advice}")
    return paths


def files_of(folder: Path) -> Files:
    """All files below a folder, as git would have them: with LF, also where they were cloned as CRLF."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".git/"):
            content = path.read_bytes()
            content = content if b"\0" in content else content.replace(b"\r\n", b"\n")
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            mode = "100755" if os.access(path, os.X_OK) else "100644"
            found[name] = (mode, blob.hexdigest())
    return found


def files_in(repository: Path, tree: str) -> Files:
    """All files of a tree of git's."""
    entries = git(repository, "ls-tree", "-rz", "--full-tree", tree).split("\0")[:-1]
    parts = (entry.partition("\t") for entry in entries)
    return {path: (about.split()[0], about.split()[2]) for about, _, path in parts}


def write(folder: Path, template: Path, given: str) -> str:
    """Add to a new answers file where the template is, its commit if it has one, and what it wrote.

    Gives the template's version.
    """
    written = read((folder / RECORD).read_text(encoding="utf-8"))["template"]
    found = source(given, template) | {"version": written["version"]}
    commit = clean_commit(template)
    if commit:
        found["commit"] = commit
    stamp(folder, found | {"files": digest(files_of(folder))})
    return written["version"]


def stamp(folder: Path, template: dict[str, str]) -> None:
    """Write the section `template` of the answers file anew."""
    path = folder / RECORD
    answers = path.read_text(encoding="utf-8").partition("\ntemplate:")[0].rstrip("\n")
    lines = [
        f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in template.items()
    ]
    text = "".join([f"{answers}\ntemplate:\n", *lines])
    path.write_text(text, encoding="utf-8", newline="\n")


def read(text: str) -> dict[str, dict[str, str]]:
    """The parsed answers file: `default_context` and `template`.

    Refused if it is none, or if it holds what the template would run when it is rendered.
    """
    try:
        content = yaml.safe_load(text)
        sections = {"default_context": content["default_context"], "template": {}}
        sections |= {"template": content.get("template") or {}}
        # A `_key` would set how the template is rendered.
        found = {
            name: {k: plain(v) for k, v in section.items() if not k.startswith("_")}
            for name, section in sections.items()
        }
    except (yaml.YAMLError, RecursionError, *_MALFORMED) as error:
        reason = " ".join(str(error).split())
        raise Refused(f"{RECORD} cannot be read, see git log for it: {reason}") from None
    for key, answer in found["default_context"].items():
        if mark := template_mark(key + answer):
            raise Refused(f"{RECORD}: {key} holds {mark!r}, a mark of the template: take it out")
    if not re.fullmatch(r"[0-9a-f]{7,64}", found["template"].get("commit", "0" * 40)):
        raise Refused(f"{RECORD}: template.commit is no commit: see git log for it")
    return found


def plain(value: object) -> str:
    """A value of the answers file, where a number or a date may stand without quotes."""
    if isinstance(value, dict | list | set | tuple):
        raise TypeError("an answer is a text, not a list or a table")
    return str(value)


def unoffered(recorded: dict, asked: dict) -> set[str]:
    """The questions whose recorded answer is no longer among the choices."""
    choices = {key: asked[key] for key in recorded if isinstance(asked.get(key), list)}
    return {key for key in choices if recorded[key] not in choices[key]}


def answers(recorded: dict, given: dict, template: Path) -> dict[str, str]:
    """What to render with; Refused if anything but the level is given otherwise than recorded."""
    asked = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    lost = unoffered(recorded, asked)
    answers = {key: value for key, value in (recorded | given).items() if key in asked}
    other = [
        f"{key} is {value!r}, not {answers[key]!r}"
        for key, value in recorded.items()
        if key in answers and answers[key] != value and key not in {LEVEL, *lost}
    ]
    if other:
        advice = f"hand the recorded answers over with --config-file {RECORD}"
        raise Refused(f"only the level may change, but {', '.join(other)}: {advice}")
    if problem := level_problem(answers.get(LEVEL)):
        raise Refused(problem)
    return {k: v for k, v in answers.items() if k not in lost and not k.startswith("_")}


def differences(recorded: dict, now: dict) -> list[str]:
    """In words: what the template asks otherwise than when the answers were recorded."""
    told = []
    for key in sorted((recorded.keys() | now.keys()) - {LEVEL}):
        if key not in recorded:
            told.append(f"new question {key}: {now[key]!r}, its default unless you gave another")
        elif key not in now:
            told.append(f"the template no longer asks {key}")
        elif now[key] != recorded[key]:
            told.append(
                f"{key} {recorded[key]!r} is no longer offered: is {now[key]!r}, the default"
            )
    return told
