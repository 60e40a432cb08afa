"""What the generator writes: the exact tree, valid and clean files, good and bad answers."""

import json
import py_compile
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import BIN, CLEAN, SOURCE, TEMPLATE, cookiecutter, generate, run

sys.path[:0] = [str(TEMPLATE / "hooks"), str(TEMPLATE / "tools")]

import answers  # noqa: E402
import levels  # noqa: E402
import record  # noqa: E402
from pins import importable  # noqa: E402

QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
OFFERED = [str(level) for level in levels.LEVELS]
ODD_NAMES = {
    "accents": "Prévision des retards à Nîmes",
    "apostrophe": "L'Oréal's churn",
    "long": "A forecast of everything that could possibly arrive late " * 4,
    "symbols": "100% {late} & <b>bold</b> #1 $HOME `x` | *y*",
    "other script": "航班延误",
    "emoji": "😀",
}


def files(project: Path) -> set[str]:
    """The files of a generated project, by path from its root."""
    found = (p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file())
    return {f for f in found if not f.startswith(".git/")}


@pytest.fixture(scope="module")
def default(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("default"))


@pytest.mark.parametrize("level", OFFERED)
def test_tree_is_that_of_the_levels_table(level, tmp_path):
    project = generate(tmp_path, maturity_level=level)
    source = {p.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("*") if p.is_file()}
    source = {f.replace("<<cookiecutter.package_name>>", "flight_delays") for f in source}
    expected = {f for f in source if levels.level_of(f, "flight_delays") <= int(level)}
    assert files(project) == expected
    folders = [p for p in project.rglob("*") if p.is_dir() and ".git" not in p.parts]
    assert all(any(folder.iterdir()) for folder in folders)


def test_each_line_of_the_levels_table_is_needed():
    """Without any one of its lines some file has no level; no line is there twice or for nothing."""
    source = [p.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("*") if p.is_file()]
    source = [f.replace("<<cookiecutter.package_name>>", "PACKAGE") for f in source]
    lines = [(level, line) for level, paths in levels.LEVELS.items() for line in paths]
    assert len({line for _, line in lines}) == len(lines)
    for level, line in lines:
        levels.LEVELS[level].remove(line)
        try:
            with pytest.raises(KeyError):
                for file in source:
                    levels.level_of(file, "PACKAGE")
        finally:
            levels.LEVELS[level].append(line)
            levels.LEVELS[level].sort()


