"""The feature store: the views of feature_views.py, offline in Parquet and online in a database.

A view is the mean of a column over a window that ends when the prediction is made (`data.time` less
LEAD), for each entity, over the rows that were *available* by then. It is kept as sums that run on
along an entity's rows, so that a window of any length is the difference of two of them: the same two
numbers offline and online.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sql

from ..errors import UserError
from ..features import MISSING, Kinds, canonical, kinds
from ..params import ROOT, Data

FOLDER = "data/feature_store"
SUMS = ["rows", "total"]  # so far


@dataclass(frozen=True)
class View:
    """The column `name`: the mean of `column` by entity (the columns `by`) over `window`, as "3h"."""

    name: str
    by: list[str]
    column: str
    window: str


class OfflineStore:
    """The tables of the views, by name: the columns `by`, available, rows and total so far."""

    def __init__(self, tables: dict[str, pd.DataFrame], data: Data) -> None:
        from .. import feature_views as defined

        self.tables, self.time, self.lead = tables, data.time, defined.LEAD
        self.views = defined.VIEWS
        self.columns = [view.name for view in self.views]
        entities = pd.concat([table.head(1) for table in tables.values()], ignore_index=True)
        by = entities[list(dict.fromkeys(c for view in self.views for c in view.by))]
        self.needs = Kinds(kinds(by) | {str(data.time): "date"})  # what `add` takes

    def add(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows (n,) with a column a view; missing where nothing was known of the entity.

        Raises UserError naming a column of `needs` that is missing or of another kind.
        """
        found, given = {}, canonical(rows, self.needs)
        for view in self.views:
            keys, (before, now) = _entity(given, view), _window(given[self.time], view, self.lead)
            table = self.tables[view.name]
            found[view.name] = _mean(
                _as_of(keys, now, table, view), _as_of(keys, before, table, view)
            )
        return rows.assign(**found)

    def write(self, folder: Path) -> None:
        for name, table in self.tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)


def offline(history: pd.DataFrame, data: Data) -> OfflineStore | None:
    """The store over all rows of a history; None if there are no views for such data.

    Raises UserError naming a column that a view needs and the history lacks.
    """
    from .. import feature_views as defined

    if data.time is None or not defined.VIEWS or defined.AVAILABLE not in history:
        return None
    for view in defined.VIEWS:
        for column in [*view.by, view.column]:
            if column not in history:
                raise UserError(f"feature_views.py: {view.name}: there is no column {column!r}")
    known = history[history[defined.AVAILABLE].notna()]
    return OfflineStore({v.name: _table(known, v, defined.AVAILABLE) for v in defined.VIEWS}, data)


def read(data: Data) -> OfflineStore | None:
    """The store that the stage `aggregate` wrote."""
    paths = sorted((ROOT / FOLDER).glob("*.parquet"))
    return OfflineStore({p.stem: pd.read_parquet(p) for p in paths}, data) if paths else None


def _table(known: pd.DataFrame, view: View, available: str) -> pd.DataFrame:
    try:
        values = pd.to_numeric(known[view.column]).astype("float64")
        moments = pd.to_datetime(known[available]).astype("datetime64[us]")
    except (ValueError, TypeError) as error:
        raise UserError(f"feature_views.py: {view.name}: {error}") from None
    events = _entity(known, view).assign(available=moments, rows=1, total=values)
    events = events[values.notna()].sort_values("available", kind="stable")
    sums = events.groupby(view.by, sort=False)[SUMS].cumsum()
    # Of rows that became available at the same moment the last one has all of them.
    return events.assign(**sums).drop_duplicates([*view.by, "available"], keep="last")


def _entity(rows: pd.DataFrame, view: View) -> pd.DataFrame:
    """The columns that name the entity: numbers, or words, one of which is for a missing one."""
    given = rows[view.by]
    text = [c for c in view.by if not pd.api.types.is_numeric_dtype(given[c])]
    return given.assign(**{c: given[c].astype("str").fillna(MISSING) for c in text})


def _window(time: pd.Series, view: View, lead: pd.Timedelta) -> tuple[pd.Series, pd.Series]:
    now = (time - lead).astype("datetime64[us]")
    return now - pd.Timedelta(view.window), now


def _as_of(keys: pd.DataFrame, at: pd.Series, table: pd.DataFrame, view: View) -> pd.DataFrame:
    """The sums of each entity (n,) over what was available at a time (n,)."""
    left = keys.assign(available=at).sort_values("available")
    found = pd.merge_asof(left, table, on="available", by=view.by).set_index(left.index)
    return found[SUMS].reindex(keys.index).fillna(0)


def _mean(now: pd.DataFrame, before: pd.DataFrame) -> pd.Series:
    rows = now["rows"] - before["rows"]
    return (now["total"] - before["total"]) / rows.where(rows > 0)


