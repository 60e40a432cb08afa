"""Run one step: `python -m << cookiecutter.package_name >> STEP`, from anywhere in the project.

Exit code 0: done; 1: an error, told in one sentence on stderr; 2: wrong usage; 3: a batch was
quarantined (from level 1).
"""

import argparse
import gc
import importlib.util
import logging
import os
import sys
import traceback
from typing import Any

# Each step is the module of the same name, and its `run` takes these arguments.
Steps = dict[str, tuple[str, dict[str, dict]]]
FLOORS = ("continuous_training", "delivery")  # the higher levels, where they are there
CHAMPION = "champion"
STEPS: Steps = {
    "data": ("make the example's batches if they are missing; check and list the batches", {}),
    "train": ("fit the model, measure it and log the run", {}),
    "tune": ("search the candidates of model.py by cross-validation", {}),
    "evaluate": (
        "compare a run with the baseline and the champion on the same rows",
        {
            "--run": {"default": "last", "help": "run id, or `last` (default)"},
            "--batch": {"help": "a batch to look at, such as 2013-04 (default: the test rows)"},
        },
    ),
    "register": (
        "make a run the champion: a person's decision",
        {"--run": {"required": True, "help": "run id, or `last`"}},
    ),
    "predict": (
        "score a CSV or Parquet file into a Parquet file",
        {
            "--input": {"required": True, "help": "CSV or Parquet file to score"},
            "--output": {"required": True, "help": "Parquet file to write"},
            "--model": {"default": CHAMPION, "help": "alias or version (default: champion)"},
        },
    ),
    "serve": (
        "serve a registered model over HTTP, on this machine",
        {
            "--model": {"default": CHAMPION, "help": "alias or version (default: champion)"},
            "--port": {"type": int, "default": 5001, "help": "port on 127.0.0.1 (default: 5001)"},
        },
    ),
    "ui": (
        "look at runs and models in MLflow's pages",
        {"--port": {"type": int, "default": 5000, "help": "port on 127.0.0.1 (default: 5000)"}},
    ),
    "upgrade": (
        "climb to another maturity level, or to a newer template: a git merge",
        {
            "--level": {"help": "maturity level (default: the present one)"},
            "--package-name": {"help": "another name for the package: its files move"},
            "--template": {"help": "folder or address (default: as recorded)"},
            "--version": {"help": "tag, branch or commit of the template (default: the newest)"},
            "--dry-run": {"action": "store_true", "help": "only tell what would change"},
            "--check": {"action": "store_true", "help": "only tell whether there is a newer one"},
            "--diff": {"action": "store_true", "help": "show what you changed in its files"},
            "--allow-older": {"action": "store_true", "help": "go back to an older template"},
        },
    ),
}


def parser(package: str, steps: Steps) -> argparse.ArgumentParser:
    """The command line of a package, and of the floors above it."""
    root = argparse.ArgumentParser(prog=f"python -m {package}")
    subparsers = root.add_subparsers(dest="step", required=True, metavar="STEP")
    groups = {package: steps}
    for floor in FLOORS if package == __package__ else ():
        spec = importlib.util.find_spec(f"{package}.{floor}")
        if spec and spec.origin:  # a folder without code is what a floor leaves that was taken back
            module = importlib.import_module(f"{package}.{floor}.__main__")
            groups[f"{package}.{floor}"] = module.COMMANDS
    # A step of a floor takes the place of one below that has the same name.
    placed = {
        name: (place, step) for place, group in groups.items() for name, step in group.items()
    }
    for name, (place, (text, arguments)) in placed.items():
        step = subparsers.add_parser(name, help=text, description=text.capitalize() + ".")
        step.set_defaults(package=place)
        for flag, options in arguments.items():
            step.add_argument(flag, **options)
    return root


def imported(step: str, package: str) -> Any:
    """The module of a step. It is no garbage: to look for some in it would take a third longer."""
    gc.disable()
    try:
        return importlib.import_module(f".{step}", package)
    finally:
        gc.freeze()
        gc.enable()


def main(argv: list[str] | None = None, package: str = __package__, steps: Steps = STEPS) -> int:
    arguments = vars(parser(package, steps).parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from .redaction import guard, redact

    guard()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Threads that spin long while they wait make a fit on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    step, package = arguments.pop("step"), arguments.pop("package")
    try:
        return imported(step, package).run(**arguments) or 0
    except KeyboardInterrupt:
        print(f"{step}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        from .errors import sentence

        message = sentence(error)
        if message is None:  # a bug
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
            return 1
        print(f"{step}: {message}", file=sys.stderr)
        return getattr(error, "code", 1)


if __name__ == "__main__":
    sys.exit(main())
