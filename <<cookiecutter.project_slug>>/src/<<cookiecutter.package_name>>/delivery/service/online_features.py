"""The online feature store, held in memory by the service: a request waits for no database.

What is new in the database is read while the service follows the registry. When the database is away, the
service goes on with what it has. A row's feature is the same number as in `OfflineStore.add`.
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
FETCHED_ROWS = 10_000  # at once
# Rows (n,) -> the rows with their features, and the features of each; None where nothing is known.
Filler = Callable[[list[tuple]], tuple[list, list[dict[str, float | None]]]]

log = logging.getLogger(__name__)


def for_model(data: Data, kinds: Kinds) -> "OnlineFeatures | None":
    """The views as the database has them now; None if a model with these inputs takes none of them."""
    if not kinds.keys() & set(view_names(data)):
        return None
    features = OnlineFeatures(data)
    features.refresh()
    return features


def view_names(data: Data) -> tuple[str, ...]:
    """The columns of the feature views, which a request need not hold."""
    return tuple(view.name for view in feature_views.VIEWS) if data.time else ()


class ViewSums:
    """A view's rows by entity: running rows and total, and when each became available (microseconds)."""

    def __init__(self) -> None:
        self.newest = 0  # when its last row became available
        self.state = (0.0, 0)  # of the view in the database, when it was read
        self.entities: dict[Any, tuple[array, array, array]] = {}

    def add(self, rows: Iterable) -> None:
        """Append rows of entity, rows, total, available, sorted by entity and time."""
        for name, group in itertools.groupby(rows, operator.itemgetter(0)):
            _, *columns = zip(*group, strict=True)
            # As itemgetter has it of a row: the values, or the only one; None where one is missing.
            values = tuple(None if value == MISSING else value for value in json.loads(name))
            entity = values if len(values) > 1 else values[0]
            if entity not in self.entities:
                self.entities[entity] = array("q"), array("d"), array("q")
            for column, new in zip(self.entities[entity], columns, strict=True):
                column.extend(new)  # `available` last: another thread looks there first
            self.newest = max(self.newest, columns[2][-1])

    def mean(self, entity: Any, now: int | None, window: int) -> float | None:
        """The mean of what became available in a window that ends now; None if nothing did."""
        sums = self.entities.get(entity)
        if sums is None or now is None:
            return None
        rows, total, available = sums
        last = bisect_right(available, now) - 1
        first = bisect_right(available, now - window, 0, last + 1) - 1
        if first == last:
            return None
        if first < 0:
            return total[last] / rows[last]
        return (total[last] - total[first]) / (rows[last] - rows[first])


class OnlineFeatures:
    """The views of a service; `missed` counts the times that the database could not be read."""

    def __init__(self, data: Data, url: str | None = None) -> None:
        self.time, self.url = str(data.time), url
        self.lead = int(feature_views.LEAD / MICROSECOND)
        self.windows = {
            v.name: int(pd.Timedelta(v.window) / MICROSECOND) for v in feature_views.VIEWS
        }
        limited = [view for view in feature_views.VIEWS if view.max_age]
        self.max_ages = {v.name: (v.max_age, pd.Timedelta(v.max_age)) for v in limited}
        self.sums = {name: ViewSums() for name in self.windows}
        self.store: OnlineStore | None = None
        self.missed = 0
        self.warning = ""  # the last one that was logged

    def refresh(self) -> None:
        """Read what is new; a view that was written anew is read as a whole."""
        try:
            self.store = self.store or OnlineStore(self.url)
            with self.store.engine.connect() as connection:
                self._read(self.store, connection.execution_options(yield_per=FETCHED_ROWS))
        except sql.exc.SQLAlchemyError as error:
            self.missed += 1
            reason = redact(" ".join(str(error.__cause__ or error).split()))[:300]
            self._warn(f"it cannot be read (FEATURE_STORE_URL): {reason}")
            return
        self._warn(self.lacking(self.sums) or "")

    def lacking(self, columns: Iterable[str]) -> str | None:
        """What the views of these columns lack, in words: rows, or new enough ones; None if nothing."""
        for name in (name for name in self.sums if name in columns):
            newest = self.sums[name].newest
            text, max_age = self.max_ages.get(name, ("", None))
            if not newest:
                return f"view {name} is empty: run the step `materialize`"
            if max_age is not None and datetime.now() - (EPOCH + newest * MICROSECOND) > max_age:
                return f"view {name} is older than {text}: run the step `materialize`"
        return None

    def _warn(self, warning: str) -> None:
        """Log a warning once."""
        if warning and warning != self.warning:
            log.warning("the online feature store: %s", warning)
        self.warning = warning

    def _read(self, store: OnlineStore, connection: sql.Connection) -> None:
        own = store.table.c
        query = sql.select(own.entity, own.rows, own.total, own.available)
        query = query.order_by(own.entity, own.available)
        written = connection.execute(sql.select(store.states)).all()
        states = {name: (anew, newest) for name, anew, newest in written}
        for name, sums in self.sums.items():
            state = states.get(name, (0.0, 0))
            if state == sums.state:
                continue
            if state[0] != sums.state[0]:
                sums = ViewSums()
            new = query.where(own.view == name, own.available > sums.newest)
            sums.add(connection.execute(new))
            self.sums[name], sums.state = sums, state

    def key_columns(self) -> Kinds:
        """The columns by which the views look up: words, unless a signature has another kind, and the time."""
        by = dict.fromkeys((c for view in feature_views.VIEWS for c in view.by), "text")
        return Kinds(by | {self.time: "date"})

    def filler(self, columns: list[str]) -> Filler:
        """A function that replaces UNSET by the features, in rows with these columns."""
        time, place = columns.index(self.time), {column: k for k, column in enumerate(columns)}
        views = [
            (view.name, place[view.name], operator.itemgetter(*map(place.get, view.by)))
            for view in feature_views.VIEWS
            if view.name in place
        ]

        def fill(rows: list[tuple]) -> tuple[list, list[dict[str, float | None]]]:
            filled = [list(row) for row in rows]
            features = [dict[str, float | None]() for _ in rows]
            moments = [row[time] for row in rows]
            known_at = [m and (m - EPOCH) // MICROSECOND - self.lead for m in moments]
            for name, k, entity in views:
                mean, window = self.sums[name].mean, self.windows[name]
                for values, known, now in zip(filled, features, known_at, strict=True):
                    if values[k] is msgspec.UNSET:
                        known[name] = values[k] = mean(entity(values), now, window)
            return filled, features

        return fill
