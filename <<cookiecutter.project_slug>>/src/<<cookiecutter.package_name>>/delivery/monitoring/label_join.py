"""The label join: predictions of the log, and the labels that came late for them.

A prediction is matched with a labelled row by `data.id`, if that is set and was sent, else by the hash
of its inputs. The latest prediction of a row counts, once. Where several labelled rows have the same
inputs, or contradict each other under one id, the label is ambiguous: such predictions are counted, and
left out.
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

INEXACT = 2**53  # from here on float64 leaves out whole numbers


class PredictionLog:
    """What an environment predicted since a moment (seconds since 1970)."""

    def __init__(self, table: PredictionTable, environment: str, since: float) -> None:
        self.engine = table.engine
        self.columns = table.table.c
        self.environment = self.columns.environment == environment
        self.chosen = sql.and_(self.environment, self.columns.time >= since)

    def span(self) -> tuple[float, float] | None:
        """When the first and the last prediction were made, ever; None without any."""
        time = self.columns.time
        query = sql.select(sql.func.min(time), sql.func.max(time)).where(self.environment)
        with self.engine.connect() as connection:
            first, last = connection.execute(query).one()
        return None if first is None else (first, last)

    def traffic(self, bin_seconds: int) -> pd.DataFrame:
        """Counts by time bin, oldest first: columns version, shadow, time (its start), rows, failures."""
        version, shadow = self.columns.version, self.columns.shadow
        place = sql.cast(self.columns.time, sql.BigInteger) // bin_seconds
        rows = sql.func.count()
        failures = rows - sql.func.count(self.columns.prediction)
        query = sql.select(
            version, shadow, place.label("time"), rows.label("rows"), failures.label("failures")
        )
        query = query.where(self.chosen).group_by(version, shadow, place)
        frame = pd.read_sql(query, self.engine)
        frame["time"] *= bin_seconds
        return frame.sort_values("time", ignore_index=True)

    def newest(self, version: int, rows: int) -> tuple[pd.DataFrame, bool]:
        """The newest rows of a version, newest first, and whether there are more of them."""
        names = ("request", "row", "time", "seconds", "shadow", "features", "prediction")
        query = sql.select(*(self.columns[name] for name in names))
        query = query.where(self.chosen, self.columns.version == version).limit(rows + 1)
        order = (self.columns.time.desc(), self.columns.request, self.columns.row)
        frame = pd.read_sql(query.order_by(*order), self.engine)
        return frame.head(rows), len(frame) > rows


def inputs(logged: pd.DataFrame, kinds: Kinds, also: str | None) -> pd.DataFrame:
    """The inputs of logged rows (n,) in canonical form: those that any row was sent with.

    A value that its column cannot hold is missing; dates with a zone become UTC. `also` is a column
    that is taken over unchanged.
    """
    sent = pd.DataFrame([json.loads(row) for row in logged["features"]], logged.index, dtype=object)
    columns = {}
    for column in (c for c in kinds if c in sent):
        values = sent[column]
        if kinds[column] == "number":
            values = pd.to_numeric(values, errors="coerce")
        elif kinds[column] == "date":
            values = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
        columns[column] = values
    rows = canonical(pd.DataFrame(columns, logged.index), Kinds({c: kinds[c] for c in columns}))
    return rows if also not in sent else rows.assign(**{str(also): sent[also]})


def rounded(rows: pd.DataFrame, kinds: Kinds) -> pd.DataFrame:
    """Numbers as float32, for a client may have rounded what it sent as JSON."""
    numbers = {c: rows[c].astype("float32") + 0 for c in kinds.of("number") if c in rows}
    return rows.assign(**{c: values.where(values.notna(), np.nan) for c, values in numbers.items()})


def hash_inputs(rows: pd.DataFrame, kinds: Kinds) -> np.ndarray:
    """A hash (n,) of these columns."""
    values = rounded(canonical(rows, kinds), kinds)
    words = {c: values[c].fillna(MISSING) for c in kinds.of("text")}
    return pd.util.hash_pandas_object(values.assign(**words), index=False).to_numpy()


def hash_ids(ids: pd.Series) -> np.ndarray:
    """A hash (n,) of ids, whether they come as numbers or as words; UserError if they are not exact."""
    if pd.api.types.is_float_dtype(ids.dtype) and (ids.abs() >= INEXACT).any():
        raise UserError(f"column {ids.name!r} (data.id) has long numbers: name it in data.text")
    whole = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in ids]
    words = pd.Series(whole, dtype=object)
    return pd.util.hash_pandas_object(words, index=False, hash_key="the id of a row.").to_numpy()


class Predictions(NamedTuple):
    """A version's predictions (n,), with the column `key` that their labelled rows have too."""

    rows: pd.DataFrame
    kinds: Kinds  # of the inputs that are hashed
    ids: np.ndarray  # those keys that are the hash of an id
    classes: np.ndarray | None = None  # of the model


