"""Model registration: a person makes a run the champion, with a model card that says what it is.

The step `register --run ID` (or `--run last`) needs an evaluation of that run. The version before it
keeps the alias `previous`.
"""

import json
import logging

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from .. import __doc__ as about
from . import floors, tracking
from .errors import UserError
from .evaluate import GREATER_IS_BETTER
from .markdown import code, plain
from .params import ROOT, Params, load
from .registry import find_version, load_model

# What a version takes over from its run.
TAGS = ("commit", "data", "dirty", "model_sha256")

log = logging.getLogger(__name__)


def card(run: Run, evaluation: dict, version: str, params: Params) -> str:
    """The model card (Markdown), from what the run and its evaluation recorded."""
    tags, logged, rows = run.data.tags, run.data.params, evaluation["rows"]
    metric, table = evaluation["metric"], pd.DataFrame(evaluation["table"])
    dirty = " with uncommitted changes (changes.diff)" if tags["dirty"] == "true" else ""
    fitted = (
        f", fitted on {logged['fitted_from']} to {logged['fitted_until']}"
        if "fitted_from" in logged
        else ""
    )
    whole = table[table["segment"] == "all"].set_index("model").drop(columns=["segment", "rows"])
    parts = table[table["segment"] != "all"]
    by_segment = parts.pivot_table(metric, ["segment", "rows"], "model", sort=False)
    arguments = {k: v for k, v in logged.items() if k.startswith("model.arguments.")}
    again = f"git checkout {tags['commit']}\nmake setup data train"
    again = floors.reproduction(tags, version) or again
    settings = ", ".join(f"{k[16:]} {v}" for k, v in arguments.items()) or "scikit-learn's own"
    checks = "\n".join(f"- {plain(text)}" for text in evaluation.get("gate", []))
    gate = f"## The gate\n\n{checks}\n\n" if checks else ""
    notes = [*evaluation["notes"], _weakest(parts, metric)]
    limits = "\n".join(f"- {plain(note)}." for note in notes)
    return f"""# {plain(params.register_.name)}, version {version}

{plain(about)}

- **Task**: {params.task} of {code(params.data.target)}
- **Run** `{run.info.run_id}`, commit `{tags["commit"]}`{dirty}
- **Data**: {code(logged["data.source"])} up to batch {plain(logged["last_batch"])}{fitted}
- **Data digest**: `{tags["data"]}`
- **Arguments**: {plain(settings)}

## Metrics

On {rows["count"]:,} {plain(rows["of"])} rows{f", {rows['from']} to {rows['to']}" if rows["from"] else ""}.

{_markdown(whole.T.rename_axis("metric"))}

{f"By segment, {metric}:" if len(parts) else ""}

{_markdown(by_segment) if len(parts) else ""}

The plots are in the run's artifacts, below `evaluation/`.

{gate}## Limits

{limits}
- Words that it did not see in training count as unknown.
- What came after its last batch is unknown to it: evaluate it on each new one.

## Reproduce it

```
{again}
```

The same data (see the digest) gives the same metrics.
"""


def _markdown(table: pd.DataFrame) -> str:
    shown = table.reset_index()
    rows = [
        [f"{v:.4g}" if isinstance(v, float) else plain(v) for v in row]
        for row in shown.to_numpy(object)
    ]
    lines = [list(map(plain, shown.columns)), ["---"] * len(shown.columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _weakest(parts: pd.DataFrame, metric: str) -> str:
    own = parts[parts["model"] == "candidate"].dropna(subset=[metric])
    if own.empty:
        return "No segments were looked at (evaluate.segments)"
    worst = own.loc[own[metric].idxmin() if metric in GREATER_IS_BETTER else own[metric].idxmax()]
    value, rows = worst[metric], worst["rows"]
    return f"Weakest segment: {worst['segment']}, {metric} {value:.4g} on {rows:,} rows"


def run(run: str, because: str | None = None) -> None:
    register(run, because)


def register(run: str, because: str | None) -> ModelVersion | None:
    """Make a run the champion; returns its version, or None if it is the champion already."""
    params = load()
    client, training = tracking.connect(), tracking.find_run(run)
    load_model(training, params)  # what cannot be loaded is not registered
    evaluation = _evaluation(training)
    champion = find_version(client, params.register_.name, "champion")
    if champion is not None and champion.run_id == training.info.run_id:
        log.info(
            "run %s is the champion already: version %s", training.info.run_id, champion.version
        )
        return None
    version = add_version(client, training, evaluation, "manual", params)
    if because:
        client.set_model_version_tag(version.name, version.version, "because", because)
    promote(client, version, champion)
    return version


def add_version(
    client: mlflow.MlflowClient, training: Run, evaluation: dict, trigger: str, params: Params
) -> ModelVersion:
    """Register the run's model as a new version, with its model card."""
    name = params.register_.name
    champion = find_version(client, name, "champion")
    try:
        client.create_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    previous = str(champion.version) if champion else "none"
    tags = {
        key: value
        for key, value in training.data.tags.items()
        if key in (*TAGS, *floors.gathered("TAGS"))
    }
    version = client.create_model_version(
        name,
        training.data.tags["model_uri"],
        training.info.run_id,
        tags=tags | {"trigger": trigger, "previous_version": previous},
        model_id=training.data.tags["model_uri"].removeprefix("models:/"),
    )
    describe(client, version, training, evaluation, params)
    return version


def describe(
    client: mlflow.MlflowClient,
    version: ModelVersion,
    training: Run,
    evaluation: dict,
    params: Params,
) -> None:
    """Give a version its model card, in the registry and in reports/."""
    name, text = version.name, card(training, evaluation, version.version, params)
    client.update_model_version(name, version.version, description=text)
    path = ROOT / "reports" / f"model-card-v{version.version}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    client.log_artifact(training.info.run_id, str(path))
    log.info("%s version %s has its model card in %s", name, version.version, path)


def promote(
    client: mlflow.MlflowClient, version: ModelVersion, champion: ModelVersion | None
) -> None:
    """Give a version the alias `champion`; the champion before it is `previous`, written first."""
    if champion is not None:
        client.set_registered_model_alias(version.name, "previous", champion.version)
    client.set_registered_model_alias(version.name, "champion", version.version)
    before = champion.version if champion else "none"
    log.info("%s version %s is the champion (before: %s)", version.name, version.version, before)


def _evaluation(run: Run) -> dict:
    with tracking.artifact(run, "evaluation/test/evaluation.json") as path:
        if path is None:
            raise UserError(
                f"run {run.info.run_id} has no evaluation: run the step `evaluate` on it first"
            )
        return json.loads(path.read_text(encoding="utf-8"))
