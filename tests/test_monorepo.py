"""A project in a folder of a larger repository: its workflows, its hooks, its upgrades, its CI."""

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import BIN, generate, run
from ladder import RECORD, Ladder, conflicts, files, recorded, snapshot
from test_climb import HOOKS, commit, make, plant, resolve, setup  # noqa: F401 (a fixture)
from test_workflows import Team

FOLDER = "teams/flight-delays"
NAMES = ["cd", "ci", "continuous-training", "monitor", "template"]


def root(name: str) -> str:
    return f".github/workflows/flight-delays-{name}.yml"


@pytest.fixture
def repository(ladder) -> Path:
    """A repository of several teams."""
    place = ladder.folder / "repository"
    (place / "teams").mkdir(parents=True)
    ladder.git(place, "init", "-q", "-b", "main")
    (place / "README.md").write_text("# Our teams\n")
    ladder.commit(place)
    return place


def born(ladder: Ladder, repository: Path, level: str) -> Path:
    """A project that was generated in it, committed."""
    project = ladder.generate(output=repository / "teams", maturity_level=level)
    ladder.commit(repository)
    return project


def test_workflows_are_where_github_looks(ladder, repository):
    project = born(ladder, repository, "2")
    assert [path.name for path in (project / ".github").iterdir()] == ["actions"]
    assert not (project / ".git").exists()
    found = sorted(path.name for path in (repository / ".github/workflows").iterdir())
    assert found == [f"flight-delays-{name}.yml" for name in NAMES]
    done = ladder.run(BIN / "actionlint", cwd=repository)
    assert done.returncode == 0, done.stdout
    for name in NAMES:
        workflow = yaml.safe_load((repository / root(name)).read_text())
        events = workflow[True]  # YAML reads `on` so
        for event in {"push", "pull_request"} & set(events):
            assert events[event]["paths"] == [
                f"{FOLDER}/**",
                ".github/workflows/flight-delays-*.yml",
            ]
        for job in workflow["jobs"].values():
            steps = job.get("steps", [])
            out = any("actions/checkout@" in step.get("uses", "") for step in steps)
            where = job.get("defaults", {}).get("run", {}).get("working-directory")
            assert where == (FOLDER if out else None), "a folder that no checkout has made"
            if "uses" in job:
                assert (repository / job["uses"].partition("#")[0].strip()).is_file()
            for step in steps:
                if step.get("uses", "").startswith("./"):
                    assert (repository / step["uses"] / "action.yml").is_file()
                given = step.get("with", {})
                assert given.get("context", FOLDER) == FOLDER
                if "actions/upload-artifact@" in step.get("uses", ""):
                    assert all(p.startswith(f"{FOLDER}/") for p in given["path"].split())


def test_a_file_that_is_there_is_not_overwritten(ladder, repository):
    """Neither by a new project nor by an upgrade, which is refused before anything is written."""
    (repository / root("ci")).parent.mkdir(parents=True)
    (repository / root("ci")).write_text("# of another team\n")
    ladder.commit(repository)
    project = born(ladder, repository, "2")
    assert (repository / root("ci")).read_text() == "# of another team\n"
    assert (project / ".github/workflows/ci.yml").exists()
    shutil.rmtree(project)
    for name in set(NAMES) - {"ci"}:
        (repository / root(name)).unlink()
    ladder.commit(repository)
    project = born(ladder, repository, "1")
    before = snapshot(repository, repository=True)
    done = ladder.engine(project, "2")
    assert done.returncode == 1
    assert f"{repository / root('ci')} is in the way" in done.stderr
    assert snapshot(repository, repository=True) == before


def test_an_ignored_folder_is_no_project_of_the_repository(ladder, repository):
    (repository / ".gitignore").write_text("/teams/\n")
    project = ladder.generate(output=repository / "teams", maturity_level="2")
    assert (project / ".github/workflows/ci.yml").exists()
    assert not (repository / ".github").exists()


