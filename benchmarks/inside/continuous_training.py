"""Parts of continuous training: `continuous_training.py PACKAGE validate|rows|drift|join FOLDER`.

`rows` writes reference.parquet and batch.parquet into FOLDER, for drift and its peer. The others print
their seconds, and drift how many columns have drifted.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

PACKAGE, MANY = sys.argv[1], 1_000_000
FLOOR = f"{PACKAGE}.continuous_training"
UNUSED = ["landed", "tailnum", "flight"]  # 21 columns remain


def flights(**settings):
    """The flights of the year as the steps read them, and the settings `data`."""
    dataset, tables, params = (
        importlib.import_module(f"{PACKAGE}.experiment.{name}")
        for name in ("dataset", "tables", "params")
    )
    used = params.load().data.model_copy(update={"through": None} | settings)
    return tables.read(dataset.batches(used), used), used


def repeat(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    return frame.iloc[np.arange(rows) % len(frame)].reset_index(drop=True)


def validate(_: Path) -> dict:
    step = importlib.import_module(f"{FLOOR}.stages.validate")
    frame, settings = flights(drop=UNUSED)
    columns = step.infer(frame, settings)
    batch, seconds = repeat(frame.drop(columns=UNUSED), MANY), []
    for _ in range(3):
        start = time.perf_counter()
        wrong = step.check(batch, columns)
        seconds.append(time.perf_counter() - start)
        if wrong:
            raise RuntimeError(wrong)
    return {"seconds": seconds, "columns": batch.shape[1]}


def rows(folder: Path) -> dict:
    floors = importlib.import_module(f"{PACKAGE}.experiment.floors")
    frame, settings = flights()
    frame = floors.feature_store(settings, frame).add(frame)
    frame = frame[frame[settings.target].notna()]
    frame = frame.drop(columns=[*settings.drop, settings.time]).astype({settings.target: float})
    many = repeat(frame, MANY)
    for name, part in {"reference": many[: MANY // 2], "batch": many[MANY // 2 :]}.items():
        part.to_parquet(folder / f"{name}.parquet", index=False)
    return {"columns": many.shape[1]}


def drift(folder: Path) -> dict:
    """Bins, counts, measures and the page, as the step has them when it has read the rows."""
    step = importlib.import_module(f"{FLOOR}.drift.drift")
    frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "batch")}
    limits, reference = step.Drift(), frames["reference"]
    start = time.perf_counter()
    cuts = step.bins(reference, step.kinds(reference))
    counts = {name: step.count(frame, cuts) for name, frame in frames.items()}
    known = counts["reference"]
    batches = step.BatchCounts(
        1, ["reference"], "reference", len(reference), cuts, counts, known, {}
    )
    report = step.report(batches, limits)
    step.page(batches, report, limits)
    seconds = time.perf_counter() - start
    drifted = len(step.drifted(report["features"]))
    return {"seconds": seconds, "drifted": drifted, "of": len(cuts)}


def join(_: Path) -> dict:
    """Views of 2e5 events, joined to 1e5 rows: a view of one column by entity, and one of two."""
    store = importlib.import_module(f"{FLOOR}.features.offline")
    defined = importlib.import_module(f"{PACKAGE}.feature_views")
    frame, settings = flights()
    events = frame[frame[defined.AVAILABLE].notna()].head(200_000)
    views, wanted, seconds = defined.VIEWS, frame.iloc[100_000:200_000], {}
    for view in (next(v for v in views if len(v.by) == size) for size in (1, 2)):
        defined.VIEWS, seconds[view.name] = [view], []
        for _ in range(3):
            start = time.perf_counter()
            store.offline(events, settings).add(wanted)
            seconds[view.name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[2]](Path(sys.argv[3]))))
