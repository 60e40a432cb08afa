"""The continuous-training workflow, executed by act: some days in the life of a project with a team.

Real are the workflow, git, DVC, and an MLflow server on PostgreSQL; tests/actions/ stands in for the
four actions, and a script for gh. The tests run in their order, each from where the last one left.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import BIN, CLEAN, IDENTITY, generate, run
from test_stores import mlflow_server, postgres

pytestmark = pytest.mark.slow
ACTIONS = Path(__file__).parent / "actions"
WORKFLOW = ".github/workflows/continuous-training.yml"
STATE = {"data/raw.dvc", "dvc.lock", "schema.yaml", "data/incoming.json"}
BRANCH = "continuous-training/state"  # of the pull request
# Of the gate: what is promoted here, few rows and a busy machine must not prevent.
LOOSE = {"tolerance": 0.03, "calibration_tolerance": 0.03, "segment_tolerance": 0.2}
LOOSE |= {"latency": 1000}
# Once the pull request has been created it is there.
GH = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
if [ "$1 $2" = "pr list" ] && grep -q "^pr create" "$CALLS"; then echo 7; fi
"""
# A hook of the server's: while there is a file `race`, a colleague's push is quicker.
RACE = """#!/bin/sh
test ! -e race || {{ rm race; env -i PATH="$PATH" git -C {colleague} push -q; exit 1; }}
"""
MONTHS = """
from flight_delays import example
table = example.flights()
for month, rows in table.groupby(table["scheduled_departure"].dt.strftime("%Y-%m")):
    if month < "2013-06":
        rows = rows.sample(4000, random_state=0).sort_index()
        rows.to_parquet(f"{folder}/{month}.parquet", index=False)
"""
BREAK = """
import pandas as pd
pd.read_parquet(path).drop(columns="temp").to_parquet(path)
"""
DIGEST = """
from flight_delays.experiment import dataset, params
print(dataset.digest(dataset.batches(params.load().data)))
"""


@dataclass
class Ran:
    """A run of the workflow: its exit code, and all that it said."""

    code: int
    log: str

    @property
    def summary(self) -> str:
        parts = re.findall(r"Summary - (.*?)(?=^\[)", self.log, re.M | re.S)
        return "".join(dict.fromkeys(parts))  # act tells that of a composite action twice

    @property
    def title(self) -> str:
        return self.summary.partition("\n")[0]


def isolate_secrets(clone: Path) -> None:
    """Let a job see the secrets that it would on GitHub, for act gives all of them to every job.

    Those of an environment come to a job that names it. A workflow that another one calls sees what is
    passed to it, so nothing here; and its job's environment does not change that.
    """
    workflows = {path: path.read_text() for path in Path(clone, ".github/workflows").glob("*.yml")}
    called = set(
        re.findall(r"uses: \./\.github/workflows/([\w-]+\.yml)", "".join(workflows.values()))
    )
    for path, text in workflows.items():
        head, mark, jobs = text.partition("\njobs:\n")
        parts = []
        for job in re.split(r"^(?=  [\w-]+:\n)", jobs, flags=re.M):
            named = re.search(r"^    environment: (\w+)$", job, re.M)
            if path.name in called:
                job = re.sub(r"secrets\.(\w+)", r"secrets.NOT_PASSED__\1", job)
            elif named:
                job = re.sub(r"secrets\.(\w+)", rf"secrets.{named[1]}__\1", job)
            parts.append(job)
        path.write_text(head + mark + "".join(parts))
    # act takes the clone for what is checked out, and a release is built of no changed files.
    names = [path.relative_to(clone) for path in workflows]
    run("git", "update-index", "--assume-unchanged", *names, cwd=clone)


