"""The prediction log, read: the newest predictions of a version, and the labels that came late for them.

A prediction is known again among the labelled rows by `data.id`, if that is set and was sent, else by
the hash of its inputs. The latest prediction of a row counts, once. Where several labelled rows have
the same inputs, or contradict each other under one id, nobody can say whose label it is: such
predictions are counted, and left out.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import sqlalchemy as sql

from ... import data
from ...experiment import dataset, tables
from ...experiment.column_types import MISSING, Kinds, canonical
from ...experiment.errors import UserError
from ...experiment.params import Params
from ..service.prediction_log import PredictionTable

EXACT = 2**53  # from here on a float64 leaves out whole numbers


class Log:
    """What an environment predicted since a moment (seconds since 1970)."""

    def __init__(self, table: PredictionTable, environment: str, since: float) -> None:
        self.engine, self.own = table.engine, table.table.c
        self.mine = self.own.environment == environment
        self.wanted = sql.and_(self.mine, self.own.time >= since)

    def span(self) -> tuple[float, float] | None:
        """When the first and the last prediction were made, ever."""
        query = sql.select(sql.func.min(self.own.time), sql.func.max(self.own.time))
        with self.engine.connect() as connection:
            first, last = connection.execute(query.where(self.mine)).one()
        return None if first is None else (first, last)

    def traffic(self, width: int) -> pd.DataFrame:
        """Rows and failures by version, shadow or not, and time in bins of `width` seconds."""
        place = sql.cast(self.own.time, sql.BigInteger) // width
        failed = sql.func.count() - sql.func.count(self.own.prediction)
        query = sql.select(self.own.version, self.own.shadow, place, sql.func.count(), failed)
        query = query.where(self.wanted).group_by(self.own.version, self.own.shadow, place)
        with self.engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(query)]
        frame = pd.DataFrame(found, columns=["version", "shadow", "time", "rows", "failures"])
        return frame.assign(time=frame["time"] * width).sort_values("time", ignore_index=True)

    def newest(self, version: int, rows: int) -> tuple[pd.DataFrame, bool]:
        """The newest rows of a version, newest first, and whether there are more."""
        names = ("request", "row", "time", "seconds", "shadow", "features", "prediction")
        query = sql.select(*(self.own[name] for name in names))
        query = query.where(self.wanted, self.own.version == version)
        query = query.order_by(self.own.time.desc(), self.own.request, self.own.row).limit(rows + 1)
        with self.engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(query)]
        return pd.DataFrame(found[:rows], columns=names), len(found) > rows


def inputs(logged: pd.DataFrame, kinds: Kinds, also: str | None) -> pd.DataFrame:
    """The inputs of logged rows (n,) in canonical form: those that any row was sent with.

    A value that its column cannot hold is missing; dates with a zone become UTC. `also` is a column
    that comes as it is.
    """
    sent = pd.DataFrame([json.loads(row) for row in logged["features"]], logged.index, dtype=object)
    columns = {}
    for column in (c for c in kinds if c in sent):
        values, kind = sent[column], kinds[column]
        if kind == "number":
            values = pd.to_numeric(values, errors="coerce")
        elif kind == "date":
            values = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
        columns[column] = values
    found = canonical(pd.DataFrame(columns, logged.index), Kinds({c: kinds[c] for c in columns}))
    return found if also not in sent else found.assign(**{str(also): sent[also]})


def rounded(rows: pd.DataFrame, kinds: Kinds) -> pd.DataFrame:
    """Numbers as float32: what a client sends as JSON may have been rounded, what it is compared with not."""
    numbers = {c: rows[c].astype("float32") + 0 for c in kinds.of("number") if c in rows}
    return rows.assign(**{c: values.where(values.notna(), np.nan) for c, values in numbers.items()})


def hashed(rows: pd.DataFrame, kinds: Kinds) -> np.ndarray:
    """A hash (n,) of these columns."""
    given = rounded(canonical(rows, kinds), kinds)
    words = {c: given[c].fillna(MISSING) for c in kinds.of("text")}
    return pd.util.hash_pandas_object(given.assign(**words), index=False).to_numpy()


def named(ids: pd.Series) -> np.ndarray:
    """A hash (n,) of ids, whether they come as numbers or as words; UserError if they are not exact."""
    if pd.api.types.is_float_dtype(ids.dtype) and (ids.abs() >= EXACT).any():
        raise UserError(f"column {ids.name!r} (data.id) has long numbers: name it in data.text")
    whole = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in ids]
    words = pd.Series(whole, dtype=object)
    return pd.util.hash_pandas_object(words, index=False, hash_key="the id of a row.").to_numpy()


class Asked(NamedTuple):
    """A version's predictions (n,), with `key`; by what their labelled rows are found."""

    rows: pd.DataFrame
    kinds: Kinds  # of the inputs that both sides have
    ids: np.ndarray  # those keys that are an id