def database(url: str) -> sql.Engine:
    """SQLAlchemy's; for PostgreSQL with psycopg 3, which is what is installed."""
    return sql.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))


class OnlineStore:
    """The same tables in SQLite or PostgreSQL, for one row at a time.

    `url` is that of SQLAlchemy, by default the variable FEATURE_STORE_URL, else data/online.db.
    """

    def __init__(self, url: str | None = None) -> None:
        url = url or os.environ.get("FEATURE_STORE_URL") or f"sqlite:///{ROOT / 'data/online.db'}"
        self.engine = database(url)
        tables = sql.MetaData()
        self.table = sql.Table(
            "feature_store",
            tables,
            sql.Column("view", sql.String, primary_key=True),
            sql.Column("entity", sql.String, primary_key=True),
            sql.Column("available", sql.BigInteger, primary_key=True),  # microseconds since 1970
            sql.Column("rows", sql.BigInteger, nullable=False),
            sql.Column("total", sql.Double, nullable=False),
            sqlite_with_rowid=False,
        )
        self.states = sql.Table(  # of each view: when it was written as a whole, its newest row
            "feature_store_states",
            tables,
            sql.Column("view", sql.String, primary_key=True),
            sql.Column("anew", sql.Double, nullable=False),  # seconds since 1970
            sql.Column("last", sql.BigInteger, nullable=False),
        )
        tables.create_all(self.engine)

    def materialize(self, store: OfflineStore) -> dict[str, int]:
        """Bring the tables up to date, all in one transaction; returns the rows written by view.

        What is newer is appended. If the older part differs, for a batch came late or was replaced,
        the view is written anew.
        """
        written, own = {}, self.table.c
        with self.engine.begin() as connection:
            anew = dict(
                connection.execute(sql.select(self.states.c.view, self.states.c.anew)).all()
            )
            names = sql.select(own.view).distinct()
            for gone in set(connection.scalars(names)) - set(store.columns):
                connection.execute(self.table.delete().where(own.view == gone))
            connection.execute(self.states.delete())
            for view in store.views:
                table = store.tables[view.name]
                table = table.assign(available=table["available"].astype("int64"))
                kept = [sql.func.max(own.available), sql.func.count(), sql.func.sum(own.total)]
                last, count, total = connection.execute(
                    sql.select(*kept).where(own.view == view.name)
                ).one()
                older = (table["available"] <= (last or 0)).to_numpy() & bool(count)
                same = np.isclose(float(total or 0), table["total"][older].sum(), rtol=1e-9)
                if count != older.sum() or not same:
                    connection.execute(self.table.delete().where(own.view == view.name))
                    older[:], anew[view.name] = False, time.time()
                newer = table[~older]
                rows = newer.assign(view=view.name, entity=_names(newer[view.by]))
                for part in _parts(rows[["view", "entity", "available", *SUMS]]):
                    connection.execute(self.table.insert(), part)
                state = {"view": view.name, "anew": anew.get(view.name, 0.0)}
                state["last"] = int(table["available"].max()) if len(table) else 0
                connection.execute(self.states.insert(), state)
                written[view.name] = len(rows)
        return written

    def lookup(self, rows: pd.DataFrame, data: Data) -> pd.DataFrame:
        """The rows (n,) with a column a view, equal to those of `OfflineStore.add`."""
        from .. import feature_views as defined

        own, found = self.table.c, {}
        wanted = [own.view == sql.bindparam("view"), own.entity == sql.bindparam("entity")]
        query = sql.select(own.rows, own.total).where(*wanted, own.available <= sql.bindparam("at"))
        query = query.order_by(own.available.desc()).limit(1)
        with self.engine.connect() as connection:
            for view in defined.VIEWS:
                sums, names = [], _names(_entity(rows, view))
                for moments in _window(rows[data.time], view, defined.LEAD):
                    asked = zip(names, moments.astype("int64").tolist(), strict=True)
                    answers = [
                        connection.execute(
                            query, {"view": view.name, "entity": e, "at": at}
                        ).first()
                        for e, at in asked
                    ]
                    values = [tuple(answer) if answer else (0, 0.0) for answer in answers]
                    sums.append(pd.DataFrame(values, rows.index, SUMS))
                found[view.name] = _mean(sums[1], sums[0])
        return rows.assign(**found)


def _names(keys: pd.DataFrame) -> list[str]:
    """An entity's name in the database: its values in JSON."""
    return [json.dumps(values) for values in zip(*(keys[c].tolist() for c in keys), strict=True)]


def _parts(rows: pd.DataFrame, size: int = 50_000) -> Iterator[list[dict]]:
    for start in range(0, len(rows), size):
        yield rows.iloc[start : start + size].to_dict("records")
