"""Lineage: what a version was made of, from the decision down to the raw files.

The step `lineage --version 3` reads MLflow alone, so it works in any
clone, whatever became of the commit.
"""

import logging
import subprocess
from datetime import datetime
from typing import Any

from mlflow.entities import Run

from ..experiment import tracking
from ..experiment.params import ROOT, load, parse
from ..experiment.registry import require_version

log = logging.getLogger(__name__)


def chain(version: str) -> list[tuple[str, str]]:
    """Names and values, in order; what belongs to the line above is indented."""
    params = load()
    client = tracking.connect()
    model_version = require_version(client, params.register_.name, version)
    fitted = tracking.find_run(model_version.run_id)
    judged = tracking.find_run(fitted.data.tags.get("judged_run", model_version.run_id))
    decided = tracking.last_runs(f"tags.version = '{model_version.version}'", 10, "-decisions")
    aliases = client.get_registered_model(model_version.name).aliases
    names = sorted(
        alias for alias, number in aliases.items() if str(number) == str(model_version.version)
    )
    lines = [("version", f"{model_version.name} {model_version.version} {' '.join(names)}".strip())]
    for run in decided:
        when = datetime.fromtimestamp(run.info.end_time / 1000)
        lines.append(("decision", f"{run.data.tags['decision']} on {when:%Y-%m-%d %H:%M}"))
        for check in _read(run, "gate.json").get("checks", []):
            if not (check["segment"] and check["passed"]):
                lines.append((f"  {check['name']}", check["message"]))
    lines.append(("trigger", model_version.tags["trigger"]))
    lines.append(
        ("commit", f"{model_version.tags['commit']} ({_where(model_version.tags['commit'])})")
    )
    about, metric = fitted.data.params, params.evaluate.metric
    period = (
        f", {about['fitted_from']} to {about['fitted_until']}" if "fitted_from" in about else ""
    )
    lines.append(("fitted", f"run {fitted.info.run_id}{period}"))
    value = judged.data.metrics.get(f"test_{metric}", float("nan"))
    lines.append(("judged", f"run {judged.info.run_id}, {metric} {value:.4f} on rows held out"))
    for run in (judged, *decided):
        for name, seconds in run.data.metrics.items():
            if name.startswith("seconds_"):
                lines.append((f"  {name.removeprefix('seconds_')}", f"{seconds:.1f} s"))
    lines.append(("pipeline", "dvc.lock of the run"))
    for stage, entry in _read(fitted, "dvc.lock").get("stages", {}).items():
        made = ", ".join(f"{out['path']} {out['md5'][:12]}" for out in entry.get("outs", []))
        lines.append((f"  {stage}", f"-> {made}"))
    lines.append(("data", model_version.tags["data"]))
    lines += [(f"  {name}", digest) for name, digest in _read(fitted, "batches.json").items()]
    lines.append(("previous", f"version {model_version.tags.get('previous_version', 'none')}"))
    return lines


def _where(commit: str) -> str:
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    there = subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    return "in this repository" if there else "not in this repository: the run keeps its code"


def _read(run: Run, name: str) -> dict[str, Any]:
    with tracking.artifact(run, name) as path:
        return parse(path) if path else {}


def run(version: str) -> None:
    lines = chain(version)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        log.info("%s  %s", name.ljust(width), value)
