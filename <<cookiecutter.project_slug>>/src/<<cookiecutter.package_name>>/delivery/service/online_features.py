"""The online feature store, held in memory by the service: a request waits for no database.

What is new there is read while the service follows the registry; the database away, it goes on with
what it has. A row's feature is the same number as in `feature_store.OnlineStore.lookup`.
"""

import itertools
import json
import logging
import operator
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pandas as pd
import sqlalchemy as sql

from ... import feature_views
from ...continuous_training.features.online import OnlineStore
from ...experiment.column_types import MISSING, Kinds
from ...experiment.params import Data
from ...experiment.redaction import redact

EPOCH, MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
ROWS = 10_000  # that are fetched at once
Filler = Callable[[list[tuple]], tuple[list, list[dict[str, float | None]]]]

log = logging.getLogger(__name__)


def names(data: Data) -> tuple[str, ...]:
    """The columns of the feature views, which a request need not hold."""
    return tuple(view.name for view in feature_views.VIEWS) if data.time else ()


class Sums:
    """A view's rows by entity: rows and total so far, and when available (microseconds)."""

    def __init__(self) -> None:
        self.last, self.state = 0, (0.0, 0)  # its newest row; the state in which it was read
        self.entities: dict[Any, tuple[array, array, array]] = {}

    def add(self, found: Iterable) -> None:
        """Append rows of entity, rows, total, available, sorted by entity and time."""
        for name, some in itertools.groupby(found, operator.itemgetter(0)):
            _, *values = zip(*some, strict=True)
            # As itemgetter has it of a row: the values, or the only one; None where one is missing.
            several = tuple(None if value == MISSING else value for value in json.loads(name))
            entity = several if len(several) > 1 else several[0]
            if entity not in self.entities:
                self.entities[entity] = array("q"), array("d"), array("q")
            for column, new in zip(self.entities[entity], values, strict=True):
                column.extend(new)  # when available comes last: `mean` looks there first
            self.last = max(self.last, values[2][-1])

    def mean(self, entity: Any, now: int | None, window: int) -> float | None:
        """The mean of what became available in a window that ends now; None if nothing did."""
        found = self.entities.get(entity)
        if found is None or now is None:
            return None
        rows, total, available = found
        last = bisect_right(available, now) - 1
        first = bisect_right(available, now - window, 0, last + 1) - 1
        if first == last:
            return None
        if first < 0:
            return total[last] / rows[last]
        return (total[last] - total[first]) / (rows[last] - rows[first])


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
        self.missed, self.said = 0, ""

    def refresh(self) -> None:
        """Read what is new; what was written anew is read as a whole."""
        try:
            self.store = self.store or OnlineStore(self.url)
            with self.store.engine.connect() as connection:
                self._read(self.store, connection.execution_options(yield_per=ROWS))
        except sql.exc.SQLAlchemyError as error:
            self.missed += 1
            said = redact(" ".join(str(error.__cause__ or error).split()))[:300]
            self._warn(f"it cannot be read (FEATURE_STORE_URL): {said}")
            return
        filled = any(sums.entities for sums in self.sums.values())
        self._warn("" if filled else "it is empty: run the step `materialize`")

    def _warn(self, said: str) -> None:
        """Say what is wrong, if it is something else than before."""
        if said and said != self.said:
            log.warning("the online feature store: %s", said)
        self.said = said

    def _read(self, store: OnlineStore, connection: sql.Connection) -> None:
        own, states = store.table.c, connection.execute(sql.select(store.states)).all()
        now = {name: (anew, last) for name, anew, last in states}
        rows = sql.select(own.entity, own.rows, own.total, own.available)
        rows = rows.order_by(own.entity, own.available)
        for name in self.windows:
            sums, state = self.sums.get(name), now.get(name, (0.0, 0))
            if sums is not None and state == sums.state:
                continue
            if sums is None or state[0] != sums.state[0]:
                sums = Sums()
            sums.add(connection.execute(rows.where(own.view == name, own.available > sums.last)))
            self.sums[name], sums.state = sums, state

    def needs(self) -> Kinds:
        """The columns that the views go by: words, unless a signature says otherwise, and the time."""
        by = dict.fromkeys((c for view in feature_views.VIEWS for c in view.by), "text")
        return Kinds(by | {self.time: "date"})

    def filler(self, columns: list[str]) -> Filler:
        """A function that puts the features of rows with these columns where they are UNSET.

        It returns the rows, and of each what it has put there: None where nothing was known.
        """
        time, place = columns.index(self.time), {column: k for k, column in enumerate(columns)}
        views = [
            (
                place[v.name],
                v.name,
                operator.itemgetter(*map(place.get, v.by)),
                self.windows[v.name],
            )
            for v in feature_views.VIEWS
            if v.name in place
        ]

        def fill(rows: list[tuple]) -> tuple[list, list[dict[str, float | None]]]:
            filled, found = list(map(list, rows)), [dict[str, float | None]() for _ in rows]
            moments = [row[time] for row in rows]
            now = [m and (m - EPOCH) // MICROSECOND - self.lead for m in moments]
            for at, name, entity, window in views:
                mean = (self.sums.get(name) or Sums()).mean
                for row, values, known, moment in zip(rows, filled, found, now, strict=True):
                    if row[at] is msgspec.UNSET:
                        known[name] = values[at] = mean(entity(row), moment, window)
            return filled, found

        return fill
