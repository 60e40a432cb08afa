"""Batch prediction as at level 0, in process or on Spark.

The step `predict --engine spark --input FILE --output FILE`. A task
copies its rows of a Parquet file into a file of its own and scores that as in process; another file is
one task. The answers come back in their order and are written here.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.pipeline import Pipeline

from ...experiment import predict, tables
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from ...experiment.params import Data
from . import tasks

PART = 2 * predict.CHUNK  # rows of a task
SMALL = pa.ipc.IpcWriteOptions(compression="lz4")


def run(input: str, output: str, model: str, engine: str) -> None:
    engines = {"local": predict.scored_tables, "spark": scored_tables}
    predict.run(input, output, model, engines[engine])


def scored_tables(
    model: Pipeline, kinds: Kinds, store: Any, path: Path, settings: Data, version: str
) -> Iterator[pa.Table]:
    """What `scored_tables` of level 0 makes in process."""
    rows, path = tables.rows(path), path.resolve()
    parts: list[range | None] = [None]
    if rows is not None:
        parts = [range(first, min(first + PART, rows)) for first in range(0, rows, PART)]
    shared = (model, kinds, store, path, settings, version, parts)
    for answer in tasks.answers(scored, shared, len(parts)):
        yield pa.ipc.open_stream(answer).read_all()


def scored(shared: tuple, number: int) -> Iterator[bytes]:
    """A task: the predictions of one part of the file, tables in Arrow's IPC format."""
    model, kinds, store, path, settings, version, parts = shared
    if not path.is_file():
        raise UserError(f"{path}: a worker of Spark does not see it: put it where all of them do")
    with tempfile.TemporaryDirectory() as folder:
        part = path
        if parts[number] is not None:
            part = Path(folder) / path.name
            needed = {*kinds, *(store.needs if store is not None else ()), settings.id}
            copy(path, part, parts[number], needed)
        try:
            for table in predict.scored_tables(model, kinds, store, part, settings, version):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema, options=SMALL) as stream:
                    stream.write_table(table)
                yield sink.getvalue().to_pybytes()
        except UserError as error:
            raise UserError(str(error).replace(str(part), str(path))) from None


def copy(path: Path, target: Path, rows: range, columns: set) -> None:
    """Write some rows and columns of a Parquet file into another."""
    with pq.ParquetFile(path) as file:
        ends = np.cumsum([file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)])
        first, last = ends.searchsorted([rows.start, rows.stop - 1], "right")
        kept = [column for column in file.schema_arrow.names if column in columns] or None
        at, batches = ends[first - 1] if first else 0, []
        for batch in file.iter_batches(row_groups=range(first, last + 1), columns=kept):
            batches.append(batch)
            if at + sum(map(len, batches)) >= rows.stop:
                break
    part = pa.Table.from_batches(batches).slice(rows.start - at, len(rows))
    quick: dict = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(part, target, **quick)
