"""The template's demo: make a project, set it up, run its loop, say where to look.

The folder is the demo's own and is made anew each time, unless something in it was edited.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SCORED = "data/raw/2013-04.parquet"
IDENTITY = ["-c", "user.name=demo", "-c", "user.email=demo@example.com"]
# How a month arrives broken, before it arrives whole: what is wrong, and the change of its frame.
BROKEN = {
    "2013-05": ("without the column temp", "f = f.drop(columns='temp')"),
    "2013-07": ("its labels shifted by half a day", "f.late = f.late.shift(450)"),
    "2013-10": ("its distances in kilometres", "f.distance *= 1.609"),
}
RULE = ("distance: {kind: number,", "distance: {kind: number, max: 5000,")  # miles


def python(code: str) -> list[str]:
    return [".venv/bin/python", "-c", code]


def commit(message: str) -> list[str]:
    return ["sh", "-c", f"git add --all && git {' '.join(IDENTITY)} commit -q -m '{message}'"]


def edit(file: str, old: str, new: str) -> list[str]:
    code = f"from pathlib import Path; p = Path('{file}'); t = p.read_text(); assert '{old}' in t; "
    return python(code + f"p.write_text(t.replace('{old}', '{new}'))")


def arrive(month: str, change: str = "pass") -> list[str]:
    """Put a month into the folder that continuous_training.yaml names as `incoming`."""
    code = f"import pandas as pd; f = pd.read_parquet('../year/{month}.parquet'); "
    return python(code + f"{change}; f.to_parquet('../incoming/{month}.parquet')")


ROUTING = "src/flight_delays/delivery/service/routing.py"
RETRAIN = [".venv/bin/python", "-m", "flight_delays", "retrain"]  # make has exit codes of its own
FIRST = [
    ("set up the tested environment", ["make", "setup"]),
    ("extract the flights of 2013, a batch a month", ["make", "data"]),
]
# What happens, and the commands.
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
        (
            "put April to December aside: they will arrive one by one",
            [
                "sh",
                "-c",
                "mkdir ../incoming && cp -r data/raw ../year && rm data/raw/2013-0[4-9]* data/raw/2013-1*",
            ],
            edit("params.yaml", "through: 2013-03", "through: null   "),
            edit("continuous_training.yaml", "incoming: null", "incoming: ../incoming/*.parquet"),
        ),
        (
            "run the pipeline on January to March; add a rule to the schema.yaml it infers; commit",
            ["make", "pipeline"],
            edit("schema.yaml", *RULE),
            commit("chore: schema and pipeline state"),
        ),
        ("retrain: the first model needs no champion to beat", RETRAIN),
    ],
    "2": [
        *FIRST,
        (
            "run the pipeline on January to March; commit its state",
            ["make", "pipeline"],
            commit("chore: schema and pipeline state"),
        ),
        ("retrain: the first model needs no champion to beat", RETRAIN),
        ("build a release; bring it and the champion to dev", ["make", "deploy"]),
        ("the same release to staging", ["make", "deploy", "ENV=staging"]),
        ("the same release to production", ["make", "deploy", "ENV=production"]),
        (
            "a commit that answers otherwise than batch scoring: dev takes the release back",
            edit(ROUTING, "scores.tolist()", "(1 - scores).tolist()"),
            commit("feat: a mistake"),
            ["sh", "-c", "! make deploy"],
            ["git", *IDENTITY, "revert", "--no-edit", "HEAD"],
        ),
        (
            "ask production what it serves",
            ["curl", "--silent", "--show-error", "http://127.0.0.1:8003/ready"],
        ),
        (
            "stop what runs",
            *(
                ["make", "deploy", f"ENV={env}", "STOP=1"]
                for env in ("production", "staging", "dev")
            ),
        ),
    ],
}


def year(until: str) -> list[tuple]:
    """The arrivals of level 1: each month, and some of them broken before."""
    steps = []
    for month in (f"2013-{number:02}" for number in range(4, 13)):
        if month <= until:
            if month in BROKEN:
                what, change = BROKEN[month]
                steps.append((f"{month} arrives {what}", arrive(month, change), RETRAIN))
            steps.append((f"{month} arrives", arrive(month), RETRAIN))
    return steps


def outcome(project: Path, code: int) -> tuple[str, str, str, str]:
    """Triggers, champion before, challenger and decision of the last retraining."""
    reports = project / "reports"
    fired = json.loads((reports / "triggers.json").read_text())["fired"]
    triggers = ", ".join(trigger["name"] for trigger in fired) or "none"
    decision = (reports / "decision.md").read_text().splitlines()[0].removeprefix("# ")
    if code == 3:
        return triggers, "stays", "none", "quarantined"
    if not decision.startswith(("promoted", "refused")):
        return triggers, "stays", "none", decision
    gate = json.loads((reports / "gate.json").read_text())
    champion = gate["champion"]
    refused = dict.fromkeys(check["name"] for check in gate["checks"] if not check["passed"])
    why = f" ({', '.join(refused)})" if refused else ""
    before = f"version {champion['version']}" if champion else "none"
    return triggers, before, f"version {gate['challenger']['version']}", gate["decision"] + why


LOOK = {
    "0": """\
  reports/model-card-v1.md            what the champion is, and where it is weak
  reports/calibration.png             predicted against observed, on April
  predictions/2013-04.parquet         a score for each flight of April""",
    "1": """\
  reports/decision.md                 the last decision, and why
  reports/drift.html                  which inputs changed over the year
  data/quarantine/                    the batch that broke schema.yaml, and why
  make lineage                        what the champion was made of
  make reproduce                      the champion made again, and compared
  dvc.yaml                            the pipeline""",
    "2": """\
  reports/deployment-production.md    what was deployed, and what it passed
  reports/deployment-dev.md           what was not, and why
  delivery.yaml                       environments, and what a release must pass
  .github/workflows/cd.yml            the same on GitHub
  make deploy ENV=production          starts it again (after dev and staging)""",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", choices=sorted(LOOP), default="0")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--until", default="2013-12", help="the last month of level 1 to arrive")
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
    if arguments.level == "1":
        steps += year(arguments.until)
    hidden = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    rows = []
    for number, (text, *commands) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {text}", flush=True)
        start = time.perf_counter()
        cwd = project if number > 1 else TEMPLATE
        for command in commands:
            code = subprocess.run(command, cwd=cwd, env=environment, check=False).returncode
            if command is RETRAIN and code in (0, 3):
                rows.append((text, *outcome(project, code)))
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                keep = commit(f"chore: {rows[-1][-1]}")
                subprocess.run(keep, cwd=cwd, env=environment, check=False, **quiet)
            elif code:
                print(f"\nthe demo stopped at: {text}", file=sys.stderr)
                return 1
        print(f"      {time.perf_counter() - start:.1f} s", flush=True)
    if rows:
        print()
        for row in [("what happened", "triggers", "champion", "challenger", "decision"), *rows]:
            print("{:<50} {:<20} {:<11} {:<11} {}".format(*row))
    print(f"""
The project is in {project}. Look at
{LOOK[arguments.level]}
  make ui                             the runs and the registered model, in MLflow
  README.md                           your own data, and the rest
""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