class Team:
    """A repository on a server, a clone of it, and the services around."""

    def __init__(
        self, folder: Path, environment: Path, uri: str, database: str, level: str = "1"
    ) -> None:
        self.folder, self.uri, self.database = folder, uri, database
        self.environment, self.variables = environment, {}
        for name in ("incoming", "remote", "bin", "months"):
            (folder / name).mkdir()
        (folder / "bin/gh").write_text(GH)
        (folder / "bin/gh").chmod(0o755)
        self.origin, self.clone = folder / "origin.git", generate(folder, maturity_level=level)
        run("git", "init", "-q", "--bare", "-b", "main", self.origin, cwd=folder)
        self.git("checkout", "-q", "-B", "main")
        self.git("remote", "add", "origin", self.origin)
        self.git("push", "-q", "origin", "main")
        self.python(self.clone, MONTHS, folder=folder / "months")

    def git(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        return run("git", *arguments, cwd=cwd or self.clone, **IDENTITY).stdout.strip()

    def dvc(self, *arguments: str | Path, cwd: Path) -> None:
        run(self.environment / "bin/python", "-m", "dvc", *arguments, cwd=cwd)

    def python(self, project: Path, code: str, **names: Path) -> str:
        """What some code of the project's prints, with these paths as names."""
        code = "".join(f"{name} = {str(path)!r}\n" for name, path in names.items()) + code
        command = [self.environment / "bin/python", "-c", code]
        return run(*command, cwd=project, PYTHONPATH=str(project / "src")).stdout.strip()

    def change(self, **settings: dict) -> None:
        """Commit and push all changes, with these to params.yaml and continuous_training.yaml."""
        for name, changed in settings.items():
            path = self.clone / f"{name}.yaml"
            content = yaml.safe_load(path.read_text())
            for key, value in changed.items():
                content[key] = content[key] | value if isinstance(value, dict) else value
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        self.git("pull", "-q", "--rebase", "--autostash", "origin", "main")
        self.git("commit", "-q", "--all", "--no-verify", "-m", "feat: a change")
        self.git("push", "-q", "origin", "main")

    def arrives(self, *months: str) -> None:
        for month in months:
            shutil.copy(self.folder / f"months/{month}.parquet", self.folder / "incoming")

    def act(
        self,
        event: str,
        *options: str | Path,
        artifacts: str = "artifacts",
        workflow: str = WORKFLOW,
        branch: str = "main",
        secrets: dict[str, dict[str, str]] | None = None,
        change: Callable[[str], str] = str,
        **environment: str,
    ) -> Ran:
        """Run a workflow of a branch, as the server would; `secrets` are those of its environments.

        `change` is applied to the text of the workflow.
        """
        clone = tempfile.mkdtemp(dir=self.folder)
        self.git("clone", "-q", "-b", branch, self.origin, clone)
        isolate_secrets(Path(clone))
        path = Path(clone, workflow)
        path.write_text(change(path.read_text()))
        for name, values in (secrets or {}).items():
            options += tuple(w for k, v in values.items() for w in ("-s", f"{name}__{k}={v}"))
        texts = [path.read_text() for path in Path(clone, ".github").rglob("*.yml")]
        used = set(re.findall(r"uses: ([\w-]+/[\w./-]+@\w+)", "".join(texts)))
        command = [BIN / "act", event, "-W", workflow, "-s", "GITHUB_TOKEN=token", *options]
        command += ["-P", "ubuntu-24.04=-self-hosted", "--pull=false", "--no-cache-server"]
        command += ["--defaultbranch", "main", "--action-cache-path", self.folder / "runs"]
        for uses in used:
            name = uses.partition("@")[0].partition("/")[2]
            assert (ACTIONS / name / "action.yml").exists(), f"nothing stands in for {uses}"
            command += ["--local-repository", f"{uses}={ACTIONS / name}"]
        for name, value in self.variables.items():
            command += ["--var", f"{name}={value}"]
        env = {"PATH": f"{self.folder / 'bin'}{os.pathsep}{CLEAN['PATH']}"}
        env |= {"ORIGIN": str(self.origin), "ENVIRONMENT": str(self.environment)}
        env |= {"ARTIFACTS": str(self.folder / artifacts), "CALLS": str(self.folder / "gh.log")}
        env |= {"GIT_CONFIG_GLOBAL": os.devnull} | environment  # a runner knows no name and e-mail
        to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run([str(word) for word in command], cwd=clone, env=CLEAN | env, **to)
        print(done.stdout)  # pytest shows it if the test fails
        return Ran(done.returncode, done.stdout)

    def version(self, alias: str) -> dict[str, str]:
        """The tags of the version that has an alias, and its number."""
        path = f"api/2.0/mlflow/registered-models/alias?name=flight-delays&alias={alias}"
        with urllib.request.urlopen(f"{self.uri}/{path}") as answer:
            version = json.load(answer)["model_version"]
        return {tag["key"]: tag["value"] for tag in version["tags"]} | {"": version["version"]}

    def champions(self) -> tuple[str, str]:
        """The numbers of the champion, and of the one before it."""
        return self.version("champion")[""], self.version("previous")[""]

    def main(self) -> str:
        """The tip of the server's default branch."""
        return self.git("rev-parse", "main", cwd=self.origin)

    def written(self, commits: str) -> tuple[set[str], set[str]]:
        """Who made these commits on the server, and the files that they change."""
        authors = self.git("log", "--format=%an", commits, cwd=self.origin)
        files = self.git("log", "--format=", "--name-only", commits, cwd=self.origin)
        return set(authors.splitlines()), set(files.splitlines())

    def data(self) -> str:
        """The digest of the batches that a new clone pulls."""
        clone = Path(tempfile.mkdtemp(dir=self.folder))
        self.git("clone", "-q", self.origin, clone)
        self.dvc("pull", "-q", "data/raw.dvc", cwd=clone)
        return self.python(clone, DIGEST)

    def calls(self) -> list[str]:
        """What gh was called with."""
        return (self.folder / "gh.log").read_text().splitlines()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, environment: Path) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with postgres() as database, mlflow_server(folder, environment, database) as uri:
        yield Team(folder, environment, uri, database)


