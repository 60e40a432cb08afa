"""A trigger: is the champion worse on newer batches than on the rows that it was judged on?"""

import mlflow
from mlflow.entities.model_registry import ModelVersion

from ... import data
from ...experiment import dataset, floors, tables, tracking
from ...experiment.evaluate import GREATER_IS_BETTER
from ...experiment.params import Params
from ...experiment.registry import load_model
from ...experiment.train import score
from ..settings import Degradation, Settings


def metric_when_judged(version: ModelVersion, metric: str) -> float:
    """The metric of a version when it was judged, on rows that it was not fitted on."""
    run = tracking.find_run(version.run_id)
    before = tracking.find_run(run.data.tags.get("judged_run", version.run_id))
    return before.data.metrics.get(f"test_{metric}", float("nan"))


def allowed(usual: float, metric: str, tolerance: float) -> float:
    """How bad a metric may become: by points of a score, or by a share of an error."""
    return usual - tolerance if metric in GREATER_IS_BETTER else usual + tolerance * abs(usual)


def trigger(champion: ModelVersion | None, params: Params, limits: Settings) -> tuple[bool, str]:
    """Score the champion on the batches after those that it was fitted on; its run keeps the values."""
    rule: Degradation | None = limits.triggers.degradation
    if champion is None or rule is None:
        return False, "there is no champion" if rule else "off"
    run, metric = tracking.find_run(champion.run_id), params.evaluate.metric
    usual = metric_when_judged(champion, metric)
    sign = 1 if metric in GREATER_IS_BETTER else -1
    limit = allowed(usual, metric, rule.tolerance)
    paths = dataset.batches(params.data)
    after = [path for path in paths if path.stem > run.data.params["last_batch"]]
    if not after:
        return False, "there is no batch after those that the champion was fitted on"
    model, store, values = load_model(champion, params).model, floors.feature_store(params.data), {}
    for path in after[-rule.batches :]:
        rows = tables.read([path], params.data)
        if rows[params.data.target].notna().any():
            rows = data.labelled(rows if store is None else store.add(rows), params)
            values[path.stem] = score(model, rows, params)
    for batch, metrics in values.items():
        step = tracking.step_of(batch)
        for name, value in metrics.items():
            if value == value:
                mlflow.MlflowClient().log_metric(run.info.run_id, f"batch_{name}", value, step=step)
    worse = [batch for batch, metrics in values.items() if sign * (metrics[metric] - limit) < 0]
    listed = ", ".join(f"{batch} {metrics[metric]:.4g}" for batch, metrics in values.items())
    listed = f"{metric} was {usual:.4g}, may be {limit:.4g}, is {listed or 'unknown: no labels'}"
    return len(worse) >= rule.worse, f"worse in {len(worse)} of {rule.worse} batches: {listed}"
