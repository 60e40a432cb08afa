"""The online feature store: the sums of the offline one in SQLite or PostgreSQL, for one row at a time."""

import json
import os
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import sqlalchemy as sql

from ... import feature_views
from ...experiment.params import ROOT, Data
from .offline import SUMS, OfflineStore, entity, mean, window_of


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
            for removed in set(connection.scalars(names)) - set(store.columns):
                connection.execute(self.table.delete().where(own.view == removed))
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
        own, columns = self.table.c, {}
        wanted = [own.view == sql.bindparam("view"), own.entity == sql.bindparam("entity")]
        query = sql.select(own.rows, own.total).where(*wanted, own.available <= sql.bindparam("at"))
        query = query.order_by(own.available.desc()).limit(1)
        with self.engine.connect() as connection:
            for view in feature_views.VIEWS:
                sums, names = [], _names(entity(rows, view))
                for moments in window_of(rows[data.time], view, feature_views.LEAD):
                    asked = zip(names, moments.astype("int64").tolist(), strict=True)
                    answers = [
                        connection.execute(
                            query, {"view": view.name, "entity": e, "at": at}
                        ).first()
                        for e, at in asked
                    ]
                    values = [tuple(answer) if answer else (0, 0.0) for answer in answers]
                    sums.append(pd.DataFrame(values, rows.index, SUMS))
                columns[view.name] = mean(sums[1], sums[0])
        return rows.assign(**columns)


def _names(keys: pd.DataFrame) -> list[str]:
    """An entity's name in the database: its values in JSON."""
    return [json.dumps(values) for values in zip(*(keys[c].tolist() for c in keys), strict=True)]


def _parts(rows: pd.DataFrame, size: int = 50_000) -> Iterator[list[dict]]:
    for start in range(0, len(rows), size):
        yield rows.iloc[start : start + size].to_dict("records")
