"""The offline feature store: the views of feature_views.py over all rows, in Parquet.

A view is the mean of a column over a window that ends when the prediction is made (`data.time` less
LEAD), for each entity, over the rows that were *available* by then. It is kept as sums that run on
along an entity's rows, so that a window of any length is the difference of two of them: the same two
numbers offline and online.
"""

from pathlib import Path

import pandas as pd

from ... import feature_views
from ...experiment.column_types import MISSING, Kinds, canonical, kinds
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Data
from .view import View

FOLDER = "data/feature_store"
SUMS = ["rows", "total"]  # so far


class OfflineStore:
    """The tables of the views, by name: the columns `by`, available, rows and total so far."""

    def __init__(self, tables: dict[str, pd.DataFrame], data: Data) -> None:
        self.tables, self.time, self.lead = tables, data.time, feature_views.LEAD
        self.views = feature_views.VIEWS
        self.columns = [view.name for view in self.views]
        entities = pd.concat([table.head(1) for table in tables.values()], ignore_index=True)
        by = entities[list(dict.fromkeys(c for view in self.views for c in view.by))]
        self.needs = Kinds(kinds(by) | {str(data.time): "date"})  # what `add` takes

    def add(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows (n,) with a column a view; missing where nothing was known of the entity.

        Raises UserError naming a column of `needs` that is missing or of another kind.
        """
        columns, given = {}, canonical(rows, self.needs)
        for view in self.views:
            keys, (before, now) = entity(given, view), window_of(given[self.time], view, self.lead)
            table = self.tables[view.name]
            columns[view.name] = mean(
                _as_of(keys, now, table, view), _as_of(keys, before, table, view)
            )
        return rows.assign(**columns)

    def write(self, folder: Path) -> None:
        """Write a Parquet file for each view into a folder that is there."""
        for name, table in self.tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)


def offline(history: pd.DataFrame, data: Data) -> OfflineStore | None:
    """The store over all rows of a history; None if there are no views for such data.

    Raises UserError naming a column that a view needs and the history lacks.
    """
    if data.time is None or not feature_views.VIEWS or feature_views.AVAILABLE not in history:
        return None
    for view in feature_views.VIEWS:
        for column in [*view.by, view.column]:
            if column not in history:
                raise UserError(f"feature_views.py: {view.name}: there is no column {column!r}")
    known = history[history[feature_views.AVAILABLE].notna()]
    return OfflineStore(
        {v.name: _table(known, v, feature_views.AVAILABLE) for v in feature_views.VIEWS}, data
    )


def read(data: Data) -> OfflineStore | None:
    """The store that the stage `build_views` wrote."""
    paths = sorted((ROOT / FOLDER).glob("*.parquet"))
    return OfflineStore({p.stem: pd.read_parquet(p) for p in paths}, data) if paths else None


def _table(known: pd.DataFrame, view: View, available: str) -> pd.DataFrame:
    try:
        values = pd.to_numeric(known[view.column]).astype("float64")
        moments = pd.to_datetime(known[available]).astype("datetime64[us]")
    except (ValueError, TypeError) as error:
        raise UserError(f"feature_views.py: {view.name}: {error}") from None
    events = entity(known, view).assign(available=moments, rows=1, total=values)
    events = events[values.notna()].sort_values("available", kind="stable")
    sums = events.groupby(view.by, sort=False)[SUMS].cumsum()
    # Of rows that became available at the same moment the last one has all of them.
    return events.assign(**sums).drop_duplicates([*view.by, "available"], keep="last")


def entity(rows: pd.DataFrame, view: View) -> pd.DataFrame:
    """The columns that name the entity: numbers, or words, one of which is for a missing one."""
    given = rows[view.by]
    text = [c for c in view.by if not pd.api.types.is_numeric_dtype(given[c])]
    return given.assign(**{c: given[c].astype("str").fillna(MISSING) for c in text})


def window_of(time: pd.Series, view: View, lead: pd.Timedelta) -> tuple[pd.Series, pd.Series]:
    """When the window of each prediction (n,) begins and ends: it ends `lead` before `time`."""
    now = (time - lead).astype("datetime64[us]")
    return now - pd.Timedelta(view.window), now


def _as_of(keys: pd.DataFrame, at: pd.Series, table: pd.DataFrame, view: View) -> pd.DataFrame:
    """The sums of each entity (n,) over what was available at a time (n,)."""
    left = keys.assign(available=at).sort_values("available")
    sums = pd.merge_asof(left, table, on="available", by=view.by).set_index(left.index)
    return sums[SUMS].reindex(keys.index).fillna(0)


def mean(now: pd.DataFrame, before: pd.DataFrame) -> pd.Series:
    """The mean over a window, from the sums at its end and at its begin; NaN without a row in it."""
    rows = now["rows"] - before["rows"]
    return (now["total"] - before["total"]) / rows.where(rows > 0)
