"""A person with a table of her own climbs from level 0 to production, and edits nothing but settings.

Each level's own commands run on each kind of table and task, to what that level is for: a scored file;
a promotion and a refusal; a release in production, a canary, labels that came late, a way back.
"""

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import CLEAN, IDENTITY, TEMPLATE, attach, free_port, generate, run

pytestmark = pytest.mark.slow
# Shape, task, and which of the project's own tests run too: of a classification all do by day in
# test_commands.py; of others those that are about more than the story tells.
BY_DAY = [
    ("monthly", "classification", "none"),
    ("single", "regression", "some"),
    ("single", "classes", "some"),
]
EVERY = itertools.product(
    ("example", "single", "monthly"), ("classification", "regression", "classes"), ("all",)
)
CASES = BY_DAY + [pytest.param(*case, marks=pytest.mark.nightly) for case in EVERY]


class Owner:
    """A project with a table of the owner's, and her commands in it."""

    def __init__(self, folder: Path, shape: str, task: str, environment: Path, batches: Path):
        answers = {"task": "regression" if task == "regression" else "classification"}
        self.project = attach(generate(folder, **answers), environment)
        self.environment, self.shape = environment, shape
        if shape == "example":
            run("cp", "-r", "--no-preserve=mode", batches, self.raw, cwd=folder)
        tables = TEMPLATE / "tests/tables.py"
        run(self.project / ".venv/bin/python", tables, shape, task, cwd=self.project)
        self.commit()

    @property
    def raw(self) -> Path:
        (self.project / "data").mkdir(exist_ok=True)
        return self.project / "data/raw"

    @property
    def newest(self) -> Path:
        """A batch to score: one after those in use, if there are such."""
        last = {"example": "2013-04.parquet", "single": "tabela.csv", "monthly": "2025-06.parquet"}
        return self.raw / last[self.shape]

    def make(self, *words: str, check: bool = True) -> str:
        done = run("make", *words, cwd=self.project, check=check, **IDENTITY)
        return done.stdout + done.stderr

    def commit(self) -> None:
        """Whatever there is; a merge is ended."""
        run("git", "add", "--all", cwd=self.project)
        words = ("commit", "-q", "--allow-empty", "--no-verify", "-m", "test: a state")
        run("git", *words, cwd=self.project, **IDENTITY)

    def settle(self, file: str, change: Callable[[dict], object]) -> None:
        path = self.project / file
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(settings)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        self.commit()

    def iterate(self, times: int) -> None:
        """Another recipe: so many trees."""
        self.settle("params.yaml", lambda its: its["model"]["arguments"].update(max_iter=times))

    def report(self, name: str) -> dict:
        return json.loads((self.project / "reports" / name).read_text(encoding="utf-8"))

    def climb(self, level: int) -> None:
        self.make("upgrade", f"LEVEL={level}", f"TEMPLATE={TEMPLATE}")
        self.commit()


COUNT = """
import sys
from pathlib import Path
import pandas as pd
from flight_delays.experiment import params, tables
print(sum(len(part) for part in tables.chunks(Path(sys.argv[1]), params.load().data)))
print(len(pd.read_parquet("predictions/scored.parquet")))
"""


def scores_a_file(owner: Owner) -> None:
    owner.iterate(1)  # a first try
    owner.make("data", "train", "evaluate", "register")
    source = owner.newest.relative_to(owner.project)
    owner.make("predict", f"INPUT={source}", "OUTPUT=predictions/scored.parquet")
    rows = run(owner.project / ".venv/bin/python", "-c", COUNT, source, cwd=owner.project)
    assert len(set(rows.stdout.split())) == 1, "a score for each row"
    assert (owner.project / "reports/model-card-v1.md").exists()


def promotes_and_refuses(owner: Owner) -> None:
    owner.iterate(100)
    if owner.shape == "single":  # of some hundred rows a fifth is held out
        rows = {"rows": 50, "days": 1, "minority": 20}
        owner.settle("continuous_training.yaml", lambda its: its["gate"].update(at_least=rows))
    assert "promoted: version" in owner.make("retrain")
    owner.commit()
    best = owner.report("gate.json")["challenger"]["version"]
    owner.iterate(2)
    assert "refused: version" in owner.make("retrain")
    decision = owner.report("gate.json")
    assert decision["champion"] == {"version": best}
    assert "metric" in {check["name"] for check in decision["checks"] if not check["passed"]}
    owner.iterate(100)
    for step in ("drift", "lineage", "materialize"):
        owner.make(step)
    assert f"version {best} is reproduced" in owner.make("reproduce", f"VERSION={best}")
    owner.commit()


def reaches_production(owner: Owner) -> None:
    ports = {name: free_port() for name in ("dev", "staging", "production")}
    python, port = owner.project / ".venv/bin/python", ports["production"]
    traffic = [
        str(w) for w in (python, TEMPLATE / "tests/inside/traffic.py", "flight_delays", port)
    ]
    traffic.append(str(owner.newest))

    def move(settings: dict) -> None:
        for name, where in settings["environments"].items():
            where["port"] = ports[name]

    owner.settle("delivery.yaml", move)
    first = owner.report("gate.json")["champion"]["version"]
    assert "nothing was predicted yet" in owner.make("monitor")
    try:
        for name in ports:
            assert f"{name}: version {first} in" in owner.make("deploy", f"ENV={name}")
        owner.settle("params.yaml", lambda settings: settings.update(seed=7))
        owner.make("retrain")
        assert owner.report("gate.json")["decision"] == "promoted"
        owner.commit()
        second = owner.report("gate.json")["challenger"]["version"]
        asking = subprocess.Popen(
            [*traffic, "600"], cwd=owner.project, env=CLEAN, stdout=subprocess.PIPE
        )
        try:
            assert f"version {second} answers everything" in owner.make("canary")
            assert asking.poll() is None, "a request failed"
        finally:
            asking.kill()
            asking.communicate()
        assert int(run(*traffic, cwd=owner.project).stdout) >= 100
        owner.make("monitor")
        live = owner.report("monitor.json")["versions"]
        assert {str(first), str(second)} <= set(live)
        before = live[str(second)]["labelled"]
        if owner.shape == "monthly":  # the labels that were missing have come
            fill = "from tables import late; late()"
            run(python, "-c", fill, cwd=owner.project, PYTHONPATH=str(TEMPLATE / "tests"))
            owner.make("monitor")
            live = owner.report("monitor.json")["versions"]
            assert live[str(second)]["labelled"] > before
        assert live[str(second)]["value"] is not None
        owner.make("deploy", "ENV=production", f"VERSION={first}")
        assert owner.report("deployment-production.json")["version"] == str(first)
    finally:
        for name in ports:
            owner.make("deploy", f"ENV={name}", "STOP=1", check=False)


# What the ways above have gone through by hand.
TOLD = "--ignore=tests/delivery/test_deploy.py --ignore=tests/continuous_training/test_pipeline.py"
WAYS = [scores_a_file, promotes_and_refuses, reaches_production]


@pytest.mark.parametrize(("shape", "task", "tests"), CASES)
def test_an_owner_climbs_to_production(shape, task, tests, tmp_path, environment, batches):
    owner = Owner(tmp_path, shape, task, environment, batches)
    for level, way in enumerate(WAYS):
        if level:
            owner.climb(level)
        owner.make("lint")
        way(owner)
    owner.make("types")
    if tests != "none":
        owner.make("test", f"PYTEST_ADDOPTS={TOLD if tests == 'some' else ''}")
    assert run("git", "status", "--porcelain", cwd=owner.project).stdout == ""
