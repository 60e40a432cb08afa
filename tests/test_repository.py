"""The template's own files: workflows, documents, commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import BIN, SOURCE, TEMPLATE, generate, run

WORKFLOWS = sorted((TEMPLATE / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module", params=["template", "1", "2"])
def workflows(request, tmp_path_factory) -> list[Path]:
    """The template's own workflows, or those of a project of this level."""
    if request.param == "template":
        return WORKFLOWS
    project = generate(tmp_path_factory.mktemp("project"), maturity_level=request.param)
    return sorted((project / ".github/workflows").iterdir())


def test_workflows_are_clean(workflows):
    root = workflows[0].parents[2]
    own = TEMPLATE / "tests/zizmor.yml"
    options = ("--offline", "--pedantic", "--no-progress", "--config", own)
    run(BIN / "zizmor", *options, ".github", cwd=root)
    run(BIN / "actionlint", *workflows, cwd=root)
    schema = ("--builtin-schema", "vendor.github-workflows")
    run(BIN / "check-jsonschema", *schema, *workflows, cwd=root)


def test_workflows_hold_least_privilege_and_pins(workflows):
    for path in workflows:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            needed = {"permissions"} | ({"timeout-minutes"} if "steps" in job else set())
            assert needed <= job.keys(), name
            for step in job.get("steps", []):
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
    root = workflows[0].parents[2]
    for path in [*workflows, *root.glob(".github/actions/*/action.yml")]:
        for used in re.findall(r"uses: (.*)", path.read_text()):
            if used.startswith("./"):
                assert (root / used.split()[0]).exists(), used
                continue
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (TEMPLATE / "Makefile").read_text(), re.M))
    fragments = [SOURCE / "Makefile", *SOURCE.glob("make/*.mk")]
    generated = set(re.findall(r"^([a-z]+):", "".join(f.read_text() for f in fragments), re.M))
    for path in [
        *WORKFLOWS,
        TEMPLATE / ".ci/run",
        TEMPLATE / "README.md",
        TEMPLATE / "CONTRIBUTING.md",
    ]:
        called = set(re.findall(r"(?:run: |`|^)make ([a-z][a-z-]*)", path.read_text(), re.M))
        assert called <= targets | generated, path


def test_readme_shows_the_tree_and_its_pictures():
    """`tools/tree.py` has written the tree of this state; each picture is there."""
    text = (TEMPLATE / "README.md").read_text()
    subprocess.run([sys.executable, TEMPLATE / "tools/tree.py", "--check"], check=True)
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
