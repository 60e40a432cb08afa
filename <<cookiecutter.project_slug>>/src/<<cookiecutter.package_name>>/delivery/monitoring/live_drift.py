"""Live drift: do inputs and predictions still look like the rows that the version was fitted on?

The measures and limits are those of `make drift`. The reference of the inputs is a sample of the rows
that the version was fitted on. That of the predictions are rows on which it was judged, because a model
is more certain of the rows that it was fitted on.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ...continuous_training.drift.distributions import Bins, bins, compare, count
from ...continuous_training.settings import Drift
from ...experiment import dataset, floors, tables, tracking
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from ...experiment.evaluate import predict
from ...experiment.params import Params
from ...experiment.registry import load_model
from .label_join import rounded


class LiveCounts(NamedTuple):
    """How many rows are in each bin of each column: of the reference, and of what is served."""

    fitted_rows: int
    bins: dict[str, Bins]
    reference: dict[str, np.ndarray]
    live: dict[str, np.ndarray]


def scores(predicted: np.ndarray, classes: np.ndarray | None) -> pd.DataFrame:
    """Predictions (n,) or (n, classes) as columns: of two classes the probability of the second."""
    if classes is None:
        return pd.DataFrame({"(prediction)": predicted})
    shown = range(len(classes)) if len(classes) > 2 else [1]
    return pd.DataFrame({f"(probability of {classes[k]})": predicted[:, k] for k in shown})


def count_live(
    version: ModelVersion, sent: pd.DataFrame, logged: pd.DataFrame, rows: int, params: Params
) -> LiveCounts:
    """Count the inputs as they were sent, and the predictions, beside `rows` of the reference.

    Raises UserError if no batch is here that the version was fitted on.
    """
    run = tracking.find_run(version.run_id)
    judged_run = tracking.find_run(run.data.tags.get("judged_run", version.run_id))
    paths = dataset.batches(params.data.model_copy(update={"through": None}))
    paths = [path for path in paths if path.stem <= run.data.params["last_batch"]]
    if not paths:
        raise UserError("no batch is here that the version was fitted on")
    fitted = tables.read(paths, params.data)
    store = floors.feature_store(params.data, fitted)
    until = judged_run.data.params.get("fitted_until")
    judged = fitted
    if until is not None and params.data.time is not None:
        later = fitted[fitted[params.data.time] > pd.Timestamp(until)]
        judged = later if len(later) else fitted
    inputs = fitted.sample(min(rows, len(fitted)), random_state=0)
    judged = judged.sample(min(rows, len(judged)), random_state=0)
    if store is not None:
        inputs, judged = store.add(inputs), store.add(judged)
    own = load_model(version, params).kinds
    columns = Kinds({c: k for c, k in own.items() if k != "date" and c in sent and c in inputs})
    inputs, sent = rounded(inputs, columns), rounded(sent, columns)
    model, kinds = load_model(judged_run, params)
    classes = getattr(model, "classes_", None)
    expected = scores(predict(model, judged[list(kinds)]), classes)
    answers = [json.loads(answer) for answer in logged["prediction"].dropna()]
    answered = scores(np.array(answers, float), classes)
    input_bins = bins(inputs, columns)
    score_bins = bins(expected, Kinds(dict.fromkeys(expected, "number")))
    return LiveCounts(
        len(fitted),
        bins=input_bins | score_bins,
        reference=count(inputs, input_bins) | count(expected, score_bins),
        live=count(sent, input_bins) | count(answered, score_bins),
    )


def report(counts: LiveCounts, limits: Drift) -> dict[str, dict[str, Any]]:
    """By column `{psi, ks, chi2, drifted}`, as in reports/drift.json."""
    return {
        column: compare(counts.reference[column], counts.live[column], cut.kind, limits)
        for column, cut in counts.bins.items()
        if counts.live[column].any()
    }
