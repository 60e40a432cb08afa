"""The stages of dvc.yaml: `python -m PACKAGE.continuous_training STAGE`, which DVC runs."""

import json
import sys
import time

from ..experiment.cli import Step, Steps, main

STAGES: Steps = {
    "code": Step("continuous_training.stages.code", "stage: the digests of each stage's code"),
    "extract": Step("continuous_training.stages.extract", "stage: each batch, with types"),
    "validate": Step(
        "continuous_training.stages.validate", "stage: each batch against schema.yaml"
    ),
    "build_views": Step(
        "continuous_training.stages.build_views",
        "stage: the feature views of all rows, the offline store",
    ),
    "prepare": Step(
        "continuous_training.stages.prepare", "stage: the rows to fit on and to judge on"
    ),
    "train": Step("continuous_training.stages.train", "stage: fit the challenger"),
    "evaluate": Step(
        "continuous_training.stages.evaluate", "stage: the challenger against the baseline"
    ),
}

TIMES = ".dvc/tmp/seconds.json"  # how long each stage took when it last ran


def timed(stage: str) -> int:
    """Run a stage and keep its time for the lineage."""
    from ..experiment.params import ROOT

    start = time.perf_counter()
    code = main(steps=STAGES)
    path = ROOT / TIMES
    seconds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seconds[stage] = time.perf_counter() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(seconds), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(timed(sys.argv[1]) if sys.argv[1:2] and sys.argv[1] in STAGES else main(steps=STAGES))
