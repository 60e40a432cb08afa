"""Data extraction and validation: from the files of `data.source` to checked rows. YOURS.

A batch is one CSV or Parquet file; batches are in the order of their names. Every batch comes out
in canonical form: numbers and booleans as float64, text as str, dates as datetime64 without zone.
`python -m << cookiecutter.package_name >> data` checks and lists the batches.
"""

import contextlib
import glob
import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError
from .features import Kinds, canonical, kinds, looks_like_dates, parse_dates, parse_numbers
from .params import ROOT, Data, Params, load

PARQUET = (".parquet", ".pq")

log = logging.getLogger(__name__)


def batches(data: Data) -> list[Path]:
    """The files of `data.source` up to the batch `data.through`, in the order of their names."""
    paths = sorted(
        (Path(p) for p in glob.glob(str(ROOT / data.source), recursive=True)), key=lambda p: p.stem
    )
    if not paths:
        raise UserError(
            f"params.yaml: data.source: no file matches {data.source}; run the step `data` for the"
            " example, or name a CSV or Parquet file of yours"
        )
    through = data.through
    chosen = [p for p in paths if through is None or p.stem[: len(through)] <= through]
    if not chosen:
        raise UserError(
            f"params.yaml: data.through: {through} is before the first batch, {paths[0].stem}"
            " (null: use all)"
        )
    return chosen


def batch(data: Data, name: str) -> Path:
    """The file of the batch called `name`, whether `data.through` reaches it or not."""
    found = [p for p in batches(data.model_copy(update={"through": None})) if p.stem == name]
    if not found:
        raise UserError(f"no batch of {data.source} is called {name}")
    return found[0]


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
        frame, found = _typed(frame, path, data)
        found = Kinds({c: k for c, k in found.items() if c not in data.drop})
        _compare(first, found, paths[0], path)
        first = Kinds({**found, **{c: k for c, k in first.items() if k != "empty"}})
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
    found = Kinds({**kinds(frame), **dict.fromkeys(data.text, "text")})
    return canonical(frame, found, keep=[data.target, *data.drop]), found


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


def _compare(first: Kinds, found: Kinds, first_path: Path, path: Path) -> None:
    for column in sorted({*first, *found}) if first else ():
        one, other = first.get(column), found.get(column)
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


def load_labelled(params: Params, batch_name: str | None = None) -> pd.DataFrame:
    """The rows that have a target, of all batches or of one, with the columns of the feature views."""
    if batch_name is None:
        frame = read(batches(params.data), params.data)
        store = feature_store(params.data, frame)
    else:
        frame = read([batch(params.data, batch_name)], params.data)
        store = feature_store(params.data)
    return labelled(frame if store is None else store.add(frame), params)


def feature_store(data: Data, history: pd.DataFrame | None = None):
    """The feature store of level 1 over a history (None: all batches); None without feature views."""
    if importlib.util.find_spec(f"{__package__}.feature_views") is None:
        return None
    from .continuous_training.feature_store import offline

    if history is None:
        history = read(batches(data.model_copy(update={"through": None})), data)
    return offline(history, data)


def labelled(frame: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows that have a target, or all rows with `data.unlabelled` as the missing label."""
    data, missing = params.data, frame[params.data.target].isna()
    if not missing.any() or data.unlabelled == "drop":
        frame = frame[~missing]
    elif data.unlabelled == "refuse":
        raise UserError(f"{missing.sum()} rows have no {data.target!r} (data.unlabelled: refuse)")
    else:
        target = frame[data.target].astype(object).where(~missing, data.unlabelled)
        frame = frame.assign(**{data.target: target})
    if frame.empty:
        raise UserError(f"column {data.target!r} (data.target) is empty in every row")
    return frame


def xy(
    frame: pd.DataFrame, params: Params, any_classes: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """The features (every column that params.yaml does not set apart) and the target, (n,).

    Raises UserError if there is nothing to learn; `any_classes` allows rows of one class.
    """
    data = params.data
    X = frame.drop(columns=[c for c in [data.target, data.id, *data.drop] if c in frame])
    if X.columns.empty:
        raise UserError("params.yaml: data.drop leaves no column to learn from")
    y = frame[data.target].infer_objects()
    if params.task == "regression":
        try:
            return X, pd.to_numeric(y).to_numpy(np.float64)
        except (ValueError, TypeError):
            raise UserError(
                f"params.yaml: task: {data.target!r} (data.target) holds no numbers to regress on"
            ) from None
    if y.nunique() < 2 and not any_classes:
        raise UserError(f"column {data.target!r} (data.target) has only one class, {y.iloc[0]!r}")
    if pd.api.types.is_float_dtype(y.dtype) and (y % 1 != 0).any():
        raise UserError(f"params.yaml: task: column {data.target!r} has fractions: regression?")
    if pd.api.types.is_bool_dtype(y.dtype):
        return X, y.to_numpy(bool)
    if pd.api.types.is_numeric_dtype(y.dtype):
        return X, y.to_numpy(np.int64)
    return X, y.astype(str).to_numpy(object)


def split(frame: pd.DataFrame, params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test rows: the test is the newest share, or a random one without a time column."""
    if params.data.time is None:
        test = np.random.default_rng(params.seed).random(len(frame)) < params.split.test
    else:
        time = frame[params.data.time]
        test = time > time.quantile(1 - params.split.test, interpolation="lower")
    if test.all() or not test.any():
        raise UserError("params.yaml: split.test leaves no rows on one side: use more data")
    return frame[~test], frame[test]


def digests(paths: list[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by name."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def digest(paths: list[Path]) -> str:
    """SHA-256 over the names and contents of the batches: equal digest, equal data."""
    return combined(digests(paths))


def combined(found: dict[str, str]) -> str:
    """One digest of those of `digests`."""
    lines = (f"{name} {content}\n" for name, content in found.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def run() -> None:
    """The step: make the example if its batches are missing, then check and list what is there."""
    data = load().data
    missing = not glob.glob(str(ROOT / data.source), recursive=True)
    if missing and importlib.util.find_spec(".example", __package__):
        from . import example

        if data.source == example.SOURCE:
            example.write(ROOT / Path(data.source).parent)
    used = batches(data)
    for path in batches(data.model_copy(update={"through": None})):
        frame = read([path], data)
        target = frame[data.target]
        facts = [f"{path.stem}: {len(frame):,} rows", f"{target.isna().mean():.1%} unlabelled"]
        if pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target.dropna()):
            facts.append(f"mean {data.target} {target.astype(float).mean():.3f}")
        if data.time is not None:
            facts.append(f"{frame[data.time].min()} to {frame[data.time].max()}")
        log.info("%s", ", ".join(facts) + ("" if path in used else " (after data.through)"))
    read(used, data)