@pytest.mark.parametrize("entry", [Ladder.plain, Ladder.engine], ids=["cookiecutter", "engine"])
def test_workflows_are_merged_at_the_root(ladder, stock, repository, entry):
    """Edits stay, a conflict is at the root's file, `git merge --abort` brings back all."""
    ladder.template = stock.template.copy(ladder.folder / "newer")
    project = born(ladder, repository, "1")
    workflow = repository / root("continuous-training")
    text = workflow.read_text()
    workflow.write_text(text.replace('"23 4 * * *"', '"5 5 * * *"'))
    other = repository / ".github/workflows/other.yml"
    other.write_text("name: other\n")
    ladder.commit(repository)
    before = snapshot(repository)
    source = ".github/workflows/continuous-training.yml"
    ladder.template.replace(source, "timeout-minutes: 120", "timeout-minutes: 150")
    ladder.template.commit()
    done = entry(ladder, project, "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ladder.git(repository, "diff") == ""
    text = workflow.read_text()
    assert '"5 5 * * *"' in text
    assert "timeout-minutes: 150" in text
    assert f"working-directory: {FOLDER}" in text
    assert all((repository / root(name)).is_file() for name in NAMES)
    ladder.git(repository, "merge", "--abort")
    assert snapshot(repository) == before
    ladder.template.replace(source, '"23 4 * * *"', '"24 4 * * *"')
    ladder.template.commit()
    done = entry(ladder, project, "2")
    assert done.returncode == 1
    assert f"conflict in ../../{root('continuous-training')}: changed by you" in done.stdout
    assert conflicts(repository) == {root("continuous-training"): "123"}
    ladder.git(repository, "merge", "--abort")
    assert snapshot(repository) == before


def test_up_and_down_again(ladder, repository):
    project = born(ladder, repository, "0")
    before = files(project)
    for level in ("1", "2", "0"):
        done = ladder.engine(project, level)
        assert done.returncode == 0, done.stdout + done.stderr
        ladder.git(repository, "commit", "-q", "--no-edit")
        assert "nothing to do" in ladder.engine(project, level).stdout
    assert files(project) == before
    assert not (repository / ".github").exists()


def test_a_project_that_moved_into_a_repository(ladder, stock, repository):
    """The next upgrade takes its workflows to the root, with what the owner has changed in them."""
    project = repository / FOLDER
    shutil.copytree(stock.fresh("2"), project)
    shutil.rmtree(project / ".git")
    inside = project / ".github/workflows"
    (inside / "monitor.yml").write_text(
        (inside / "monitor.yml").read_text().replace('"47 * * * *"', '"7 * * * *"')
    )
    (inside / "own.yml").write_text("name: own\n")
    ladder.commit(repository)
    before = snapshot(repository)
    done = ladder.engine(project, None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in inside.iterdir()] == ["own.yml"]
    assert '"7 * * * *"' in (repository / root("monitor")).read_text()
    fresh = ladder.folder / "fresh"
    (fresh / "teams").mkdir(parents=True)
    ladder.git(fresh, "init", "-q")
    ladder.generate(output=fresh / "teams", maturity_level="2")
    for name in set(NAMES) - {"monitor"}:
        assert (repository / root(name)).read_text() == (fresh / root(name)).read_text()
    ladder.git(repository, "merge", "--abort")
    assert snapshot(repository) == before
    assert ladder.engine(project, None).returncode == 0
    ladder.git(repository, "commit", "-q", "--no-edit")
    assert "nothing to do" in ladder.engine(project, None).stdout


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["none", "its own"])
def test_commits_and_a_climb_with_hooks(ladder, repository, setup, own):  # noqa: F811
    """From the root. Hooks of the repository's own stay, and can take the project's beside them."""
    project, config = born(ladder, repository, "1"), repository / ".pre-commit-config.yaml"
    hook = {"id": "own", "name": "own", "entry": "true", "language": "system"}
    root_hooks = {"repos": [{"repo": "local", "hooks": [hook]}]}
    if own:
        config.write_text(yaml.safe_dump(root_hooks))
        setup(project)
        run(project / ".venv/bin/pre-commit", "install", cwd=repository)
        its = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())
        for hook in its["repos"][0]["hooks"]:
            hook["files"] = its["files"]
        config.write_text(yaml.safe_dump({"repos": root_hooks["repos"] + its["repos"]}))
    setup(project)
    said = run("make", "setup", cwd=project).stdout
    assert ("no git hooks: add those of teams/flight-delays/.pre-commit-config" in said) is own
    expected = ["own", *HOOKS] if own else HOOKS
    (project / "ours.py").write_text("x = 1\n")
    ladder.git(repository, "add", "--all")
    commit(ladder, repository, "-m", "feat: our project", hooks=expected)
    (project / "ugly.py").write_text("import os\nx = {  'a':1 }\n")
    (repository / "ugly.py").write_text("x = {  'a':1 }\n")
    ladder.git(repository, "add", "--all")
    refused = ladder.run("git", "commit", "-m", "feat: ugly", cwd=repository)
    assert refused.returncode
    assert (project / "ugly.py").read_text() == 'x = {"a": 1}\n'
    assert (repository / "ugly.py").read_text() == "x = {  'a':1 }\n", "no file of the project"
    ladder.git(repository, "reset", "-q", "--hard")
    plant(project)
    ladder.git(repository, "add", "--all")
    commit(ladder, repository, "-m", "docs: our own words", hooks=expected)
    said = make(ladder, project, "upgrade LEVEL=2", code=2)
    assert "conflict in README.md" in said
    setup(project)
    resolve(ladder, repository)
    commit(ladder, repository, "--no-edit", hooks=expected)
    assert recorded(project)["default_context"]["maturity_level"] == "2"
    make(ladder, project, "lint")


class Shared(Team):
    """A team whose project is a folder of a repository on a server."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.environment, self.variables = folder, environment, {}
        self.origin, self.clone = folder / "origin.git", folder / "clone"
        for path in (self.clone / "teams", folder / "bin"):
            path.mkdir(parents=True)
        run("git", "init", "-q", "--bare", "-b", "main", self.origin, cwd=folder)
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", self.origin)

    def push(self) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "feat: a change")
        self.git("push", "-q", "origin", "HEAD:main")

    def workflow(self, name: str, event: str, *options: str):
        return self.act(event, *options, workflow=root(name), PROJECT=FOLDER)


@pytest.mark.slow
def test_its_workflows_run(tmp_path, environment):
    """CI is green, and red for what is wrong in the project; the others look into its folder."""
    team = Shared(tmp_path, environment)
    project = generate(team.clone / "teams", maturity_level="2")
    team.push()
    ran = team.workflow("ci", "push", "-j", "lint")
    assert ran.code == 0
    ran = team.workflow("continuous-training", "schedule")
    assert (ran.code, ran.title) == (0, "# skipped: settings are missing")
    assert "DVC remote in .dvc/config: `remote`" in ran.summary
    ran = team.workflow("template", "workflow_dispatch")
    assert (ran.code, ran.title) == (0, "# nothing newer")
    (project / "ugly.py").write_text("import os\n")
    team.push()
    ran = team.workflow("ci", "push", "-j", "lint")
    assert ran.code == 1
    assert "Failure - Main make lint" in ran.log
    assert (project / RECORD).exists()
