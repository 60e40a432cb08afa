"""Making a project: how long until it is there, until it answers, until it has a model."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from project import PACKAGE, SLUG, Line, Workshop, environment, generate, measure, median

# What a bare machine has beside Python: the shell, git, make and the core utilities.
TOOLS = (
    "awk basename bash cat chmod cp cut date dirname echo env expr false git grep head id ln ls "
    "make mkdir mktemp mv pwd readlink realpath rm sed sh sleep sort tail tee test touch tr true "
    "uname wc"
)


def generated(workshop: Workshop) -> Iterator[Line]:
    """Cookiecutter in a process of its own, hooks and first commit included."""
    taken = [generate(workshop.folder / f"generated-{n}").seconds for n in range(5)]
    text = f"{median(taken):.2f} s (median of 5, slowest {max(taken):.2f})"
    yield Line("generate", text, "< 0.7 s", median(taken) < 0.7)


def help_texts(workshop: Workshop) -> Iterator[Line]:
    """`make`, `--help`, and the `--help` of every step: the slowest of their medians."""
    project = workshop.project
    python = project / ".venv/bin/python"
    listed = f"from {PACKAGE}.__main__ import STEPS; print(*STEPS)"
    steps = workshop.python("-c", listed).output.split()
    commands = {"make": ["make"], "--help": [python, "-m", PACKAGE, "--help"]}
    commands |= {f"{step} --help": [python, "-m", PACKAGE, step, "--help"] for step in steps}
    medians = {
        name: median([measure(command, project).seconds for _ in range(5)])
        for name, command in commands.items()
    }
    slowest = max(medians, key=lambda name: medians[name])
    text = f"{medians[slowest]:.2f} s ({slowest}, the slowest of {len(medians)})"
    yield Line("help", text, "< 0.3 s", medians[slowest] < 0.3)


def nothing_to_model(workshop: Workshop) -> Iterator[Line]:
    """From no project to a registered model: no package in any cache, and no uv."""
    folder = workshop.folder / "nothing"
    env = environment(
        PATH=str(_bare_tools(folder / "bin")),
        UV_CACHE_DIR=str(folder / "uv-cache"),
        PIP_CACHE_DIR=str(folder / "pip-cache"),
        MPLCONFIGDIR=str(folder / "matplotlib"),
    )
    taken = {"generate": generate(folder, env).seconds}
    for target in ("setup", "data", "train", "evaluate", "register"):
        taken[target] = measure(["make", target], folder / SLUG, env).seconds
    shutil.rmtree(folder)
    total = sum(taken.values())
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in taken.items())
    yield Line("nothing-to-model", f"{total:.1f} s ({parts})", "< 60 s", total < 60)


def _bare_tools(folder: Path) -> Path:
    """A folder for PATH with TOOLS and the Python that the template's environment is made from."""
    folder.mkdir(parents=True)
    for tool in TOOLS.split():
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec "{Path(sys._base_executable).resolve()}" "$@"\n')
    python.chmod(0o755)
    return folder
