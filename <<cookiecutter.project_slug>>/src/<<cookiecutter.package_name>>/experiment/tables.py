"""Tables in files, CSV or Parquet: read with checked types, and written.

A batch comes out in canonical form (column_types.py), and its columns are those of the other batches.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .column_types import Kinds, canonical, kinds, looks_like_dates, parse_dates, parse_numbers
from .errors import UserError
from .params import Data

PARQUET = (".parquet", ".pq")


def read(paths: list[Path], data: Data) -> pd.DataFrame:
    """All rows of `paths`, checked: the columns of each batch are those of the first."""
    frames, first = [], Kinds()
    for path in paths:
        frame = pd.concat(chunks(path, data), ignore_index=True)
        if frame.empty:
            raise UserError(f"{path}: the file has no rows")
        named = [data.target, data.time, data.id, *data.drop, *data.text]
        for column in sorted({c for c in named if c is not None} - set(frame.columns)):
            raise UserError(
                f"{path}: column {column!r} of params.yaml is missing; the file has"
                f" {', '.join(map(repr, frame.columns))}"
                + (" (is data.csv.sep right?)" if len(frame.columns) == 1 else "")
            )
        frame, kinds_here = _typed(frame, path, data)
        kinds_here = Kinds({c: k for c, k in kinds_here.items() if c not in data.drop})
        _compare(first, kinds_here, paths[0], path)
        first = Kinds({**kinds_here, **{c: k for c, k in first.items() if k != "empty"}})
        frames.append(frame)
    kept = dict.fromkeys(data.drop, "as it is")
    frames = [canonical(f, Kinds(first | kept), [data.target, *data.drop]) for f in frames]
    return pd.concat(frames, ignore_index=True)


def chunks(path: Path, data: Data, like: Kinds | None = None, rows: int = 0) -> Iterator:
    """The file as DataFrames of at most `rows` rows (0: all at once).

    With `like`, these columns come in canonical form, `data.id` as it is, and no other is read.
    """
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        read = _parquet if path.suffix.lower() in PARQUET else _csv
        for frame in read(path, data, like, rows):
            yield frame if like is None else _as(frame, path, data, like)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: the file cannot be read: {str(error).strip()}") from None
    except UnicodeError as error:
        raise UserError(f"{path}: data.csv.encoding is not {data.csv.encoding}: {error}") from None
    except LookupError as error:
        raise UserError(f"params.yaml: data.csv.encoding: {error}") from None


def _parquet(path: Path, data: Data, like: Kinds | None, rows: int) -> Iterator[pd.DataFrame]:
    if not rows:
        yield pd.read_parquet(path)
        return
    with pq.ParquetFile(path) as file:
        columns = [c for c in file.schema_arrow.names if like is None or c in {*like, data.id}]
        for part in file.iter_batches(rows, columns=columns):
            yield part.to_pandas()


def _csv(path: Path, data: Data, like: Kinds | None, rows: int) -> Iterator[pd.DataFrame]:
    options = data.csv.model_dump(exclude={"dayfirst"})
    options["dtype"] = {c: str for c in [*data.text, *(like.of("text") if like else ())]}
    if like is not None:
        options["usecols"] = lambda column: column in {*like, data.id}
    if not rows:
        yield pd.read_csv(path, low_memory=False, **options)
        return
    with pd.read_csv(path, chunksize=rows, low_memory=False, **options) as reader:
        yield from reader


def write(frame: pd.DataFrame, path: Path, data: Data) -> None:
    """Write a batch, in the format that the name says and that `read` takes."""
    if path.suffix.lower() in PARQUET:
        frame.to_parquet(path, index=False)
    else:
        options = data.csv.model_dump(include={"sep", "decimal", "encoding"})
        frame.to_csv(path, index=False, **options)


def rows(path: Path) -> int | None:
    """How many rows a file has, if it says so itself (Parquet)."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    return pq.read_metadata(path).num_rows if path.suffix.lower() in PARQUET else None


def _typed(frame: pd.DataFrame, path: Path, data: Data) -> tuple[pd.DataFrame, Kinds]:
    """Give each column of a training batch its type; dates and some numbers of a CSV are text."""
    is_csv = path.suffix.lower() not in PARQUET
    for column in frame.columns.difference(data.text) if is_csv else ():
        if pd.api.types.is_numeric_dtype(frame[column]):
            continue
        if column == data.time or (column != data.target and looks_like_dates(frame[column])):
            frame[column] = _dates(frame[column], path, data)
        else:
            with contextlib.suppress(ValueError):  # words stay words
                frame[column] = parse_numbers(frame[column], data.csv)
    if data.time is not None:
        if not pd.api.types.is_datetime64_any_dtype(frame[data.time]):
            frame[data.time] = _dates(frame[data.time], path, data)
        if frame[data.time].isna().any():
            raise UserError(f"{path}: data.time: column {data.time!r} has rows without a date")
    column_kinds = Kinds({**kinds(frame), **dict.fromkeys(data.text, "text")})
    return canonical(frame, column_kinds, keep=[data.target, *data.drop]), column_kinds


def _dates(column: pd.Series, path: Path, data: Data) -> pd.Series:
    try:
        return parse_dates(column, data.csv.dayfirst)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: column {column.name!r} holds no dates that can be read (see data.csv.dayfirst,"
            f" or name the column in data.text): {error}"
        ) from None


def _as(frame: pd.DataFrame, path: Path, data: Data, like: Kinds) -> pd.DataFrame:
    for column in {**like, **dict.fromkeys([data.id] if data.id else [])}:
        if column not in frame:
            raise UserError(f"{path}: column {column!r}, which the model needs, is missing")
    for column in like:
        text = not pd.api.types.is_numeric_dtype(frame[column])
        if text and like[column] == "date":
            frame[column] = _dates(frame[column], path, data)
        elif text and like[column] == "number":
            try:
                frame[column] = parse_numbers(frame[column], data.csv)
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}: column {column!r} holds no numbers: {error}") from None
    ready = canonical(frame, like)
    return ready if data.id is None else ready.assign(**{data.id: frame[data.id]})


def _compare(first_kinds: Kinds, other_kinds: Kinds, first_path: Path, path: Path) -> None:
    for column in sorted({*first_kinds, *other_kinds}) if first_kinds else ():
        one, other = first_kinds.get(column), other_kinds.get(column)
        if one is None or other is None:
            raise UserError(
                f"{path if other is None else first_path}: column {column!r} is missing, which"
                f" {first_path.name if other is None else path.name} has"
            )
        if one != other and "empty" not in (one, other):
            raise UserError(
                f"{path}: column {column!r} holds {other}s, but {one}s in {first_path.name};"
                " mend the file, or name the column in data.text or data.drop"
            )
