"""What level 0 is told of this floor (experiment/floors.py): its commands, files and tags."""

from typing import TYPE_CHECKING, Any

from ..experiment.cli import STEPS, Step, Steps

if TYPE_CHECKING:
    import pandas as pd

    from ..experiment.params import Data

COMMANDS: Steps = {
    "pipeline": Step(
        "continuous_training.pipeline",
        "run what has changed of the pipeline in dvc.yaml, and log the run",
    ),
    "retrain": Step(
        "continuous_training.retrain",
        "ask the triggers; if one fires, run the pipeline and promote the challenger or refuse it",
        {
            "--demand": {"action": "store_true", "help": "retrain, whatever the triggers say"},
            "--because": {
                "help": 'what monitoring has seen, as "degradation: reason" or "drift: ..."'
            },
        },
    ),
    "register": STEPS["register"]._replace(module="continuous_training.decision.registration"),
    "drift": Step(
        "continuous_training.drift.drift",
        "compare each batch with the rows that the champion was fitted on",
    ),
    "materialize": Step(
        "continuous_training.features.materialize",
        "bring the online feature store up to date with all batches",
    ),
    "lineage": Step(
        "continuous_training.lineage",
        "print what a version was made of, down to the raw files",
        {"--version": {"default": "champion", "help": "number or alias (default: champion)"}},
    ),
    "reproduce": Step(
        "continuous_training.reproduce",
        "make a version again in a clean folder, and compare",
        {"--version": {"default": "champion", "help": "number or alias (default: champion)"}},
    ),
    "rollback": Step(
        "continuous_training.decision.rollback",
        "make the champion before this one the champion again",
    ),
}
# What the steps write into the repository; a change of it is no change of the code that trains.
WRITTEN = ("dvc.lock", "data/*.dvc", "data/incoming.json", "schema.yaml")
TAGS = ("recipe", "judged_run")  # what a version takes over from its run


def feature_store(data: "Data", history: "pd.DataFrame | None") -> Any:
    """The offline feature store over a history (None: all batches); None without feature views."""
    from ..experiment import dataset, tables
    from .features.offline import offline

    if history is None:
        paths = dataset.batches(data.model_copy(update={"through": None}))
        history = tables.read(paths, data)
    return offline(history, data)


def reproduction(tags: dict[str, str], version: str) -> str | None:
    """The command that makes a version again, if the pipeline made it."""
    if "judged_run" in tags:
        return f"make reproduce VERSION={version}"
    if "dvc_model" in tags:
        return f"git checkout {tags['commit']}\nmake setup pipeline"
    return None
