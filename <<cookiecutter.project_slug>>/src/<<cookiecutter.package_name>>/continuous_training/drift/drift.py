"""Drift: does the newest batch look like the rows that are to be expected, and does it matter?

The step `drift` writes reports/drift.json, and reports/drift.html to look at. Drifted: PSI or KS above
`drift` of continuous_training.yaml, beyond sampling noise (distributions.py). Rows count as independent;
those of one day are less so. What a feature is worth to the champion is its permutation importance.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ... import data
from ...experiment import dataset, floors, reports, tables, tracking
from ...experiment.column_types import Kinds, kinds
from ...experiment.errors import UserError
from ...experiment.evaluate import GREATER_IS_BETTER, metrics, predict
from ...experiment.params import Params, load
from ...experiment.registry import Loaded, load_model, require_version
from .. import settings
from ..settings import Drift, Settings
from . import charts
from .distributions import Bins, bins, compare, count
from .pages import render

SEASON_SHARE = 0.5  # rows of a year before, as a share of the newest batch, that are enough
IMPORTANCE_ROWS = 2000
TREND_LIMITS = 5  # the height of the charts of PSI, in limits

log = logging.getLogger(__name__)


class BatchCounts(NamedTuple):
    """How many rows are in each bin: by batch and column, and of the rows to compare with."""

    champion: int  # its version
    fitted_batches: list[str]
    reference_name: str
    reference_rows: int
    bins: dict[str, Bins]
    batches: dict[str, dict[str, np.ndarray]]
    reference: dict[str, np.ndarray]
    importance: dict[str, float]  # of each input, as of `importance`


def reference_rows(
    rows: pd.DataFrame, batch: np.ndarray, until: str, time: str | None
) -> tuple[np.ndarray, str]:
    """Which rows (n,) the newest batch is compared with, and what they are called.

    Those of the same days a year before, if there are; else those that the champion was fitted on, whose
    last batch is `until`. A champion that was fitted on the newest batch too says nothing about it: then
    it is the batch before.
    """
    newest = batch == batch[-1]
    if time is not None:
        times, year = rows[time], pd.DateOffset(years=1)
        first, last = times[newest].min() - year, times[newest].max() - year
        season = times.between(first, last).to_numpy() & (batch <= until)
        if season.sum() > SEASON_SHARE * newest.sum():
            return season, f"a year before, {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    earlier = batch[~newest]
    if batch[-1] <= until and len(earlier):
        return batch == earlier[-1], f"the batch before, {earlier[-1]}"
    return batch <= until, f"what the champion was fitted on, {batch[0]} to {until}"


def importance(loaded: Loaded, rows: pd.DataFrame, params: Params) -> dict[str, float]:
    """How much of the metric each input is worth: what is lost when its values are shuffled.

    (Breiman, Random Forests, 2001.) Measured on some of the rows (n, columns) that have a target; empty
    if none has.
    """
    rows = rows[rows[params.data.target].notna()]
    if rows.empty:
        return {}
    rows = rows.sample(min(IMPORTANCE_ROWS, len(rows)), random_state=0).reset_index(drop=True)
    name, classes = params.evaluate.metric, getattr(loaded.model, "classes_", None)
    X, y = rows.reindex(columns=[*loaded.kinds]), data.xy(rows, params, any_classes=True)[1]

    def measured(inputs: pd.DataFrame) -> float:
        value = metrics(y, predict(loaded.model, inputs), classes)[name]
        return value if name in GREATER_IS_BETTER else -value

    whole, worth = measured(X), {}
    for column in X:
        shuffled = X[column].sample(frac=1, random_state=0).reset_index(drop=True)
        worth[str(column)] = whole - measured(X.assign(**{str(column): shuffled}))
    return worth


def count_batches(params: Params) -> BatchCounts:
    """Count all batches: the champion's inputs except dates, and the target where it is known.

    Raises UserError if there is no champion, or no batch that it was fitted on.
    """
    target = params.data.target
    version = require_version(tracking.connect(), params.register_.name, "champion")
    until = tracking.find_run(version.run_id).data.params["last_batch"]
    paths = dataset.batches(params.data)
    frames = [tables.read([path], params.data) for path in paths]
    batch = np.repeat([path.stem for path in paths], [len(frame) for frame in frames])
    rows = pd.concat(frames, ignore_index=True)
    store = floors.feature_store(params.data, rows)
    rows = rows if store is None else store.add(rows)
    if batch[0] > until:
        raise UserError(f"no batch is here that the champion was fitted on: the last was {until}")
    chosen, name = reference_rows(rows, batch, until, params.data.time)
    reference, loaded = rows[chosen], load_model(version, params)
    columns = Kinds({c: k for c, k in loaded.kinds.items() if k != "date" and c in rows})
    cuts = bins(reference, Kinds(columns | kinds(reference[[target]])))
    batches = {str(name): count(part, cuts) for name, part in rows.groupby(batch)}
    expected = count(reference, cuts)
    for counts in (*batches.values(), expected):
        counts[target][-1] = 0  # a row without target may get one yet
    return BatchCounts(
        int(version.version),
        fitted_batches=[stem for stem in batches if stem <= until],
        reference_name=name,
        reference_rows=len(reference),
        bins=cuts,
        batches=batches,
        reference=expected,
        importance=importance(loaded, reference, params),
    )


def report(counts: BatchCounts, limits: Drift) -> dict[str, Any]:
    """What reports/drift.json holds: `features` is about the newest batch, `over_time` is PSI.

    A batch without any known target has no entry for it.
    """
    features: dict[str, dict] = {}
    over_time: dict[str, dict[str, float]] = {}
    newest = list(counts.batches)[-1]
    for column, cut in counts.bins.items():
        measures = {
            name: compare(counts.reference[column], batch[column], cut.kind, limits)
            for name, batch in counts.batches.items()
            if batch[column].any()
        }
        over_time[column] = {name: measured["psi"] for name, measured in measures.items()}
        if newest in measures:
            features[column] = measures[newest] | {"importance": counts.importance.get(column)}
    return {
        "schema": 2,
        "champion": counts.champion,
        "fitted": counts.fitted_batches,
        "reference": {"name": counts.reference_name, "rows": counts.reference_rows},
        "batch": newest,
        "features": features,
        "over_time": over_time,
    }


def page(counts: BatchCounts, report: dict[str, Any], limits: Drift) -> str:
    """reports/drift.html: the features, first what has drifted and is worth most, each with its charts."""

    def order(item: tuple[str, dict]) -> tuple:
        measures = item[1]
        return not measures["drifted"], -(measures["importance"] or 0), -measures["psi"]

    rows = []
    newest = counts.batches[report["batch"]]
    fitted = len(counts.fitted_batches)
    height = TREND_LIMITS * limits.psi
    for name, measures in sorted(report["features"].items(), key=order):
        trend = charts.trend(
            report["over_time"][name], list(counts.batches), fitted, limits.psi, height
        )
        shares = charts.share_bars(counts.bins[name], counts.reference[name], newest[name])
        rows.append((name, measures, [trend, shares]))
    worth = {name: max(value, 0) for name, value in counts.importance.items()}
    moved = sum(worth.get(name, 0) for name in drifted(report["features"]))
    return render(
        "continuous_training/drift/drift.html.jinja",
        title=f"Drift of {report['batch']}",
        drifted=sum(measures["drifted"] for _, measures, _ in rows),
        share=moved / sum(worth.values()) if any(worth.values()) else None,
        **{"report": report, "rows": rows, "limits": limits},
    )


def drifted(features: dict[str, dict]) -> list[str]:
    """The names of the features that have drifted."""
    return [name for name, measures in features.items() if measures["drifted"]]


def write(params: Params, limits: Drift) -> dict[str, Any]:
    """Write both reports; returns what reports/drift.json holds."""
    counts = count_batches(params)
    content = report(counts, limits)
    reports.write_json("drift.json", content)
    reports.write("drift.html", page(counts, content, limits))
    return content


def asked(champion: ModelVersion | None, params: Params, limits: Settings) -> tuple[bool, str]:
    """The trigger: whether a feature of the newest batch has drifted, and the reason. Writes both reports."""
    if champion is None:
        return False, "there is no champion"
    content = write(params, limits.drift)
    if content["batch"] in content["fitted"]:
        return False, "there is no batch after those that the champion was fitted on"
    names = drifted(content["features"])
    reason = _summary(names) + ("" if limits.triggers.drift else " (off)")
    return limits.triggers.drift and bool(names), reason


def run() -> None:
    content = write(load(), settings.load().drift)
    summary = _summary(drifted(content["features"]))
    log.info("%s beside %s: %s", content["batch"], content["reference"]["name"], summary)


def _summary(names: list[str]) -> str:
    return f"drifted: {', '.join(names)}" if names else "no feature has drifted"
