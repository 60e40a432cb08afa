"""The floors of the package: the same bytes in every project, checked where they are.

A floor is a folder of the package. It holds no template mark, takes its names from where it is, and
knows floors above it in one place only.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLEAN, SOURCE, TEMPLATE, generate

PACKAGE = SOURCE / "src/<<cookiecutter.package_name>>"
FLOORS = ("experiment", "continuous_training", "delivery")
MODULES = sorted(path for floor in FLOORS for path in (PACKAGE / floor).rglob("*.py"))
OWNERS = {"data.py": 80, "features.py": 50, "model.py": 50}  # code lines
sys.path.insert(0, str(TEMPLATE / "tools"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


def imports(path: Path, lazy: bool) -> set[str]:
    """The modules of the package that a module imports, also inside of functions if `lazy`."""
    tree = ast.parse(path.read_bytes())
    nodes = list(ast.walk(tree)) if lazy else list(tree.body)
    package = relative(path).split("/")
    package = package if path.name == "__init__.py" else package[:-1]
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = [*base, *(node.module.split(".") if node.module else [])]
            for name in ("/".join([*parts, alias.name]) for alias in node.names):
                inside = (PACKAGE / f"{name}.py").exists()
                found.add(name if inside else "/".join(parts))
    return found


def test_floors_are_the_same_in_every_project(tmp_path):
    odd = {"package_name": "previsao", "project_name": "Previsão: dos atrasos", "license": "MIT"}
    answers = [{}, odd, {"task": "regression", "description": "Another one."}]
    for number, given in enumerate(answers):
        (tmp_path / str(number)).mkdir()
        project = generate(tmp_path / str(number), maturity_level="2", **given)
        package = project / "src" / given.get("package_name", "flight_delays")
        for path in PACKAGE.rglob("*"):
            if path.is_file() and path.parent != PACKAGE and "__pycache__" not in path.parts:
                written = package / path.relative_to(PACKAGE)
                assert written.read_bytes() == path.read_bytes(), written


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_floor_knows_those_below_it(path):
    """Only experiment/floors.py looks for higher ones, by name."""
    text = path.read_text(encoding="utf-8")
    assert not re.search("<<|<%|<#", text)
    place = FLOORS.index(relative(path).partition("/")[0])
    above = {"feature_views"} if place == 0 else set()
    above |= set(FLOORS[place + 1 :])
    assert not {name.partition("/")[0] for name in imports(path, lazy=True)} & above
    if path.name != "floors.py":
        assert not any(f'"{floor}"' in text for floor in FLOORS[place + 1 :])


def test_no_module_imports_itself_by_others():
    """Imports at the top of modules go round in no circle."""
    graph = {relative(path): imports(path, lazy=False) for path in PACKAGE.rglob("*.py")}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph.get(name, ()):
                if other != name:
                    visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_owners_files_are_short():
    from lines import code_lines

    for name, limit in OWNERS.items():
        assert code_lines(PACKAGE / name) <= limit, name


@pytest.mark.slow
def test_types_where_they_are(environment, tmp_path):
    """mypy, as a generated project has it."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/project").symlink_to(PACKAGE)
    options = ["--ignore-missing-imports", "--cache-dir", str(tmp_path / "cache")]
    (tmp_path / "mypy.ini").write_text("[mypy]\nplugins = pydantic.mypy\n")
    command = [environment / "bin/mypy", *options, "--output", "json", "src"]
    done = subprocess.run(command, cwd=tmp_path, env=CLEAN, capture_output=True, text=True)
    wrong = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and not wrong, wrong or done.stderr


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_names_say_what_they_hold(path):
    riddles = {"found", "said", "its", "told", "gone", "YOUNG", "FEW", "ENOUGH"}
    stored = {
        node.id if isinstance(node, ast.Name) else node.arg
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        or isinstance(node, ast.arg)
    }
    assert not stored & riddles


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_public_functions_say_what_they_do(path):
    """A step's `run` is told by its module, settings by their file, methods by the class or protocol."""
    tree = ast.parse(path.read_bytes())
    defined = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if path.name not in ("settings.py", "params.py"):
        defined += [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [n for n in defined if not n.name.startswith("_") and n.name != "run"]
    assert not [node.name for node in public if not ast.get_docstring(node)]
