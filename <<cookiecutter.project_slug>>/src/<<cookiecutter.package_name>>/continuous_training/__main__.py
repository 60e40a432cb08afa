"""The commands and stages of continuous training.

The commands are steps of the package: `python -m << cookiecutter.package_name >> retrain`. DVC runs the
stages: `python -m << cookiecutter.package_name >>.continuous_training train`.
Exit code 0: promoted, refused, or nothing to do; 1: an error; 2: wrong usage; 3: a batch was
quarantined.
"""

import json
import sys
import time

from ..__main__ import Steps, main

COMMANDS: Steps = {
    "pipeline": ("run what has changed of the pipeline in dvc.yaml, and log the run", {}),
    "retrain": (
        "ask the triggers; if one fires, run the pipeline and promote the challenger or refuse it",
        {
            "--demand": {"action": "store_true", "help": "retrain, whatever the triggers say"},
            "--because": {
                "help": 'what monitoring has seen, as "degradation: reason" or "drift: ..."'
            },
        },
    ),
    "drift": ("compare each batch with the rows that the champion was fitted on", {}),
    "materialize": ("bring the online feature store up to date with all batches", {}),
    "lineage": (
        "print what a version was made of, down to the raw files",
        {"--version": {"default": "champion", "help": "number or alias (default: champion)"}},
    ),
    "reproduce": (
        "make a version again in a clean folder, and compare",
        {"--version": {"default": "champion", "help": "number or alias (default: champion)"}},
    ),
    "rollback": ("make the champion before this one the champion again", {}),
}
STAGES: Steps = {
    "extract": ("stage: each batch, with types", {}),
    "validate": ("stage: each batch against schema.yaml", {}),
    "aggregate": ("stage: the feature views of all rows, the offline store", {}),
    "prepare": ("stage: the rows to fit on and to judge on", {}),
    "train": ("stage: fit the challenger", {}),
    "evaluate": ("stage: the challenger against the baseline", {}),
}

TIMES = ".dvc/tmp/seconds.json"  # how long each stage took when it last ran


def timed(stage: str) -> int:
    """Run a stage and keep its time for the lineage."""
    from ..params import ROOT

    start = time.perf_counter()
    code = main(package=__package__, steps=STAGES)
    path = ROOT / TIMES
    seconds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seconds[stage] = time.perf_counter() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(seconds), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(timed(sys.argv[1]) if sys.argv[1:2] and sys.argv[1] in STAGES else main())
