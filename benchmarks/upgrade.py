"""A fresh project of level 0 goes up to level 1, beside `cruft update` and `copier update`.

The peers get an equal template: the trees of our level 0 and level 1, as written, are two versions of
a template in their format, so that the same files change. cruft cannot read ours, because it looks
for a folder named with `{{ }}`. Every run is on a copy of a committed project; the sides take turns.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from project import SLUG, TEMPLATE, Line, Workshop, environment, generate, measure, median

LIMIT = 1.5  # seconds
PEERS = ("cruft==2.16.0", "copier==9.19.1")
RECORD = ".cookiecutter.yaml"
GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.com")


def run(workshop: Workshop) -> Iterator[Line]:
    place = workshop.folder / "upgrade"
    here = Path(sys.executable).parent
    for level in "01":
        generate(place / level, answers={"maturity_level": level})
    peers = place / "peers"
    measure(["uv", "venv", "-q", "-p", sys.executable, peers], place)
    measure(["uv", "pip", "install", "-q", "-p", peers, "--compile-bytecode", *PEERS], place)
    made = {
        "cruft": cruft(place, peers / "bin/cruft"),
        "copier": copier(place, peers / "bin/copier"),
    }
    ours = place / "0" / SLUG
    plain = [here / "cookiecutter", TEMPLATE, "--no-input", "-f", "maturity_level=1", "-o"]
    # Each: a project to copy, and the command for a copy of it.
    sides: dict[str, tuple[Path, Callable[[Path], list]]] = {
        "cookiecutter": (ours, lambda p: [*plain, p.parent, "--config-file", p / RECORD]),
        "engine": (
            ours,
            lambda p: [here / "python", TEMPLATE / "hooks/upgrade.py", p, "--level=1"],
        ),
        "cruft": (
            made["cruft"],
            lambda p: [peers / "bin/cruft", "update", "-y", "-p", p, "-c", "2.0.0"],
        ),
        "copier": (
            made["copier"],
            lambda p: [peers / "bin/copier", "update", "-q", "--defaults", "--vcs-ref=2.0.0", p],
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(6):
        for name, (project, command) in sides.items():
            copy = place / f"{name}-{number}" / SLUG
            shutil.copytree(project, copy, symlinks=True)
            measure(["git", "-C", copy, "status"], place)  # the index knows the copied files
            seconds = measure(command(copy), place, environment(HOME=str(place))).seconds
            missing = tracked(place / "1" / SLUG) - tracked(copy)
            if missing:
                raise RuntimeError(f"{name} did not bring {sorted(missing)}")
            if number:  # the first run compiles
                taken[name].append(seconds)
    for name, seconds in taken.items():
        text = f"{median(seconds):.2f} s (median of 5, slowest {max(seconds):.2f})"
        if name in made:
            yield Line(f"upgrade, {name}", text)
        else:
            ok = median(seconds) < LIMIT
            yield Line(f"upgrade, {name}", text, f"< {LIMIT} s", ok)


def tracked(project: Path) -> set[str]:
    """The files of a project."""
    found = (p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file())
    return {name for name in found if not name.startswith(".git/")}


def versions(place: Path, template: Path, inside: str, extra: dict[str, str]) -> None:
    """A template repository whose versions 1.0.0 and 2.0.0 write our trees of level 0 and 1."""
    template.mkdir()
    measure([*GIT, "init", "-q", "-b", "main"], template)
    for level in "01":
        shutil.rmtree(template / inside, ignore_errors=True)
        for name in tracked(place / level / SLUG):
            path = template / inside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (place / level / SLUG / name).read_text(encoding="utf-8")
            if re.search(r"{[{%#]", text):
                text = f"{{% raw %}}{text}{{% endraw %}}"
            path.write_text(text, encoding="utf-8")
        for name, text in extra.items():
            (template / name).write_text(text, encoding="utf-8")
        commit(template)
        measure([*GIT, "tag", f"{int(level) + 1}.0.0"], template)


def commit(folder: Path) -> None:
    measure([*GIT, "add", "--all", "--force", "--", ".", ":!.bench.log"], folder)
    measure([*GIT, "commit", "-q", "--no-verify", "-m", "a version"], folder)


def cruft(place: Path, command: Path) -> Path:
    """A committed project of cruft's at version 1.0.0."""
    template, output = place / "cruft-template", place / "cruft-made"
    questions = json.dumps({"project_slug": SLUG})
    versions(place, template, "{{cookiecutter.project_slug}}", {"cookiecutter.json": questions})
    output.mkdir()
    create = ["create", "--no-input", "-c", "1.0.0", "--output-dir", output, template]
    measure([command, *create], place, environment(HOME=str(place)))
    return committed(output / SLUG)


def copier(place: Path, command: Path) -> Path:
    """A committed project of copier's at version 1.0.0."""
    template, project = place / "copier-template", place / "copier-made" / SLUG
    answers = "project/{{ _copier_conf.answers_file }}"
    settings = "_subdirectory: project\n_templates_suffix: ''\n"
    extra = {"copier.yml": settings, answers: "{{ _copier_answers|to_nice_yaml }}"}
    versions(place, template, "project", extra)
    copy = ["copy", "-q", "--defaults", "--vcs-ref=1.0.0", template, project]
    measure([command, *copy], place, environment(HOME=str(place)))
    return committed(project)


def committed(project: Path) -> Path:
    measure([*GIT, "init", "-q", "-b", "main"], project)
    commit(project)
    return project
