"""The engine Spark of predict and tune (level 2), beside the same in process and beside `spark_udf`.

Rows/s are over the time of the whole process less that of a file of a hundred rows, which is imports,
loading the model, and starting Spark and its workers. One core is one for everything: Java, Python, the
reading. The model has no feature views, which `spark_udf` could not add.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from project import INSIDE, PACKAGE, SLUG, TEMPLATE, Line, Used, Workshop, environment, measure

sys.path[:0] = [str(TEMPLATE / "tools")]

from spark_cluster import cluster  # noqa: E402

ROWS, FEW = 3_000_000, 100
ROUNDS = 2  # the fastest counts
SHARE, FASTER = 0.6, 1.5  # of in process, than spark_udf
SPARK = "pyspark>=4.1"


def run(workshop: Workshop) -> Iterator[Line]:
    if shutil.which("java") is None:
        yield Line("spark", "Java is not installed: apt-get install openjdk-17-jre-headless")
        return
    project = prepared(workshop)
    local, spark, udf = "local", "spark", "udf"
    here = {"SPARK_MASTER": "local[1]", "SPARK_LOCAL_IP": "127.0.0.1"}
    here |= {"PYSPARK_SUBMIT_ARGS": "--master local[1] pyspark-shell"}
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(ROUNDS):  # in turn, so that all see the same noise
        with one_core():
            for name in (local, spark, udf):
                score(project, name, number, here, taken)
        with cluster(project / ".venv", project / f".spark/{number}", environment()) as named:
            score(project, "cluster", number, named, taken)
            if number == 0:
                tuned = {name: tune(project, name, named) for name in (local, spark)}
    fastest = {key: min(values) for key, values in taken.items()}
    names = (local, spark, udf, "cluster")
    rate = {name: ROWS / (fastest[name, ROWS] - fastest[name, FEW]) for name in names}
    share, times = rate[spark] / rate[local], rate[spark] / rate[udf]
    text = f"{share:.2f}: {rate[spark] / 1e3:.0f}k rows/s against {rate[local] / 1e3:.0f}k"
    yield Line("spark, in process", text, f">= {SHARE}", share >= SHARE)
    text = f"x {times:.1f}: spark_udf {rate[udf] / 1e3:.0f}k rows/s"
    yield Line("spark, spark_udf", text, f">= x {FASTER}", times >= FASTER)
    each = rate["cluster"] / 2
    text = f"{each / rate[local]:.2f}: {each / 1e3:.0f}k rows/s a core, two workers with one each"
    yield Line("spark, a cluster", text)
    files = [project / f"{name}-{ROWS}-0.out" for name in (local, spark, "cluster", udf)]
    answers = measure([python(project), INSIDE / "spark_answers.py", *files], project)
    found = json.loads(answers.output.splitlines()[-1])
    text = f"{found['rows']:,} rows; spark_udf is {found['udf']:.0e} away at most"
    yield Line("spark, answers", text, "equal", found["equal"])
    best = {name: used.output.partition("best of")[2] for name, used in tuned.items()}
    text = f"{tuned[spark].seconds:.0f} s on the cluster, {tuned[local].seconds:.0f} s in process"
    yield Line("spark, tune", text, "the same best", best[spark] == best[local] != "")


def prepared(workshop: Workshop) -> Path:
    """A copy of the project of level 2 with pyspark, and with a champion without feature views."""
    source, project = workshop.delivery_project, workshop.folder / "spark" / SLUG
    shutil.copytree(source, project, symlinks=True)
    for words in (["-e", ".", "--no-deps"], ["--compile-bytecode", SPARK]):
        measure(["uv", "pip", "install", "-q", "-p", python(project), *words], project)
    (project / "mlflow.db").unlink()  # its champion has feature views
    views = project / f"src/{PACKAGE}/feature_views.py"
    views.write_text(views.read_text(encoding="utf-8") + "\nVIEWS = []\n", encoding="utf-8")
    for words in (["train"], ["evaluate"], ["register", "--run", "last"]):
        measure([python(project), "-m", PACKAGE, *words], project)
    for rows in (ROWS, FEW):
        measure([python(project), INSIDE / "repeat.py", f"{rows}.parquet", str(rows)], project)
    return project


def python(project: Path) -> Path:
    return project / ".venv/bin/python"


def score(project: Path, name: str, number: int, named: dict[str, str], taken: dict) -> None:
    """Add the seconds that a few rows take, and those of all, to what is known of this way."""
    env = environment(OMP_NUM_THREADS="1", **named)
    for rows in (FEW, ROWS):
        words = [f"{rows}.parquet", f"{name}-{rows}-{number}.out"]
        if name == "udf":
            words = [INSIDE / "spark_udf.py", PACKAGE, *words]
        else:
            words = ["-m", PACKAGE, "predict", "--input", words[0], "--output", words[1]]
            words += ["--engine", "local" if name == "local" else "spark"]
        used = measure([python(project), *words], project, env)
        taken.setdefault((name, rows), []).append(used.seconds)


def tune(project: Path, name: str, named: dict[str, str]) -> Used:
    words = [python(project), "-m", PACKAGE, "tune", "--engine", name]
    return measure(words, project, environment(**named))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """What is started in the block has one core."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)
