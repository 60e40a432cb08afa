"""Live drift: do inputs and predictions still look like the rows that the version was fitted on?

The measures and limits are those of `make drift`. The reference of the inputs is a sample of the rows
that the version was fitted on; that of the predictions are rows on which it was judged, for a model is
surer of those that it was fitted on.
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


class Observed(NamedTuple):
    """The counts of each column: of the reference, and of what is served."""

    rows: int  # that the version was fitted on
    bins: dict[str, Bins]
    known: dict[str, np.ndarray]
    live: dict[str, np.ndarray]


def scores(predicted: np.ndarray, classes: np.ndarray | None) -> pd.DataFrame:
    """Predictions (n,) or (n, classes) as columns: of two classes the probability of the second."""
    if classes is None:
        return pd.DataFrame({"(prediction)": predicted})
    shown = range(len(classes)) if len(classes) > 2 else [1]
    return pd.DataFrame({f"(probability of {classes[k]})": predicted[:, k] for k in shown})


def observe(
    version: ModelVersion, sent: pd.DataFrame, logged: pd.DataFrame, rows: int, params: Params
) -> Observed:
    """Count the inputs as they were sent and the predictions; `rows` of the reference are enough.

    Raises UserError if no batch is here that the version was fitted on.
    """
    run = tracking.find_run(version.run_id)
    before = tracking.find_run(run.data.tags.get("judged_run", version.run_id))
    paths = dataset.batches(params.data.model_copy(update={"through": None}))
    paths = [path for path in paths if path.stem <= run.data.params["last_batch"]]
    if not paths:
        raise UserError("no batch is here that the version was fitted on")
    history = tables.read(paths, params.data)
    store = floors.feature_store(params.data, history)
    until, held = before.data.params.get("fitted_until"), history
    if until is not None and params.data.time is not None:
        later = history[history[params.data.time] > pd.Timestamp(until)]
        held = later if len(later) else history
    some, held = (part.sample(min(rows, len(part)), random_state=0) for part in (history, held))
    if store is not None:
        some, held = store.add(some), store.add(held)
    model, kinds = load_model(before, params)
    own = load_model(version, params).kinds
    columns = Kinds({c: k for c, k in own.items() if k != "date" and c in sent and c in some})
    some, sent = rounded(some, columns), rounded(sent, columns)
    answered = logged["prediction"].dropna()
    now = np.array([json.loads(answer) for answer in answered], float)
    classes = getattr(model, "classes_", None)
    sides = [scores(predict(model, held[list(kinds)]), classes), scores(now, classes)]
    numbers = Kinds(dict.fromkeys(sides[0], "number"))
    cuts, out = bins(some, columns), bins(sides[0], numbers)
    known, live = count(some, cuts) | count(sides[0], out), count(sent, cuts) | count(sides[1], out)
    return Observed(len(history), cuts | out, known, live)


def report(observed: Observed, limits: Drift) -> dict[str, dict[str, Any]]:
    """By column `{psi, ks, chi2, drifted}`, as in reports/drift.json."""
    return {
        column: compare(observed.known[column], observed.live[column], its.kind, limits)
        for column, its in observed.bins.items()
        if observed.live[column].any()
    }