@pytest.mark.parametrize("task", QUESTIONS["task"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_and_tasks(name, task, tmp_path):
    """Names survive in every file; files are valid, formatted, lint-clean and legal on Windows."""
    title = ODD_NAMES[name]
    answers = {"author_name": "Zoë O'Hara & Søn", "task": task, "maturity_level": OFFERED[-1]}
    project = generate(tmp_path, project_name=title, **answers)
    for file in files(project):
        check_file(project / file, file)
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["authors"][0]["name"] == "Zoë O'Hara & Søn"
    recorded = yaml.safe_load((project / ".cookiecutter.yaml").read_text(encoding="utf-8"))
    assert recorded["default_context"]["project_name"] == title
    assert recorded["default_context"]["task"] == task
    assert title.strip() in (project / "README.md").read_text(encoding="utf-8")
    assert title.strip() in (project / "notebooks/01-explore.ipynb").read_text(encoding="utf-8")
    package = recorded["default_context"]["package_name"]
    module = (project / "src" / package / "__init__.py").read_text(encoding="utf-8")
    namespace = {}
    exec(module, namespace)
    assert title.strip() in namespace["__doc__"]
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert params["task"] == task
    assert params["register"]["name"] == project.name
    run(BIN / "ruff", "check", ".", cwd=project)
    run(BIN / "ruff", "format", "--check", ".", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def check_file(path: Path, name: str) -> None:
    assert re.fullmatch(r"[\w./-]+", name, re.ASCII), f"{name} is not legal everywhere"
    assert not {part.split(".")[0].lower() for part in name.split("/")} & answers.PATH_WORDS
    assert path.stat().st_size, f"{name} is empty"
    content = path.read_text(encoding="utf-8")
    assert "\r" not in content
    assert content.endswith("\n"), name
    assert not re.search(
        r"cookiecutter\.(?!yaml|config|exceptions|repository)|<<|<%|%>|<#|#>", content
    ), f"left over in {name}"
    if path.suffix == ".py":
        py_compile.compile(str(path), cfile=str(path) + "c", doraise=True)
        Path(str(path) + "c").unlink()
    elif path.suffix in (".yaml", ".yml"):
        assert list(yaml.safe_load_all(content))
    elif path.suffix == ".toml":
        tomllib.loads(content)
    elif path.suffix == ".ipynb":
        cells = json.loads(content)["cells"]
        assert all(not c["outputs"] for c in cells if c["cell_type"] == "code"), name


@pytest.mark.parametrize("license", QUESTIONS["license"])
def test_licenses(license, tmp_path):
    project = generate(tmp_path, license=license, author_name="The Owner")
    text = (project / "LICENSE").read_text()
    words = {
        "MIT": "Permission is hereby granted",
        "BSD-3-Clause": "Redistribution and use",
        "Apache-2.0": "Apache License",
        "Proprietary": "All rights reserved",
    }
    assert words[license] in text
    assert "The Owner" in text
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert about.get("license") == (None if license == "Proprietary" else license)


BAD = {
    "package empty": ({"package_name": ""}, "package_name"),
    "package no identifier": ({"package_name": "9lives"}, "package_name"),
    "package with a dash": ({"package_name": "a-b"}, "package_name"),
    "package with accents": ({"package_name": "é"}, "package_name"),
    "package a keyword": ({"package_name": "class"}, "package_name"),
    "package a soft keyword": ({"package_name": "match"}, "package_name"),
    "package of the standard library": ({"package_name": "json"}, "package_name"),
    "package a dependency": ({"package_name": "pandas"}, "package_name"),
    "package imported as": ({"package_name": "sklearn"}, "package_name"),
    "package newline": ({"package_name": "a\nb"}, "package_name"),
    "slug nested": ({"project_slug": "a/b/c"}, "project_slug"),
    "slug outside": ({"project_slug": "../x"}, "project_slug"),
    "slug backslash": ({"project_slug": "a\\b"}, "project_slug"),
    "slug with a space": ({"project_slug": "a b"}, "project_slug"),
    "slug reserved on Windows": ({"project_slug": "nul"}, "project_slug"),
    "slug too long": ({"project_slug": "a" * 51}, "project_slug"),
    "name with a quote": ({"project_name": 'a"b', "project_slug": "x"}, "project_name"),
    "name with a newline": ({"project_name": "a\nb", "project_slug": "x"}, "project_name"),
    "name empty": ({"project_name": " ", "project_slug": "x"}, "project_name"),
    "description with a quote": ({"description": 'say "x"'}, "description"),
    "author with a backslash": ({"author_name": "a\\b"}, "author_name"),
    "address": ({"author_email": "nobody"}, "author_email"),
    "address with a bell": ({"author_email": "a\ab@example.com"}, "author_email"),
    "a sum": ({"description": "shift << 7*7 >> b"}, "'shift << 7*7 >> b' holds '<<'"),
    "a block": ({"description": "<% x"}, "'<% x' holds '<%'"),
    "a comment": ({"project_name": "a <# b"}, "'a <# b' holds '<#'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_answers_are_refused(case, tmp_path):
    given, word = BAD[case]
    output = tmp_path / "out"
    output.mkdir()
    done = cookiecutter(output, **given)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(word), done.stderr
    assert list(tmp_path.rglob("*")) == [output], "something was written"


def typed(folder: Path, *answers: str) -> subprocess.CompletedProcess:
    """cookiecutter with the answers typed at its questions."""
    command = [str(BIN / "cookiecutter"), str(TEMPLATE), "--default-config", "-o", str(folder)]
    options = {"env": CLEAN, "capture_output": True, "text": True}
    return subprocess.run(command, input="\n".join([*answers, ""]), **options)


def test_a_mark_that_is_typed_is_refused(tmp_path):
    """Such an answer is rendered by nobody, until the next upgrade reads it from the answers file."""
    done = typed(tmp_path, "A", "", "", "shift << 7*7 >> b", "", "", "", "", "")
    assert done.returncode == 1
    assert done.stderr.startswith("description holds '<<', a mark of the template"), done.stderr
    assert not list(tmp_path.iterdir())


def test_the_level_that_is_typed_is_the_level(tmp_path):
    """A menu would number the levels from 1."""
    done = typed(tmp_path, *[""] * 8, "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flight-delays/dvc.yaml").is_file()
    assert not (tmp_path / "flight-delays/delivery.yaml").exists()


def test_an_answer_that_is_no_text_is_refused(tmp_path):
    """A configuration file may hold one."""
    config = tmp_path / "config.yaml"
    config.write_text("default_context: {description: {a: b}}\n")
    (tmp_path / "out").mkdir()
    done = cookiecutter(tmp_path / "out", "--config-file", str(config))
    assert done.returncode == 1
    assert done.stderr.startswith("description is {'a': 'b'}, which is no text"), done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("hooks", ["yes", "no"])
def test_unoffered_level_is_refused(hooks, tmp_path):
    for level in ("7", "", "0 - manual", "00"):
        done = cookiecutter(tmp_path, "--accept-hooks", hooks, maturity_level=level)
        assert done.returncode == 1
        sentence = f"maturity_level {level} is not offered: choose one of 0, 1, 2"
        assert done.stderr.splitlines()[0] == sentence
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.iterdir())


def test_names_of_dependencies_are_refused(environment):
    """Every top-level module that an environment from the pins can import is taken."""
    assert set(importable(environment)) <= answers.taken(), "run make pins"


def test_an_existing_project_is_not_overwritten(tmp_path):
    """What is not committed is refused; what is committed is merged, which changes nothing here."""
    project = generate(tmp_path)
    before = {f: (project / f).read_bytes() for f in files(project)}
    (project / "params.yaml").write_text("mine: 1\n")
    for options in ((), ("-f",), ("-f", "-s"), ("-f", "--accept-hooks", "no")):
        done = cookiecutter(tmp_path, *options)
        assert done.returncode == 1
        assert (project / "params.yaml").read_text() == "mine: 1\n"
    assert files(project) == set(before)
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    run("git", *identity, "commit", "-qam", "mine", cwd=project)
    for options in (("-f",), ("-f", "-s"), ("-f", "--accept-hooks", "no")):
        done = cookiecutter(tmp_path, *options)
        assert done.returncode == 0, done.stderr
        assert "nothing to do" in done.stdout
        assert (project / "params.yaml").read_text() == "mine: 1\n"
        assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert files(project) == set(before)


def test_generation_is_deterministic(tmp_path, default):
    again = generate(tmp_path)
    assert files(again) == files(default)
    for file in files(again):
        assert (again / file).read_bytes() == (default / file).read_bytes(), file


def test_first_commit(default, tmp_path):
    log = run("git", "log", "--format=%s", cwd=default).stdout
    assert log == "feat: scaffold flight-delays at MLOps level 0\n"
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "out").mkdir()
    command = [BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", tmp_path / "out"]
    run(*command, cwd=tmp_path, HOME=str(home), XDG_CONFIG_HOME=str(home))
    author = run("git", "log", "--format=%an <%ae>", cwd=tmp_path / "out/flight-delays").stdout
    assert author.strip()


def test_first_commit_asks_no_hook_and_no_key(tmp_path):
    """A user's own hooks and signing would stop a commit that nobody has typed."""
    hook = tmp_path / "hooks/pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    own = f"[core]\n\thooksPath = {hook.parent}\n[commit]\n\tgpgsign = true\n"
    (tmp_path / ".gitconfig").write_text(own)
    (tmp_path / "out").mkdir()
    command = [BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", tmp_path / "out"]
    run(*command, cwd=tmp_path, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert run("git", "log", "--oneline", cwd=tmp_path / "out/flight-delays").stdout


def test_no_repository_inside_another(tmp_path):
    run("git", "init", "-q", cwd=tmp_path)
    project = generate(tmp_path)
    assert not (project / ".git").exists()
    assert run("git", "log", cwd=project, check=False).returncode


def test_without_git(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cookiecutter").symlink_to(BIN / "cookiecutter")
    (tmp_path / "out").mkdir()
    command = [tools / "cookiecutter", TEMPLATE, "--no-input", "-o", tmp_path / "out"]
    done = run(*command, cwd=tmp_path, PATH=str(tools))
    assert "without a commit" in done.stdout
    assert not (tmp_path / "out/flight-delays/.git").exists()


def test_next_steps_are_at_most_five_lines(tmp_path):
    done = cookiecutter(tmp_path)
    assert 1 <= len(done.stdout.strip().splitlines()) <= 5
    assert "make setup" in done.stdout


@pytest.mark.parametrize("level", OFFERED)
def test_answers_file_regenerates_the_same_project(level, tmp_path):
    """It holds the answers alone: no private key, which would override a newer template's."""
    project = generate(tmp_path, maturity_level=level, author_name="Someone")
    recorded = yaml.safe_load((project / ".cookiecutter.yaml").read_text())
    asked = {key for key in QUESTIONS if not key.startswith("_")}
    assert set(recorded["default_context"]) == asked
    assert recorded["template"]["version"] == QUESTIONS["__template_version"]
    config = project / ".cookiecutter.yaml"
    (tmp_path / "again").mkdir()
    command = [BIN / "cookiecutter", TEMPLATE, "--no-input", "--config-file", config]
    run(*command, "-o", tmp_path / "again", cwd=tmp_path, HOME=str(tmp_path))
    again = tmp_path / "again" / project.name
    assert {f: (again / f).read_bytes() for f in files(again)} == {
        f: (project / f).read_bytes() for f in files(project)
    }


def test_answers_file_tells_template_and_what_it_wrote(stock, tmp_path):
    """The whole path of a template given by a relative one; its remote and commit; a digest."""
    clone = tmp_path / "templates/clone"
    run("git", "clone", "-q", stock.template.folder, clone, cwd=tmp_path)
    address = "https://someone:password@example.com/ladder.git"
    run("git", "config", "remote.origin.url", address, cwd=clone)
    command = [BIN / "cookiecutter", "templates/clone", "--no-input", "-o", tmp_path]
    done = run(*command, cwd=tmp_path, HOME=str(tmp_path))
    assert "with a first commit" in done.stdout
    project = tmp_path / "flight-delays"
    told = yaml.safe_load((project / record.RECORD).read_text())["template"]
    assert told.pop("commit") == run("git", "rev-parse", "HEAD", cwd=clone).stdout.strip()
    assert told.pop("files") == record.digest(record.files_of(project))
    assert told == {
        "source": str(clone),
        "remote": "https://example.com/ladder.git",
        "version": QUESTIONS["__template_version"],
    }
    (project / "params.yaml").chmod(0o755)
    assert record.digest(record.files_of(project)) != told


def test_a_template_that_was_edited_has_no_commit(stock, tmp_path):
    template = stock.template.copy(tmp_path / "edited")
    (template.folder / "notes.txt").write_text("not committed\n")
    command = [BIN / "cookiecutter", template.folder, "--no-input", "-o", tmp_path]
    run(*command, cwd=tmp_path, HOME=str(tmp_path))
    told = yaml.safe_load((tmp_path / "flight-delays" / record.RECORD).read_text())["template"]
    assert set(told) == {"source", "version", "files"}


def test_template_files_avoid_its_delimiters():
    """Nothing below the template's folder may use `<<`, `<%` or `<#` for itself: heredocs, merges."""
    for path in SOURCE.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            for opening in re.findall(
                r"<<(?! ?\(?cookiecutter\.|\s*(?:key|value) | origin\()", text
            ):
                pytest.fail(f"{path.relative_to(SOURCE)}: {opening}")


@pytest.mark.parametrize("hooks", ["yes", "no"])
def test_files_of_higher_levels_are_not_written(hooks, stock, tmp_path):
    """Neither with hooks nor without; what lies in a shared folder is, with its level."""
    template = stock.template.copy(tmp_path / "template")
    above = ["src/PACKAGE/above/step.py", "make/above.mk", "tests/test_above.py", ".above/x/y"]
    for file in above:
        template.add(file, "x = 1\n", level=2)
    command = [BIN / "cookiecutter", template.folder, "--no-input", "--accept-hooks", hooks]
    trees = []
    for level in ("0", "1", "2"):
        output = tmp_path / level
        output.mkdir()
        run(*command, "-o", output, f"maturity_level={level}", cwd=tmp_path, HOME=str(tmp_path))
        trees.append(files(output / "flight-delays"))
    brought = {file.replace("PACKAGE", "flight_delays") for file in above}
    assert brought <= trees[2] - trees[1]
    assert trees[0] < trees[1] < trees[2]
    folders = [p for p in (tmp_path / "0").rglob("*") if p.is_dir() and ".git" not in p.parts]
    assert hooks == "no" or all(any(folder.iterdir()) for folder in folders)


MARKED = {"README.md": r"<!-- level:start -->.*<!-- level:end -->"}
MARKED |= {"pyproject.toml": r"# level:start\n.*# level:end"}
MARKED |= {".cookiecutter.yaml": r'maturity_level: "\d"|  files: "\w+"'}


@pytest.mark.parametrize("task", QUESTIONS["task"])
def test_a_level_only_adds_files(task, tmp_path):
    """No file of a lower level changes but three, and these only between their marks."""
    trees = []
    for level in OFFERED:
        (tmp_path / level).mkdir()
        trees.append(generate(tmp_path / level, task=task, maturity_level=level))
    for below, above in pairwise(trees):
        assert files(below) < files(above)
        for file in files(below):
            texts = [(tree / file).read_text(encoding="utf-8") for tree in (below, above)]
            if file in MARKED:
                assert all(re.search(MARKED[file], text, re.S) for text in texts), file
                texts = [re.sub(MARKED[file], "", text, flags=re.S) for text in texts]
            assert texts[0] == texts[1], file
