"""Registration by a person, past the gate: one decision among the others, with who made it and why."""

import mlflow

from ...experiment import register, tracking
from ..lock import alone


def run(run: str, because: str | None = None) -> None:
    with alone():
        version = register.register(run, because)
        if version is None:
            return
        tags = {"decision": "registered", "version": str(version.version)}
        with tracking.decision(f"registered version {version.version}"):  # MLflow tags who it was
            mlflow.set_tags(tags | {"because": because or "no reason was given"})
