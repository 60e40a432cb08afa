"""Batch prediction: score a CSV or Parquet file of any size into a Parquet file.

The step `predict --input FILE --output FILE` keeps rows and their
order, in bounded memory. The output appears when it is complete, and not at all after an error.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from . import floors, tables, tracking
from .column_types import Kinds
from .errors import UserError
from .params import Data, load
from .registry import load_model, require_version

CHUNK = 200_000  # rows

log = logging.getLogger(__name__)


def score(model: Pipeline, X: pd.DataFrame) -> dict[str, np.ndarray]:
    """`prediction`, and for a classifier `probability_<class>` (of two classes, the second's)."""
    if not hasattr(model, "classes_"):
        return {"prediction": model.predict(X)}
    probability, classes = model.predict_proba(X), model.classes_
    label = pd.Series(classes).take(probability.argmax(axis=1)).to_numpy()
    shown = range(len(classes)) if len(classes) > 2 else [1]
    return {"prediction": label} | {f"probability_{classes[k]}": probability[:, k] for k in shown}


def scored_tables(
    model: Pipeline, kinds: Kinds, store: Any, path: Path, settings: Data, version: str
) -> Iterator[pa.Table]:
    """The predictions of the file, a chunk at a time; the next chunk is read meanwhile."""
    if store is not None and not kinds.keys() & store.columns:
        store = None  # a model that was trained without feature views
    if store is not None:
        given = {column: kind for column, kind in kinds.items() if column not in store.columns}
        kinds = Kinds(store.needs | given)
    parts = tables.chunks(path, settings, kinds, CHUNK)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = reader.submit(next, parts, None)
            kept = [c for c in (settings.id, settings.time) if c in part]
            columns: dict = {c: part[c] for c in kept}
            columns |= score(model, part if store is None else store.add(part))
            columns["model_version"] = np.full(len(part), int(version), np.int32)
            yield pa.table(columns)


Engine = Callable[[Pipeline, Kinds, Any, Path, Data, str], Iterator[pa.Table]]


def run(input: str, output: str, model: str, engine: Engine = scored_tables) -> None:
    params = load()
    source, target = Path(input), Path(output)
    client = tracking.connect()
    version = require_version(client, params.register_.name, model)
    pipeline, kinds = load_model(version, params)
    total, store = tables.rows(source), floors.feature_store(params.data)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    writer, rows = None, 0
    try:
        with tqdm(desc="predict", total=total, unit="row", unit_scale=True) as bar:
            for table in engine(pipeline, kinds, store, source, params.data, version.version):
                writer = writer or pq.ParquetWriter(partial, table.schema)
                writer.write_table(table.cast(writer.schema))
                rows += len(table)
                bar.update(len(table))
        if writer is None:
            raise UserError(f"{source}: the file has no rows")
        writer.close()
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            if writer is not None:
                writer.close()
        partial.unlink(missing_ok=True)
    log.info("%s rows scored by version %s into %s", f"{rows:,}", version.version, target)
