"""Drift: does each batch look like the rows that the champion was fitted on?

The step `drift` writes reports/drift.json, and reports/drift.html to look at. A column has
drifted if it is further from the champion's rows than `drift` of continuous_training.yaml allows, and by
more than chance explains (distributions.py). Rows count as independent; those of one day are less so.
"""

import json
import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ...experiment import dataset, floors, tables, tracking
from ...experiment.column_types import Kinds, kinds
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Params, load
from ...experiment.registry import load_model, require_version
from .. import settings
from ..settings import Drift, Settings
from . import report
from .distributions import Bins, bins, compare, count

log = logging.getLogger(__name__)


class Observed(NamedTuple):
    """The counts of all batches (by name, by column), and of those that the champion was fitted on."""

    champion: int
    batches: list[str]  # that it was fitted on
    rows: int  # of those
    bins: dict[str, Bins]
    counts: dict[str, dict[str, np.ndarray]]
    reference: dict[str, np.ndarray]


def observe(params: Params) -> Observed:
    """Count all batches: the champion's inputs except dates, and the target where it is known."""
    client, target = tracking.connect(), params.data.target
    version = require_version(client, params.register_.name, "champion")
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
    counts = {str(name): count(part, cuts) for name, part in rows.groupby(batch)}
    for its in counts.values():
        its[target][-1] = 0  # a row without target may get one yet
    known = [name for name in counts if name <= until]
    total = {column: np.sum([counts[name][column] for name in known], axis=0) for column in cuts}
    return Observed(int(version.version), known, len(reference), cuts, counts, total)


def measured(observed: Observed, limits: Drift) -> dict:
    """What reports/drift.json holds: `features` is about the newest batch, `over_time` is PSI.

    A batch without any known target has no entry for it.
    """
    features: dict[str, dict] = {}
    over_time, newest = {}, list(observed.counts)[-1]
    for column, its in observed.bins.items():
        known = observed.reference[column]
        found = {
            name: compare(known, counts[column], its.kind, limits)
            for name, counts in observed.counts.items()
            if counts[column].any()
        }
        over_time[column] = {name: measures["psi"] for name, measures in found.items()}
        features |= {column: found[newest]} if newest in found else {}
    return {
        "schema": 1,
        "champion": observed.champion,
        "reference": {"batches": observed.batches, "rows": observed.rows},
        "batch": newest,
        "features": features,
        "over_time": over_time,
    }


def write(params: Params, limits: Drift) -> dict:
    """Compare, and write both reports; returns what reports/drift.json holds."""
    observed, folder = observe(params), ROOT / "reports"
    found = measured(observed, limits)
    folder.mkdir(exist_ok=True)
    (folder / "drift.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = report.page(observed, found, limits)
    (folder / "drift.html").write_text(text, encoding="utf-8")
    return found


def asked(champion: ModelVersion | None, params: Params, limits: Settings) -> tuple[bool, str]:
    """The trigger: has a feature of the newest batch drifted? Writes both reports."""
    if champion is None:
        return False, "there is no champion"
    found = write(params, limits.drift)
    if found["batch"] in found["reference"]["batches"]:
        return False, "there is no batch after those that the champion was fitted on"
    names = [name for name, measures in found["features"].items() if measures["drifted"]]
    said = f"drifted: {', '.join(names)}" if names else "no feature has drifted"
    return limits.triggers.drift and bool(names), said + ("" if limits.triggers.drift else " (off)")


def run() -> None:
    found = write(load(), settings.load().drift)
    drifted = [name for name, measures in found["features"].items() if measures["drifted"]]
    said = f"drifted: {', '.join(drifted)}" if drifted else "no feature has drifted"
    log.info("%s against champion %d: %s", found["batch"], found["champion"], said)
