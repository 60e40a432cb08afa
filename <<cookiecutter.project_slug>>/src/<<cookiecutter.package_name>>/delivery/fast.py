"""Scoring without DataFrames: the default form of model.py on plain arrays, a hundred times faster a row.

The form is that of `build`: Tidy, ordinal codes and numbers, histogram gradient boosting. `compile_model`
returns None for any other, and for one whose answers differ from scikit-learn's: it reads attributes
that are private there. This module can be deleted; then all models are scored the generic way.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from ..evaluate import predict
from ..features import MISSING, Tidy

ROWS = 64  # above this many the estimator's own loop is faster than walking the trees in numpy
START = datetime(2000, 1, 1)
# Rows in the order of the signature: numbers, words, dates, None -> probabilities (n, classes) or values.
Scorer = Callable[[Sequence[tuple]], np.ndarray]

log = logging.getLogger(__name__)


class Trees:
    """All trees of a boosting as flat arrays (nodes,); every leaf is its own child."""

    def __init__(self, estimator: Any, inputs: int) -> None:
        self.inputs, self.loss = inputs, estimator._loss
        self.baseline = np.asarray(estimator._baseline_prediction, dtype=float).reshape(1, -1)
        trees = [tree.nodes for stage in estimator._predictors for tree in stage]
        self.outputs = len(estimator._predictors[0])
        self.depth = max(int(nodes["depth"].max()) for nodes in trees)
        sizes = np.array([len(nodes) for nodes in trees])
        self.roots = np.cumsum(sizes) - sizes
        nodes = np.concatenate(trees)
        if nodes["is_categorical"].any():
            raise ValueError("it splits by categories")
        offset, place = np.repeat(self.roots, sizes), np.arange(len(nodes))
        leaf = nodes["is_leaf"].astype(bool)
        children = [np.where(leaf, place, nodes[side] + offset) for side in ("left", "right")]
        self.children = np.column_stack(children).ravel()
        # A row is given twice: missing values as +inf, then as -inf. A node looks where its own rule
        # for missing ones comes out right.
        self.column = nodes["feature_idx"] + inputs * nodes["missing_go_to_left"].astype(int)
        self.threshold = np.minimum(nodes["num_threshold"], np.finfo(float).max)
        self.value = nodes["value"]

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """What the loss makes predictions of (n, outputs), for inputs (n, inputs)."""
        count, missing = len(rows), np.isnan(rows)
        twice = np.hstack(
            [np.where(missing, np.inf, rows), np.where(missing, -np.inf, rows)]
        ).ravel()
        node = np.tile(self.roots, count)
        start = np.repeat(np.arange(count) * 2 * self.inputs, len(self.roots))
        for _ in range(self.depth):
            right = twice[start + self.column[node]] > self.threshold[node]
            node = self.children[2 * node + right]
        values = self.value[node].reshape(count, -1, self.outputs)
        return values.sum(axis=1) + self.baseline


class Row:
    """From a row to the numbers that the estimator takes: Tidy and the encoder in one."""

    def __init__(self, tidy: Tidy, encode: Any) -> None:
        (_, codes, text), (_, _, numbers) = encode.transformers_[:2]
        place = {name: k for k, name in enumerate(tidy.kinds)}
        self.time = None if tidy.time is None else place.get(tidy.time)
        self.steps: list[tuple[str, int, dict[str, float]]] = [
            ("text", place[name], {word: float(k) for k, word in enumerate(known)})
            for name, known in zip(text, codes.categories_ if text else [], strict=True)
        ]
        dates = [name for name, kind in tidy.kinds.items() if kind == "date"]
        parts = {f"{d}_{part}": (part, d) for d in dates for part in ("hour", "weekday", "days")}
        for name in numbers:
            part, source = parts.get(name, ("number", name))
            self.steps.append(("zero" if name in tidy.empty_ else part, place[source], {}))

    def __call__(self, row: tuple) -> list[float]:
        found = []
        for part, place, codes in self.steps:
            value = row[place]
            if part == "number":
                found.append(np.nan if value is None else value)
            elif part == "text":
                found.append(codes.get(MISSING if value is None else value, -1.0))
            elif part == "zero":
                found.append(0.0)
            elif value is None:
                found.append(np.nan)
            elif part == "hour":
                found.append(value.hour + value.minute / 60)
            elif part == "weekday":
                found.append(value.weekday())
            else:
                start = START if self.time is None else row[self.time]
                found.append(np.nan if start is None else (start - value).total_seconds() / 86400)
        return found


def compiled(model: Pipeline) -> Scorer:
    """The scorer of a model of the default form; raises ValueError for any other."""
    steps = dict(model.steps)
    boosting = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    if list(steps) != ["tidy", "encode", "estimator"] or type(steps["tidy"]) is not Tidy:
        raise ValueError("its steps are not those of model.py")
    if not isinstance(steps["estimator"], boosting):
        raise ValueError(f"{type(steps['estimator']).__name__} is no histogram gradient boosting")
    row, estimator = Row(steps["tidy"], steps["encode"]), steps["estimator"]
    trees, several = Trees(estimator, len(row.steps)), hasattr(estimator, "classes_")

    def score(rows: Sequence[tuple]) -> np.ndarray:
        inputs = np.array([row(given) for given in rows], dtype=float)
        if len(rows) > ROWS:
            return estimator.predict_proba(inputs) if several else estimator.predict(inputs)
        raw = trees.raw(inputs)
        if several:
            return trees.loss.predict_proba(raw if trees.outputs > 1 else raw[:, 0])
        return trees.loss.link.inverse(raw[:, 0])

    return score


def checked(model: Pipeline, example: pd.DataFrame, logged: np.ndarray | None = None) -> Scorer:
    """`compiled`, and compared with the model's own answers on the example, its gaps and odd words.

    Raises ValueError if an answer is off by more than 1e-9: another release of scikit-learn, say.
    """
    score, random = compiled(model), np.random.default_rng(0)
    text = [c for c, kind in model.named_steps["tidy"].kinds.items() if kind == "text"]
    odd = example.assign(**{column: "no such word" for column in text})
    gaps = example.mask(random.random(example.shape) < 0.3)
    for frame in (example, odd, gaps, example.sample(frac=1, random_state=0)):
        many = pd.concat([frame] * (ROWS // len(frame) + 1))
        for part in (frame, frame.head(1), many):
            expected = predict(model, part)
            if not np.allclose(score(records(part)), expected, rtol=0, atol=1e-9):
                raise ValueError("its answers differ from scikit-learn's")
    return score


def records(frame: pd.DataFrame) -> list[tuple]:
    """The rows as a request gives them: None for what is missing, dates of Python."""
    columns = []
    for name in frame:
        values, gone = frame[name], frame[name].isna()
        is_date = pd.api.types.is_datetime64_dtype(values.dtype)
        given = list(values.dt.to_pydatetime()) if is_date else values.tolist()
        columns.append([None if g else v for v, g in zip(given, gone, strict=True)])
    return list(zip(*columns, strict=True))
