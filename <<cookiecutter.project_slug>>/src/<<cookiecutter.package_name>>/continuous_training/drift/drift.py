"""Drift: does each batch look like the rows that the champion was fitted on?

The step `drift` writes reports/drift.json, and reports/drift.html to look at. Drifted: PSI or KS above
`drift` of continuous_training.yaml, beyond sampling noise (distributions.py). Rows count as independent;
those of one day are less so.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ...experiment import dataset, floors, reports, tables, tracking
from ...experiment.column_types import Kinds, kinds
from ...experiment.errors import UserError
from ...experiment.params import Params, load
from ...experiment.registry import load_model, require_version
from .. import settings
from ..settings import Drift, Settings
from . import charts
from .distributions import Bins, bins, compare, count
from .pages import render

log = logging.getLogger(__name__)


class BatchCounts(NamedTuple):
    """How many rows are in each bin: by batch and column, and of the rows that the champion was fitted on."""

    champion: int  # its version
    fitted_batches: list[str]
    fitted_rows: int
    bins: dict[str, Bins]
    batches: dict[str, dict[str, np.ndarray]]
    reference: dict[str, np.ndarray]


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
    reference = rows[batch <= until]
    if reference.empty:
        raise UserError(f"no batch is here that the champion was fitted on: the last was {until}")
    inputs = load_model(version, params).kinds
    columns = Kinds({c: k for c, k in inputs.items() if k != "date" and c in rows})
    cuts = bins(reference, Kinds(columns | kinds(reference[[target]])))
    batches = {str(name): count(part, cuts) for name, part in rows.groupby(batch)}
    for counts in batches.values():
        counts[target][-1] = 0  # a row without target may get one yet
    fitted = [name for name in batches if name <= until]
    total = {column: np.sum([batches[name][column] for name in fitted], axis=0) for column in cuts}
    return BatchCounts(int(version.version), fitted, len(reference), cuts, batches, total)


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
        features |= {column: measures[newest]} if newest in measures else {}
    return {
        "schema": 1,
        "champion": counts.champion,
        "reference": {"batches": counts.fitted_batches, "rows": counts.fitted_rows},
        "batch": newest,
        "features": features,
        "over_time": over_time,
    }


def page(counts: BatchCounts, report: dict[str, Any], limits: Drift) -> str:
    """reports/drift.html: the features in the order of PSI, each with its charts."""
    rows = []
    newest = counts.batches[report["batch"]]
    fitted = len(counts.fitted_batches)
    for name, measures in sorted(report["features"].items(), key=lambda item: -item[1]["psi"]):
        trend = charts.trend(report["over_time"][name], list(counts.batches), fitted, limits.psi)
        shares = charts.share_bars(counts.bins[name], counts.reference[name], newest[name])
        rows.append((name, measures, [trend, shares]))
    return render(
        "continuous_training/drift/drift.html.jinja",
        title=f"Drift of {report['batch']}",
        drifted=sum(measures["drifted"] for _, measures, _ in rows),
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
    if content["batch"] in content["reference"]["batches"]:
        return False, "there is no batch after those that the champion was fitted on"
    names = drifted(content["features"])
    reason = _summary(names) + ("" if limits.triggers.drift else " (off)")
    return limits.triggers.drift and bool(names), reason


def run() -> None:
    content = write(load(), settings.load().drift)
    summary = _summary(drifted(content["features"]))
    log.info("%s against champion %d: %s", content["batch"], content["champion"], summary)


def _summary(names: list[str]) -> str:
    return f"drifted: {', '.join(names)}" if names else "no feature has drifted"
