"""The commands and stages of continuous training.

The commands are also steps of the package: `python -m << cookiecutter.package_name >> retrain`.
Exit code 0: promoted, refused, or nothing to do; 1: an error; 2: wrong usage; 3: a batch was
quarantined.
"""

import sys

from ..__main__ import Steps, main

COMMANDS: Steps = {
    "pipeline": ("run what has changed of the pipeline in dvc.yaml, and log the run", {}),
    "retrain": ("run the pipeline, then the gate: promote the challenger or refuse it", {}),
    "rollback": ("make the champion before this one the champion again", {}),
}
STAGES: Steps = {
    "extract": ("stage: each batch, with types", {}),
    "validate": ("stage: each batch against schema.yaml", {}),
    "prepare": ("stage: the rows to fit on and to judge on", {}),
    "train": ("stage: fit the challenger", {}),
    "evaluate": ("stage: the challenger against the baseline", {}),
}

if __name__ == "__main__":
    sys.exit(main(package=__package__, steps=COMMANDS | STAGES))
