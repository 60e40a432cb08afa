"""The engine Spark on a real cluster: a standalone master and two workers, on the loopback."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CLEAN, TEMPLATE, run
from test_stores import LOOP, small, step

sys.path[:0] = [str(TEMPLATE / "tools")]

from spark_cluster import cluster  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
ROWS = 900_000  # more than two tasks take
REPEAT = f"""
import pandas as pd
rows = pd.read_parquet("data/raw/2013-04.parquet")
pd.concat([rows] * ({ROWS} // len(rows)), ignore_index=True).to_parquet("rows.parquet")
"""
COMPARE = """
import pyarrow.parquet as pq
local, spark = (pq.read_table(f"predictions/{name}.parquet") for name in ("local", "spark"))
print(len(local), local.equals(spark))
"""


@pytest.fixture
def project(make_project) -> Path:
    """A small project that has pyspark as its README says."""
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt-get install openjdk-17-jre-headless")
    project = small(make_project(maturity_level="2"))
    (command,) = re.findall(r"^uv pip compile --group spark.*$", readme(project), re.M)
    run("bash", "-ec", command, cwd=project)
    install = ("uv", "pip", "install", "-q", "-p", ".venv", "--require-hashes")
    run(*install, "-r", "requirements/spark.txt", cwd=project)
    about = yaml.safe_load((project / "params.yaml").read_text())
    about["tune"] = {"candidates": 3, "folds": 2}
    (project / "params.yaml").write_text(yaml.safe_dump(about))
    return project


def readme(project: Path) -> str:
    return (project / "README.md").read_text()


def test_a_cluster_answers_as_one_process(project, tmp_path):
    python = project / ".venv/bin/python"
    run(python, "-c", REPEAT, cwd=project)
    for words in LOOP:
        step(project, *words)
    before = sorted(project.iterdir())
    given = ("--input", "rows.parquet", "--output")
    tuned = []
    with cluster(project / ".venv", tmp_path / "cluster", CLEAN) as named:
        for name in ("local", "spark"):
            engine = ("--engine", name)
            step(project, "predict", *given, f"predictions/{name}.parquet", *engine, **named)
            tuned.append(step(project, "tune", *engine, **named).stderr.partition("best of")[2])
    assert run(python, "-c", COMPARE, cwd=project).stdout.split() == [str(ROWS), "True"]
    assert "max_iter" in tuned[0]
    assert tuned[1] == tuned[0]
    for number in range(2):
        assert len(list((tmp_path / f"cluster/worker-{number}").glob("app-*/*/stderr"))) == 2
    assert sorted(project.iterdir()) == sorted([*before, project / "predictions"])


def test_its_own_tests(project):
    done = run(".venv/bin/pytest", "tests/delivery/test_spark.py", cwd=project)
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