def ask(logged: pd.DataFrame, sent: pd.DataFrame, kinds: Kinds, params: Params) -> Asked:
    """The latest prediction of each row, of those that did not fail; `kinds` are those of the key."""
    key, by_id = hashed(sent, kinds), np.zeros(len(sent), bool)
    if params.data.id in sent:
        by_id = sent[params.data.id].notna().to_numpy()
        key = np.where(by_id, named(sent[params.data.id]), key)
    rows = logged.assign(key=key)[logged["prediction"].notna()].drop_duplicates("key")
    return Asked(rows, kinds, np.unique(key[by_id]))


class Joined(NamedTuple):
    """Predictions and their labelled rows (n,), side by side; and how many have none (yet)."""

    rows: pd.DataFrame
    labels: pd.DataFrame
    waiting: int
    ambiguous: int


def join(asked: dict[int, Asked], params: Params, notes: list[str]) -> dict[int, Joined]:
    """The predictions of each version that have a label. All batches are read, one at a time.

    A batch that cannot be read, or whose rows cannot be told apart, is left out, which is noted.
    """
    target = params.data.target
    found: dict[int, list[pd.DataFrame]] = {version: [] for version in asked}
    for name, frame in labelled(params, notes) if asked else ():
        kept = dict.fromkeys([target, *params.evaluate.segments])
        kept |= {} if params.data.time is None else {params.data.time: None}
        frame = frame.reindex(columns=[*frame, *(c for c in kept if c not in frame)])
        for version, its in asked.items():
            try:
                keys = [named(frame[params.data.id])] if len(its.ids) else []
                keys += [hashed(frame, its.kinds)] if len(its.ids) < len(its.rows) else []
            except UserError as error:
                notes.append(f"no labels of {name} for version {version}: {error}")
                continue
            for key in keys:
                wanted = np.isin(key, its.rows["key"])
                found[version].append(frame.loc[wanted, list(kept)].set_axis(key[wanted]))
    return {version: _joined(its, found[version], target) for version, its in asked.items()}


def _joined(its: Asked, found: list[pd.DataFrame], target: str) -> Joined:
    labels = pd.concat(found or [pd.DataFrame(columns=[target])])
    pairs = pd.DataFrame({"key": labels.index, "label": labels[target].to_numpy()})
    labels = labels[~(labels.index.isin(its.ids) & pairs.duplicated().to_numpy())]
    several = labels.index.duplicated(keep=False)
    ambiguous, labels = labels.index[several].nunique(), labels[~several]
    rows = its.rows[its.rows["key"].isin(labels.index)]
    waiting = len(its.rows) - len(rows) - ambiguous
    return Joined(rows, labels.loc[rows["key"]].set_axis(rows.index), waiting, ambiguous)


def labelled(params: Params, notes: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each batch that have a target, and its name."""
    about = params.data
    try:
        paths = dataset.batches(about.model_copy(update={"through": None}))
    except UserError:
        return
    for path in paths:
        try:
            frame = tables.read([path], about)
        except UserError as error:
            notes.append(f"no labels of {path.stem}: {error}")
            continue
        if about.unlabelled in ("drop", "refuse"):
            frame = frame[frame[about.target].notna()]
        else:
            frame = data.labelled(frame, params)
        if len(frame):
            yield path.stem, frame
