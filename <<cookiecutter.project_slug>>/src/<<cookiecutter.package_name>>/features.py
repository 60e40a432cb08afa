"""Data preparation: from columns of any type to the numbers and words a model takes. YOURS.

All of it runs inside the logged model (`Tidy` is its first step), so a served request is prepared
exactly as the training rows were. Add your own columns in `derive`.
"""

import contextlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic_core import to_json
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .errors import UserError

MISSING = "missing"  # an explicit word: NaN and None would be encoded differently
_DATE = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?\s*")
_NUMBER = re.compile(r"\s*[-+]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?\s*")


class Kinds(dict[str, str]):
    """Column -> "number", "text", "date" or "empty" (no value at all)."""

    def of(self, kind: str) -> list[str]:
        return [column for column, its in self.items() if its == kind]


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


def derive(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The columns the model sees, float64 or str, from those in canonical form.

    Each date becomes its hour and weekday; a date other than `time` also becomes an age, in days
    before `time` (or since 2000 without a time column).
    """
    columns = {}
    for name, values in frame.items():
        if not pd.api.types.is_datetime64_dtype(values.dtype):
            columns[name] = values
            continue
        columns[f"{name}_hour"] = values.dt.hour + values.dt.minute / 60
        columns[f"{name}_weekday"] = values.dt.day_of_week.astype("float64")
        if name != time:
            start = frame[time] if time in frame else pd.Timestamp("2000-01-01")
            columns[f"{name}_days"] = (start - values).dt.total_seconds() / 86400
    return pd.DataFrame(columns, index=frame.index)


class Tidy(TransformerMixin, BaseEstimator):
    """The first step of the model: raw columns in, those of `derive` out, none all NaN."""

    def __init__(self, kinds: dict[str, str], time: str | None = None):
        self.kinds = kinds
        self.time = time

    def fit(self, X: pd.DataFrame, y=None) -> "Tidy":
        frame = self._derived(X)
        # A column without a single value in the fitted rows stops scikit-learn's boosting.
        self.empty_ = [c for c in frame if frame[c].dtype == np.float64 and frame[c].isna().all()]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        check_is_fitted(self)
        return self._derived(X).assign(**dict.fromkeys(self.empty_, 0.0))

    def _derived(self, X: pd.DataFrame) -> pd.DataFrame:
        frame = derive(canonical(X, Kinds(self.kinds)), self.time)
        text = [c for c, its in frame.dtypes.items() if its != np.float64]
        return frame.assign(**{c: frame[c].fillna(MISSING).astype(object) for c in text})
