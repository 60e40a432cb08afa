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
LOOP = {
    "0": [
        ("set up the tested environment", ["setup"]),
        ("extract the flights of 2013, a batch a month", ["data"]),
        ("train on January to March", ["train"]),
        ("evaluate against the baseline", ["evaluate"]),
        ("register the run as the champion", ["register"]),
        ("predict April", ["predict", f"INPUT={SCORED}", "OUTPUT=predictions/2013-04.parquet"]),
        ("look back on April with its labels: monitoring by hand", ["evaluate", "BATCH=2013-04"]),
    ],
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
    steps = [("scaffold the project", [str(word) for word in generate], TEMPLATE)]
    steps += [(text, ["make", *words], project) for text, words in LOOP[arguments.level]]
    hidden = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    for number, (text, command, cwd) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {text}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, cwd=cwd, env=environment, check=False).returncode:
            print(f"\nthe demo stopped at: {text}", file=sys.stderr)
            return 1
        print(f"      {time.perf_counter() - start:.1f} s", flush=True)
    print(f"""
The project is in {project}. Look at
  reports/model-card-v1.md            what the champion is, and where it is weak
  reports/calibration.png             predicted against observed, on April
  predictions/2013-04.parquet         a score for each flight of April
  make ui                             the runs and the registered model, in MLflow
  README.md                           your own data, and the rest
""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