def test_without_settings_a_scheduled_run_is_skipped_and_another_fails(team):
    for event, code, word in [("schedule", 0, "skipped"), ("workflow_dispatch", 1, "failed")]:
        ran = team.act(event)
        assert (ran.code, ran.title) == (code, f"# {word}: settings are missing")
        assert "MLFLOW_TRACKING_URI" in ran.summary
        assert "DVC remote in .dvc/config: `remote`" in ran.summary
        assert "make setup" not in ran.log


def test_the_settings_that_are_there_are_not_named(team):
    team.dvc("remote", "add", "-q", "-d", "storage", team.folder / "remote", cwd=team.clone)
    team.change()
    team.variables |= {"MLFLOW_TRACKING_URI": team.uri, "WRITE_BACK": "merge"}
    named = [line for line in team.act("schedule").summary.splitlines() if line.startswith("- ")]
    assert named == ["- the variable WRITE_BACK: commit or pull-request, not `merge`"]
    del team.variables["WRITE_BACK"]


def test_the_first_batches_make_the_first_champion(team):
    team.change(
        params={"data": {"through": None}, "model": {"arguments": {"max_iter": 30}}},
        continuous_training={"gate": LOOSE, "incoming": f"{team.folder}/incoming/*.parquet"},
    )
    team.git("tag", "v1")
    team.git("push", "-q", "origin", "v1")
    team.arrives("2013-01", "2013-02", "2013-03")
    ran = team.act("schedule")
    assert (ran.code, ran.title) == (0, "# promoted: flight-delays version 1")
    assert team.version("champion")["commit"] == team.git("rev-parse", "v1")
    assert team.written("v1..main") == ({"github-actions[bot]"}, STATE)


def test_a_worse_recipe_is_refused_and_the_run_is_green(team):
    """The state comes as a pull request, which is then merged."""
    team.change(params={"model": {"arguments": {"max_iter": 2}}})
    team.variables["WRITE_BACK"] = "pull-request"
    before = team.main()
    ran = team.act("workflow_dispatch")
    assert (ran.code, ran.title) == (0, "# refused: flight-delays version 2")
    assert team.version("champion")[""] == "1"
    assert team.main() == before
    assert team.written(f"main..{BRANCH}") == ({"github-actions[bot]"}, {"dvc.lock"})
    created = f"pr create --base main --head {BRANCH} --title chore: data of refused"
    assert team.calls()[-1].startswith(created)
    team.git("fetch", "-q", "origin", BRANCH)
    team.git("push", "-q", "origin", "FETCH_HEAD:main")
    del team.variables["WRITE_BACK"]