def with_keys(
    logged: pd.DataFrame, sent: pd.DataFrame, kinds: Kinds, params: Params
) -> Predictions:
    """The latest prediction of each row, of those that did not fail; both tables have the same rows (n,).

    `kinds` names the inputs that both sides have.
    """
    key = hash_inputs(sent, kinds)
    by_id = np.zeros(len(sent), bool)
    if params.data.id in sent:
        by_id = sent[params.data.id].notna().to_numpy()
        key = np.where(by_id, hash_ids(sent[params.data.id]), key)
    rows = logged.assign(key=key)[logged["prediction"].notna()].drop_duplicates("key")
    return Predictions(rows, kinds, np.unique(key[by_id]))


class Labelled(NamedTuple):
    """Predictions and their labelled rows (n,), side by side; and how many have none (yet)."""

    rows: pd.DataFrame
    labels: pd.DataFrame
    waiting: int
    ambiguous: int
    classes: np.ndarray | None = None  # of the model


def join(
    predictions: dict[int, Predictions], params: Params, notes: list[str]
) -> dict[int, Labelled]:
    """The predictions of each version that have a label. All batches are read, one at a time.

    A batch that cannot be read, or whose rows cannot be told apart, is left out, and noted.
    """
    target = params.data.target
    matches: dict[int, list[pd.DataFrame]] = {version: [] for version in predictions}
    kept = dict.fromkeys([target, *params.evaluate.segments])
    kept |= {} if params.data.time is None else {params.data.time: None}
    for name, frame in labelled_batches(params, notes) if predictions else ():
        frame = frame.reindex(columns=[*frame, *(c for c in kept if c not in frame)])
        for version, own in predictions.items():
            try:
                keys = [hash_ids(frame[params.data.id])] if len(own.ids) else []
                keys += [hash_inputs(frame, own.kinds)] if len(own.ids) < len(own.rows) else []
            except UserError as error:
                notes.append(f"no labels of {name} for version {version}: {error}")
                continue
            for key in keys:
                matching = np.isin(key, own.rows["key"])
                labels = frame.loc[matching, list(kept)].set_axis(key[matching])
                matches[version].append(labels)
    return {
        version: _side_by_side(p, matches[version], target) for version, p in predictions.items()
    }


def _side_by_side(own: Predictions, matches: list[pd.DataFrame], target: str) -> Labelled:
    labels = pd.concat(matches or [pd.DataFrame(columns=[target])])
    pairs = pd.DataFrame({"key": labels.index, "label": labels[target].to_numpy()})
    labels = labels[~(labels.index.isin(own.ids) & pairs.duplicated().to_numpy())]
    several = labels.index.duplicated(keep=False)
    ambiguous = labels.index[several].nunique()
    labels = labels[~several]
    rows = own.rows[own.rows["key"].isin(labels.index)]
    waiting = len(own.rows) - len(rows) - ambiguous
    labels = labels.loc[rows["key"]].set_axis(rows.index)
    return Labelled(rows, labels, waiting, ambiguous, own.classes)


def labelled_batches(params: Params, notes: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name of each batch, and its rows that have a target."""
    settings = params.data
    try:
        paths = dataset.batches(settings.model_copy(update={"through": None}))
    except UserError:
        return
    for path in paths:
        try:
            frame = tables.read([path], settings)
        except UserError as error:
            notes.append(f"no labels of {path.stem}: {error}")
            continue
        if settings.unlabelled in ("drop", "refuse"):
            frame = frame[frame[settings.target].notna()]
        else:
            frame = data.labelled(frame, params)
        if len(frame):
            yield path.stem, frame
