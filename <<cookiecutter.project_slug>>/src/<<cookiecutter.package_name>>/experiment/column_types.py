"""The types of a table's columns: number, text or date, each in one canonical form.

Canonical: numbers and booleans as float64, text as str, dates as datetime64 without a zone.
"""

import contextlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic_core import to_json

from .errors import UserError

MISSING = "missing"  # an explicit word: NaN and None would be encoded differently
_DATE = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?\s*")
_NUMBER = re.compile(r"\s*[-+]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?\s*")


class Kinds(dict[str, str]):
    """Column -> "number", "text", "date" or "empty" (no value at all)."""

    def of(self, kind: str) -> list[str]:
        """The columns of a kind."""
        return [column for column, own in self.items() if own == kind]


def kinds(frame: pd.DataFrame) -> Kinds:
    """The kind of each column; booleans, durations and nullable types are numbers."""
    return Kinds({str(c): _kind(frame[c]) for c in frame.columns})


def _kind(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    types = pd.api.types
    if column.isna().all():
        return "empty"
    if types.is_datetime64_any_dtype(column.dtype):
        return "date"
    if types.is_numeric_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return "number"
    inferred = types.infer_dtype(column, skipna=True)
    if inferred in ("date", "datetime", "datetime64"):
        return "date"
    numbers = ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "timedelta")
    return "number" if inferred in numbers else "text"


def looks_like_dates(column: pd.Series) -> bool:
    """Whether each value of a text column is written like a date, such as 2025-12-31 10:15."""
    known = column.dropna()
    return bool(len(known)) and all(_DATE.fullmatch(str(value)) for value in known)


def parse_numbers(column: pd.Series, csv) -> pd.Series:
    """Text that is numbers in every row, as float64; ValueError names a value that is none."""
    if csv.decimal == ",":
        known = column.dropna().astype(str)
        if known.map(lambda v: bool(_NUMBER.fullmatch(v))).all():
            plain = known.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
            column = plain.reindex(column.index)
    return pd.to_numeric(column)


def parse_dates(column: pd.Series, dayfirst: bool = False) -> pd.Series:
    """Dates as datetime64; ValueError names a value that is none."""
    try:
        return pd.to_datetime(column, dayfirst=dayfirst)
    except ValueError:
        with contextlib.suppress(ValueError):  # some rows have fractions of a second, others none
            return pd.to_datetime(column, format="ISO8601")
        raise


def canonical(frame: pd.DataFrame, like: Kinds, keep: Sequence[str] = ()) -> pd.DataFrame:
    """The columns of `like` as float64, str or datetime64 (`keep`: as they are).

    Raises UserError naming a column that is missing or does not hold what `like` says.
    """
    columns = {}
    for column, kind in like.items():
        if column not in frame:
            raise UserError(f"column {column!r} is missing")
        try:
            values = frame[column]
            columns[column] = values if column in keep else _CONVERT[kind](values)
        except (ValueError, TypeError) as error:
            raise UserError(f"column {column!r} must hold {kind}s: {error}") from None
    return pd.DataFrame(columns, index=frame.index)


def _to_number(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds()
    if column.dtype == object:
        column = pd.to_numeric(column.where(column.notna(), np.nan))
    return column.astype("float64") if column.dtype != np.float64 else column


def _to_date(column: pd.Series) -> pd.Series:
    dates = parse_dates(column)
    dates = dates.dt.tz_convert(None) if dates.dt.tz is not None else dates
    return dates.astype("datetime64[us]")


def _to_text(column: pd.Series) -> pd.Series:
    return column if isinstance(column.dtype, pd.StringDtype) else column.astype("str")


_CONVERT = {
    "number": _to_number,
    "date": _to_date,
    "text": _to_text,
    "empty": lambda column: column.astype("float64") if column.isna().all() else column,
}


def json_rows(frame: pd.DataFrame) -> list[bytes]:
    """Each row as a JSON object: floats to the last bit, dates in ISO 8601, null for what is missing."""
    rows = frame.astype(object).where(frame.notna(), None)
    return [to_json(row, inf_nan_mode="null") for row in rows.to_dict("records")]


def target_values(column: pd.Series, task: str, any_classes: bool = False) -> np.ndarray:
    """The target (n,): float64 of a regression; bool, int64 or words of a classification.

    Raises UserError if there is nothing to learn; `any_classes` allows rows of one class.
    """
    named = f"column {column.name!r} (data.target)"
    y, types = column.infer_objects(), pd.api.types
    if task == "regression":
        try:
            return pd.to_numeric(y).to_numpy(np.float64)
        except (ValueError, TypeError):
            raise UserError(f"params.yaml: task: {named} holds no numbers to regress on") from None
    if y.nunique() < 2 and not any_classes:
        raise UserError(f"{named} has only one class, {y.iloc[0]!r}")
    if types.is_float_dtype(y.dtype) and (y % 1 != 0).any():
        raise UserError(f"params.yaml: task: {named} has fractions: regression?")
    if types.is_bool_dtype(y.dtype):
        return y.to_numpy(bool)
    if types.is_numeric_dtype(y.dtype):
        return y.to_numpy(np.int64)
    return y.astype(str).to_numpy(object)
