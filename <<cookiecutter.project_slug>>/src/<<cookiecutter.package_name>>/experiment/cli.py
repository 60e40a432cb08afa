"""The command line: `python -m PACKAGE STEP` runs one step, from anywhere in the project.

Exit code 0: done; 1: an error, told in one sentence on stderr; 2: wrong usage; 3: a batch was
quarantined (from level 1).
"""

import argparse
import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

PACKAGE = __package__.partition(".")[0]


class Step(NamedTuple):
    """A module of the package, whose `run` takes the arguments, and its line of help."""

    module: str
    help: str
    arguments: dict[str, dict] = {}  # noqa: RUF012


Steps = dict[str, Step]
CHAMPION = "champion"
STEPS: Steps = {
    "data": Step(
        "experiment.extract",
        "make the example's batches if they are missing; check and list the batches",
    ),
    "train": Step("experiment.train", "fit the model, measure it and log the run"),
    "tune": Step("experiment.tune", "search the candidates of model.py by cross-validation"),
    "evaluate": Step(
        "experiment.evaluate",
        "compare a run with the baseline and the champion on the same rows",
        {
            "--run": {"default": "last", "help": "run id, or `last` (default)"},
            "--batch": {"help": "a batch to look at, such as 2013-04 (default: the test rows)"},
        },
    ),
    "register": Step(
        "experiment.register",
        "make a run the champion: a person's decision",
        {
            "--run": {"required": True, "help": "run id, or `last`"},
            "--because": {"help": "the reason, which the version keeps"},
        },
    ),
    "predict": Step(
        "experiment.predict",
        "score a CSV or Parquet file into a Parquet file",
        {
            "--input": {"required": True, "help": "CSV or Parquet file to score"},
            "--output": {"required": True, "help": "Parquet file to write"},
            "--model": {"default": CHAMPION, "help": "alias or version (default: champion)"},
        },
    ),
    "serve": Step(
        "experiment.serve",
        "serve a registered model over HTTP, on this machine",
        {
            "--model": {"default": CHAMPION, "help": "alias or version (default: champion)"},
            "--port": {"type": int, "default": 5001, "help": "port on 127.0.0.1 (default: 5001)"},
        },
    ),
    "ui": Step(
        "experiment.ui",
        "look at runs and models in MLflow's pages",
        {"--port": {"type": int, "default": 5000, "help": "port on 127.0.0.1 (default: 5000)"}},
    ),
    "upgrade": Step(
        "experiment.upgrade",
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


def parser(steps: Steps) -> argparse.ArgumentParser:
    """The command line of these steps."""
    root = argparse.ArgumentParser(prog=f"python -m {PACKAGE}")
    subparsers = root.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, step in steps.items():
        about = step.help.capitalize()
        command = subparsers.add_parser(name, help=step.help, description=f"{about}.")
        for flag, options in step.arguments.items():
            command.add_argument(flag, **options)
    return root


def all_steps() -> Steps:
    """The steps of every floor; one of a higher floor takes the place of one that has its name."""
    from .floors import floors

    steps = dict(STEPS)
    for floor in floors():
        steps |= getattr(floor, "COMMANDS", {})
    return steps


def imported(module: str) -> Any:
    """A module of the package. It is no garbage: to look for some in it would take a third longer."""
    gc.disable()
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    finally:
        gc.freeze()
        gc.enable()


def guarded(name: str, step: Callable[[], int | None]) -> int:
    """Run a step with logging and without a traceback for a mistake of the user's; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from .redaction import guard, redact

    guard()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Threads that spin long while they wait make a fit on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return step() or 0
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        from .errors import sentence

        message = sentence(error)
        if message is None:  # a bug
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
            return 1
        print(f"{name}: {message}", file=sys.stderr)
        return getattr(error, "code", 1)


def main(argv: list[str] | None = None, steps: Steps | None = None) -> int:
    """Run the step that the arguments name (`argv`, else the process's); returns the exit code."""
    steps = all_steps() if steps is None else steps
    arguments = vars(parser(steps).parse_args(argv))
    name = arguments.pop("step")
    return guarded(name, lambda: imported(steps[name].module).run(**arguments))
