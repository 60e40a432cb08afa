"""The online feature store, held in memory by the service: a request waits for no database.

What is new there is read while the service follows the registry; the database away, it goes on with
what it has. A row's feature is the same number as in `feature_store.OnlineStore.lookup`.
"""

import json
import logging
import math
from array import array
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import sqlalchemy as sql

from .. import feature_views
from ..continuous_training.feature_store import OnlineStore
from ..features import MISSING, Kinds
from ..params import Data

EPOCH, MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)

log = logging.getLogger(__name__)


def names(data: Data) -> tuple[str, ...]:
    """The columns of the feature views, which a request need not hold."""
    return tuple(view.name for view in feature_views.VIEWS) if data.time else ()


class Sums:
    """A view's rows by entity: rows and total so far, and when available (microseconds)."""

    def __init__(self) -> None:
        self.last = self.count = 0
        self.total = 0.0
        self.entities: dict[tuple, tuple[array, array, array]] = {}

    def add(self, found: Any) -> None:
        """Append rows of entity, rows, total, available; they must be in order of time."""
        for name, *values in found:
            entity = tuple(json.loads(name))
            if entity not in self.entities:
                self.entities[entity] = array("q"), array("d"), array("q")
            for column, value in zip(self.entities[entity], values, strict=True):
                column.append(value)  # when available comes last: `mean` looks there first
            self.last, self.count = values[2], self.count + 1
            self.total += values[1]

    def mean(self, entity: tuple, before: int, now: int) -> float | None:
        """The mean of what became available in a window; None if nothing did."""
        found = self.entities.get(entity)
        if found is None:
            return None
        rows, total, available = found
        first, last = bisect_right(available, before) - 1, bisect_right(available, now) - 1
        count = (rows[last] if last >= 0 else 0) - (rows[first] if first >= 0 else 0)
        if count <= 0:
            return None
        return ((total[last] if last >= 0 else 0) - (total[first] if first >= 0 else 0)) / count


class Online:
    """The views of a service; `missed` counts the times that the database could not be read."""

    def __init__(self, data: Data, url: str | None = None) -> None:
        self.time, self.url = str(data.time), url
        self.lead = int(feature_views.LEAD / MICROSECOND)
        self.windows = {
            v.name: int(pd.Timedelta(v.window) / MICROSECOND) for v in feature_views.VIEWS
        }
        self.sums: dict[str, Sums] = {}
        self.store: OnlineStore | None = None
        self.missed = 0

    def refresh(self) -> None:
        """Read what is new; what was written anew is read as a whole."""
        try:
            self.store = self.store or OnlineStore(self.url)
            with self.store.engine.connect() as connection:
                found = {
                    view.name: self._view(view.name, self.store.table, connection)
                    for view in feature_views.VIEWS
                }
        except sql.exc.SQLAlchemyError as error:
            self.missed += 1
            said = " ".join(str(error.__cause__ or error).split())[:300]
            log.warning("the online feature store cannot be read (FEATURE_STORE_URL): %s", said)
            return
        if not any(sums.count for sums in found.values()):
            log.warning("the online feature store is empty: run the step `materialize`")
        self.sums = found

    def _view(self, name: str, table: sql.Table, connection: sql.Connection) -> Sums:
        own, known = table.c, self.sums.get(name) or Sums()
        about = sql.select(sql.func.count(), sql.func.sum(own.total)).where(own.view == name)
        count, total = connection.execute(about).one()

        def same() -> bool:
            return known.count == count and math.isclose(known.total, float(total or 0))

        rows = sql.select(own.entity, own.rows, own.total, own.available)
        rows = rows.where(own.view == name).order_by(own.available)
        if not same():
            known.add(connection.execute(rows.where(own.available > known.last)))
        if not same():
            known = Sums()
            known.add(connection.execute(rows))
        return known

    def needs(self) -> Kinds:
        """The columns that the views go by: words, unless a signature says otherwise, and the time."""
        by = dict.fromkeys((c for view in feature_views.VIEWS for c in view.by), "text")
        return Kinds(by | {self.time: "date"})

    def values(self, row: dict[str, Any]) -> dict[str, float | None]:
        """The views of a row of `needs`; None where nothing was known of the entity."""
        moment = row[self.time]
        if moment is None:
            return dict.fromkeys(view.name for view in feature_views.VIEWS)
        now, found = (moment - EPOCH) // MICROSECOND - self.lead, dict[str, float | None]()
        for view in feature_views.VIEWS:
            entity = tuple([MISSING if row[c] is None else row[c] for c in view.by])
            sums = self.sums.get(view.name)
            before = now - self.windows[view.name]
            found[view.name] = sums.mean(entity, before, now) if sums else None
        return found