def test_a_new_month_a_released_pipeline_and_a_colleague(team):
    """v1 is what runs, though main has another recipe; the state is main's, though v1 has none.

    It lands on top of a colleague's commit that is pushed meanwhile, and a new clone pulls the data.
    """
    colleague = team.folder / "colleague"
    team.git("clone", "-q", team.origin, colleague)
    (colleague / "NOTES.md").write_text("mine\n")
    team.git("add", "NOTES.md", cwd=colleague)
    team.git("commit", "-q", "-m", "docs: mine", cwd=colleague)
    hook, event = team.origin / "hooks/pre-receive", team.folder / "event.json"
    hook.write_text(RACE.format(colleague=colleague))
    hook.chmod(0o755)
    (team.origin / "race").touch()
    event.write_text('{"action": "retrain"}')
    team.variables["PIPELINE_REF"] = "v1"
    team.arrives("2013-04")
    ran = team.act("repository_dispatch", "-e", event, "-s", f"FEATURE_STORE_URL={team.database}")
    assert (ran.code, ran.title) == (0, "# promoted: flight-delays version 3")
    assert team.champions() == ("3", "1")
    assert team.version("champion")["commit"] == team.git("rev-parse", "v1")
    assert "fetched 2013-04.parquet" in ran.log
    assert re.search(r"carrier_delay_3h: \d\d,\d\d\d rows written", ran.log)
    assert not (team.origin / "race").exists()
    titles = team.git("log", "-2", "--format=%s", "main", cwd=team.origin).splitlines()
    assert titles == ["chore: data of promoted: flight-delays version 3", "docs: mine"]
    assert team.data() == team.version("champion")["data"]


def test_a_day_without_news_leaves_everything_as_it_is(team):
    before = team.main()
    ran = team.act("schedule")
    assert (ran.code, ran.title) == (0, "# nothing to do: no trigger fired")
    assert team.main() == before


def test_without_the_old_batches_nothing_is_trained_on_the_new_one(team):
    remote, away = team.folder / "remote", team.folder / "away"
    remote.rename(away)
    ran = team.act("schedule")
    shutil.rmtree(remote, ignore_errors=True)
    away.rename(remote)
    assert ran.code == 1
    assert ran.title.startswith("# failed: no batches from the DVC remote")


def test_a_broken_month_is_quarantined_and_the_run_is_red(team):
    team.arrives("2013-05")
    team.python(team.clone, BREAK, path=team.folder / "incoming/2013-05.parquet")
    before = team.main()
    ran = team.act("schedule")
    assert (ran.code, ran.title) == (1, "# quarantined: the champion stays as it is")
    bot, changed = team.written(f"{before}..main")
    assert bot == {"github-actions[bot]"}
    assert "data/incoming.json" in changed
    assert not changed & {"data/raw.dvc", "schema.yaml"}
    assert "2013-05.parquet: column 'temp' is missing" in ran.summary
    assert list(team.folder.glob("artifacts/*/data/quarantine/2013-05.parquet.txt"))
    assert team.champions() == ("3", "1")
    before = team.main()
    ran = team.act("schedule")  # on a new runner, which has no quarantine
    assert (ran.code, ran.title) == (0, "# nothing to do: no trigger fired")
    assert team.main() == before


@pytest.mark.nightly
def test_two_at_once_make_one_champion(team):
    team.arrives("2013-05")  # mended
    before, old = team.main(), team.champions()[0]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda name: team.act("schedule", artifacts=name), "ab"))
    assert [ran.code for ran in both] == [0, 0]
    new, previous = team.champions()
    assert previous == old
    assert f"# promoted: flight-delays version {new}" in {ran.title for ran in both}
    assert team.git("rev-list", "--count", f"{before}..main", cwd=team.origin) == "1"
    assert team.data() == team.version("champion")["data"]
    team.git("fsck", "--strict", cwd=team.origin)


@pytest.mark.nightly
def test_a_run_whose_state_was_lost_finds_the_champion_that_is_there(team):
    """As with a pull request that is not merged yet; that one is brought up to date."""
    team.git("update-ref", "refs/heads/main", "main~1", cwd=team.origin)
    team.variables["WRITE_BACK"] = "pull-request"
    before = team.champions()
    ran = team.act("workflow_dispatch", "--input", "demand=true")
    assert ran.code == 0
    assert ran.title.startswith(f"# nothing to do: the champion, version {before[0]}, is")
    assert team.champions() == before
    assert team.calls()[-1].startswith("pr edit 7 --title")
