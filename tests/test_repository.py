"""The template's own files: workflows, documents, commands."""

import json
import re
import subprocess

import pytest
import yaml
from conftest import BIN, SOURCE, TEMPLATE, run

WORKFLOWS = sorted((TEMPLATE / ".github/workflows").glob("*.yml"))


def test_workflows_are_clean():
    run(BIN / "zizmor", "--offline", "--no-progress", ".github", cwd=TEMPLATE)
    run(BIN / "actionlint", *WORKFLOWS, cwd=TEMPLATE)
    schema = ("--builtin-schema", "vendor.github-workflows")
    run(BIN / "check-jsonschema", *schema, *WORKFLOWS, cwd=TEMPLATE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_hold_least_privilege_and_pins(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (TEMPLATE / "Makefile").read_text(), re.M))
    for path in [
        *WORKFLOWS,
        TEMPLATE / ".ci/run",
        TEMPLATE / "README.md",
        TEMPLATE / "CONTRIBUTING.md",
    ]:
        called = set(re.findall(r"(?:run: |`|^)make ([a-z][a-z-]*)", path.read_text(), re.M))
        generated = set(re.findall(r"^([a-z]+):", (SOURCE / "Makefile").read_text(), re.M))
        assert called <= targets | generated, path


def test_readme_shows_the_tree_and_its_pictures():
    """Each path of LEVELS is in the README's tree by its name; each picture is there."""
    text = (TEMPLATE / "README.md").read_text()
    for path in SOURCE.rglob("*"):
        if path.is_file() and "requirements" not in path.parts:
            assert path.name.replace("__init__.py", "") in text, path.name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (TEMPLATE / link).exists(), link


def test_pins_carry_no_address():
    for path in [TEMPLATE / "requirements.txt", *SOURCE.glob("requirements/*.txt")]:
        text = path.read_text()
        assert "://" not in text, path
        assert "--hash=sha256:" in text


def test_prompts_are_for_people():
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = {key for key in questions if not key.startswith("_")}
    assert set(questions["__prompts__"]) == asked
    assert len(asked) <= 9


def test_make_lists_the_commands():
    listed = subprocess.run(
        ["make"], cwd=TEMPLATE, capture_output=True, text=True, check=True
    ).stdout
    assert {"demo", "test", "check", "bench"} <= set(re.findall(r"make ([a-z-]+)", listed))
