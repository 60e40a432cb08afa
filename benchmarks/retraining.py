"""Retraining as its owner runs it: with nothing to do, and the whole pipeline against its steps by hand.

Counted for the pipeline: `make pipeline` with no lock and no cache, so that all of it runs, is versioned
and gets its run in MLflow. Counted for the peer: the six stages as commands, one after the other, and a
seventh that logs the run.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from project import INSIDE, PACKAGE, Line, Used, Workshop, measure, median

STAGES = ("extract", "validate", "build_views", "prepare", "train", "evaluate")
IDLE, OVERHEAD = 4.0, 1.15  # seconds; times the steps by hand
LOG = f"""
from {PACKAGE}.continuous_training import pipeline
pipeline.tracking.last_run = lambda wanted: None  # it is to be logged, not found
pipeline.record(pipeline.load(), recipe="by hand")
"""


def run(workshop: Workshop) -> Iterator[Line]:
    project = workshop.champion
    idle = median([measure(["make", "retrain"], project).seconds for _ in range(3)])
    yield Line("retrain, nothing to do", f"{idle:.1f} s", f"< {IDLE:.0f} s", idle < IDLE)
    whole, hand = [], []
    for _ in range(3):  # in turn, so that both sides see the same noise
        forget(project)
        whole.append(measure(["make", "pipeline"], project).seconds)
        parts = [stage(project, name).seconds for name in STAGES]
        hand.append(sum(parts) + measure([python(project), "-c", LOG], project).seconds)
    ratio = median(whole) / median(hand)
    text = f"{ratio:.2f}: {median(whole):.1f} s against {median(hand):.1f} s by hand"
    yield Line("pipeline", text, f"< {OVERHEAD}", ratio < OVERHEAD)


def python(project: Path) -> Path:
    return project / ".venv/bin/python"


def stage(project: Path, name: str) -> Used:
    """A stage as DVC would run it."""
    return measure([python(project), "-m", f"{PACKAGE}.continuous_training", name], project)


def forget(project: Path) -> None:
    """Let the pipeline run as if it had never run here."""
    for name in (".dvc/cache", "data/extracted", "data/prepared", "data/feature_store", "models"):
        shutil.rmtree(project / name, ignore_errors=True)
    for name in ("dvc.lock", "data/raw.dvc"):
        (project / name).unlink(missing_ok=True)


def views(workshop: Workshop) -> Iterator[Line]:
    """The model on the month after those that it was fitted on, with and without feature views."""
    project = workshop.pipeline_project
    used = measure([python(project), INSIDE / "views.py", PACKAGE], project)
    found = json.loads(used.output.splitlines()[-1])
    for metric in ("roc_auc", "brier"):
        means = {
            kind: sum(f[metric] for f in found if f["views"] == kind) / (len(found) / 2)
            for kind in ("without", "with")
        }
        better = (
            means["with"] > means["without"]
            if metric == "roc_auc"
            else means["with"] < means["without"]
        )
        text = f"{means['without']:.4f} without, {means['with']:.4f} with (mean of {len(found) // 2} months)"
        yield Line(f"feature views, {metric}", text, "better", better)
