"""The template's demo: make a project, set it up, run its loop, say where to look.

The folder is the demo's own and is made anew each time, unless something in it was edited.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SCORED = "data/raw/2013-04.parquet"
BROKEN = "data/raw/2013-05.parquet"
IDENTITY = ["-c", "user.name=demo", "-c", "user.email=demo@example.com"]


def commit(message: str) -> list[str]:
    return ["sh", "-c", f"git add --all && git {' '.join(IDENTITY)} commit -q -m '{message}'"]


def through(month: str) -> list[str]:
    """Let the batches up to this month be used, and commit that."""
    edit = f"sed -i.bak 's/through: 2013-.. /through: {month} /' params.yaml && rm params.yaml.bak"
    return ["sh", "-c", f"{edit} && {' '.join(commit(f'chore: data through {month}')[2:])}"]


def without(column: str, batch: str) -> list[str]:
    code = f"import pandas as p; p.read_parquet('{batch}').drop(columns='{column}')"
    return [".venv/bin/python", "-c", f"{code}.to_parquet('{batch}')"]


RETRAIN = [".venv/bin/python", "-m", "flight_delays", "retrain"]  # make has exit codes of its own
FIRST = [
    ("set up the tested environment", ["make", "setup"]),
    ("extract the flights of 2013, a batch a month", ["make", "data"]),
]
# What happens, the command, and the exit code it is to have.
LOOP = {
    "0": [
        *FIRST,
        ("train on January to March", ["make", "train"]),
        ("evaluate against the baseline", ["make", "evaluate"]),
        ("register the run as the champion", ["make", "register"]),
        (
            "predict April",
            ["make", "predict", f"INPUT={SCORED}", "OUTPUT=predictions/2013-04.parquet"],
        ),
        (
            "look back on April with its labels: monitoring by hand",
            ["make", "evaluate", "BATCH=2013-04"],
        ),
    ],
    "1": [
        *FIRST,
        ("run the pipeline on January to March; it infers schema.yaml", ["make", "pipeline"]),
        ("commit what the pipeline wrote", commit("chore: schema and pipeline state")),
        ("retrain: the first model needs no champion to beat", ["make", "retrain"]),
        ("April arrives", through("2013-04")),
        ("retrain: the gate compares the challenger with the champion", ["make", "retrain"]),
        ("commit dvc.lock: which data made this champion", commit("chore: pipeline state")),
        ("May arrives without the column temp", without("temp", BROKEN)),
        ("use it all the same", through("2013-05")),
        ("retrain: validation puts May aside, the champion stays (exit code 3)", RETRAIN, 3),
        ("commit what is left of May", commit("chore: May is quarantined")),
    ],
}
LOOK = {
    "0": """\
  reports/model-card-v1.md            what the champion is, and where it is weak
  reports/calibration.png             predicted against observed, on April
  predictions/2013-04.parquet         a score for each flight of April""",
    "1": """\
  reports/gate.json                   each check of the last decision, with its interval
  reports/model-card-v2.md            what the champion is, and where it is weak
  reports/challenger/calibration.png  predicted against observed, on the days held out
  data/quarantine/                    the batch that broke schema.yaml, and why
  dvc.yaml                            the pipeline""",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", choices=sorted(LOOP), default="0")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.folder.expanduser().resolve() / f"level-{arguments.level}"
    project = folder / "flight-delays"
    edited = ["git", "-C", str(project), "status", "--porcelain"]
    if project.exists() and (
        not (project / ".git").exists()
        or subprocess.run(edited, capture_output=True, check=False).stdout
    ):
        print(
            f"{project} was edited: move it away, or name another place with DEMO=", file=sys.stderr
        )
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generate = [BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", folder]
    generate += [f"maturity_level={arguments.level}"]
    steps = [("scaffold the project", [str(word) for word in generate]), *LOOP[arguments.level]]
    hidden = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    for number, (text, command, *expected) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {text}", flush=True)
        start = time.perf_counter()
        cwd = project if number > 1 else TEMPLATE
        code = subprocess.run(command, cwd=cwd, env=environment, check=False).returncode
        if code != (expected[0] if expected else 0):
            print(f"\nthe demo stopped at: {text}", file=sys.stderr)
            return 1
        print(f"      {time.perf_counter() - start:.1f} s", flush=True)
    print(f"""
The project is in {project}. Look at
{LOOK[arguments.level]}
  make ui                             the runs and the registered model, in MLflow
  README.md                           your own data, and the rest
""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
