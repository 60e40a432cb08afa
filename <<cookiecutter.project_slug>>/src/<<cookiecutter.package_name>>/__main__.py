"""Run one step: `python -m << cookiecutter.package_name >> STEP`, from anywhere in the project.

Exit code 0: done; 1: an error, told in one sentence on stderr; 2: wrong usage.
"""

import argparse
import importlib
import logging
import os
import sys

CHAMPION = "champion"
# Each step is the module of the same name, and its `run` takes these arguments.
STEPS: dict[str, tuple[str, dict[str, dict]]] = {
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
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog=f"python -m {__package__}")
    steps = root.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, (text, arguments) in STEPS.items():
        step = steps.add_parser(name, help=text, description=text.capitalize() + ".")
        for flag, options in arguments.items():
            step.add_argument(flag, **options)
    return root


def main(argv: list[str] | None = None) -> int:
    arguments = vars(parser().parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Threads that spin long while they wait make a fit on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    step = arguments.pop("step")
    try:
        importlib.import_module(f".{step}", __package__).run(**arguments)
    except KeyboardInterrupt:
        print(f"{step}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        from .errors import sentence

        message = sentence(error)
        if message is None:
            raise
        print(f"{step}: {message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
