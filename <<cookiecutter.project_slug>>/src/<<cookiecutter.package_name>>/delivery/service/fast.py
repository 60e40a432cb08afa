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

from ...experiment.column_types import MISSING
from ...experiment.evaluate import predict
from ...experiment.tidy import Tidy

ROWS = 200  # above this many the estimator's own loop is faster than walking the trees in numpy
START = datetime(2000, 1, 1)
# Rows in the order of the signature: numbers, words, dates, None -> probabilities (n, classes) or values.
Scorer = Callable[[Sequence[tuple]], np.ndarray]

log = logging.getLogger(__name__)


class Trees:
    """All trees of a boosting as flat arrays (nodes,), deepest tree first; a leaf is its own child."""

    def __init__(self, estimator: Any, inputs: int) -> None:
        self.inputs, self.loss = inputs, estimator._loss
        self.baseline = np.asarray(estimator._baseline_prediction, dtype=float).reshape(1, -1)
        trees = [(tree.nodes, k) for stage in estimator._predictors for k, tree in enumerate(stage)]
        trees.sort(key=lambda tree: -int(tree[0]["depth"].max()))
        depths = np.array([int(nodes["depth"].max()) for nodes, _ in trees])
        self.active = [int((depths > level).sum()) for level in range(depths[0])]
        self.outputs = np.eye(len(estimator._predictors[0]))[[output for _, output in trees]]
        sizes = np.array([len(nodes) for nodes, _ in trees])
        roots = np.cumsum(sizes) - sizes
        nodes = np.concatenate([nodes for nodes, _ in trees])
        if nodes["is_categorical"].any():
            raise ValueError("it splits by categories")
        offset, place = np.repeat(roots, sizes), np.arange(len(nodes))
        leaf = nodes["is_leaf"].astype(bool)
        children = [np.where(leaf, place, nodes[side] + offset) for side in ("left", "right")]
        # Nodes are counted by two, so that a node's children are at its own number and the next.
        self.roots, self.children = 2 * roots, 2 * np.column_stack(children).ravel()
        # A row is given twice: missing values as +inf, then as -inf. A node looks where its own rule
        # for missing ones comes out right.
        column = nodes["feature_idx"] + inputs * nodes["missing_go_to_left"].astype(int)
        self.column = column.repeat(2)
        self.threshold = np.minimum(nodes["num_threshold"], np.finfo(float).max).repeat(2)
        self.value = nodes["value"].repeat(2)

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """What the loss makes predictions of (n, outputs), for inputs (n, inputs)."""
        count, missing = len(rows), np.isnan(rows)
        twice = np.hstack(
            [np.where(missing, np.inf, rows), np.where(missing, -np.inf, rows)]
        ).ravel()
        node = self.roots.repeat(count)  # where each row is in each tree
        start = np.tile(np.arange(count) * 2 * self.inputs, len(self.roots)) if count > 1 else None
        for active in self.active:  # trees that are so deep
            here = node[: active * count]
            place = self.column.take(here, mode="clip")  # that is: without a look at the bounds
            if start is not None:
                place += start[: len(here)]
            here += twice.take(place, mode="clip") > self.threshold.take(here, mode="clip")
            here[:] = self.children.take(here, mode="clip")
        return self.value.take(node).reshape(-1, count).T @ self.outputs + self.baseline


class Inputs:
    """From rows to the numbers (n, inputs) that the estimator takes: Tidy and the encoder in one."""

    def __init__(self, tidy: Tidy, encode: Any) -> None:
        (_, codes, text), (_, _, numbers) = encode.transformers_[:2]
        place = {name: k for k, name in enumerate(tidy.kinds)}
        self.time = None if tidy.time is None else place.get(tidy.time)
        self.steps: list[tuple[str, int, dict[Any, float]]] = []
        for name, known in zip(text, codes.categories_ if text else [], strict=True):
            found = {word: float(k) for k, word in enumerate(known)}
            self.steps.append(("text", place[name], found | {None: found.get(MISSING, -1.0)}))
        dates = [name for name, kind in tidy.kinds.items() if kind == "date"]
        parts = {f"{d}_{part}": (part, d) for d in dates for part in ("hour", "weekday", "days")}
        for name in numbers:
            part, source = parts.get(name, ("number", name))
            self.steps.append(("zero" if name in tidy.empty_ else part, place[source], {}))

    def __call__(self, rows: Sequence[tuple]) -> np.ndarray:
        columns, found = list(zip(*rows, strict=True)), list[Sequence[float | None]]()
        for part, place, codes in self.steps:
            values = columns[place]
            if part == "number":
                found.append(values)
            elif part == "text":
                found.append([codes.get(word, -1.0) for word in values])
            elif part == "zero":
                found.append([0.0] * len(rows))
            elif part == "hour":
                found.append([v and v.hour + v.minute / 60 for v in values])
            elif part == "weekday":
                found.append([v and v.weekday() for v in values])
            else:
                starts = [START] * len(rows) if self.time is None else columns[self.time]
                found.append(
                    [
                        s and v and (s - v).total_seconds() / 86400
                        for s, v in zip(starts, values, strict=True)
                    ]
                )
        return np.array(found, dtype=float).T  # of None it makes nan


def compiled(model: Pipeline) -> Scorer:
    """The scorer of a model of the default form; raises ValueError for any other."""
    steps = dict(model.steps)
    boosting = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    if list(steps) != ["tidy", "encode", "estimator"] or type(steps["tidy"]) is not Tidy:
        raise ValueError("its steps are not those of model.py")
    if not isinstance(steps["estimator"], boosting):
        raise ValueError(f"{type(steps['estimator']).__name__} is no histogram gradient boosting")
    take, estimator = Inputs(steps["tidy"], steps["encode"]), steps["estimator"]
    trees, several = Trees(estimator, len(take.steps)), hasattr(estimator, "classes_")

    def score(rows: Sequence[tuple]) -> np.ndarray:
        inputs = take(rows)
        raw = trees.raw(inputs) if len(rows) <= ROWS else estimator._raw_predict(inputs)
        if several:
            return trees.loss.predict_proba(raw if raw.shape[1] > 1 else raw[:, 0])
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
