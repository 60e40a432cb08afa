"""The code of the stages, a stage itself: data/code/STAGE.json has what each other stage depends on.

These are the modules of this package that a stage imports, directly or not, the owner's as well as the
template's, with their digests, and the pins. DVC runs a stage again when its file changes. This stage
always runs; it takes about half a second.
"""

import ast
import functools
import hashlib
from pathlib import Path

from ...experiment import reports
from ...experiment.cli import PACKAGE
from ...experiment.params import ROOT

FOLDER = "data/code"
STAGES = ("extract", "validate", "build_views", "prepare", "train", "evaluate")
PINS = ("requirements/experiment.txt", "requirements/continuous_training.txt")


def module_file(name: str) -> Path | None:
    """The file of a module or package below src/; None if there is none of that name."""
    place = ROOT / "src" / name.replace(".", "/")
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def imports(source: bytes, package: str) -> frozenset[str]:
    """The modules that a source of a package may import: `from .a import b` is a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(base if node.level else []), *filter(None, [node.module])]
            names |= {".".join(parts), *(".".join([*parts, a.name]) for a in node.names)}
    return frozenset(names)


def reached(module: str) -> dict[str, Path]:
    """The modules below src/ that a module imports, directly or not, and itself: name -> file."""
    files: dict[str, Path] = {}
    waiting = {module}
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is not None and name not in files:
            files[name] = path
            parent = name.rpartition(".")[0]
            package = name if path.name == "__init__.py" else parent
            waiting |= imports(path.read_bytes(), package) | {parent}
    return files


def digests(stage: str) -> dict[str, str]:
    """Path from the project's root -> SHA-256, of the modules that a stage reaches and of the pins."""
    modules = reached(f"{PACKAGE}.continuous_training.stages.{stage}").values()
    pins = [ROOT / name for name in PINS if (ROOT / name).is_file()]
    paths = {path.relative_to(ROOT).as_posix(): path for path in [*modules, *pins]}
    return {name: hashlib.sha256(paths[name].read_bytes()).hexdigest() for name in sorted(paths)}


def run() -> None:
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        text = reports.as_json(digests(stage))
        (ROOT / FOLDER / f"{stage}.json").write_text(text, encoding="utf-8")
