"""The fast way to score the default form of model.py: its codes and trees on arrays, without scikit-learn.

The form is that of `build`: Tidy, ordinal codes and numbers, histogram gradient boosting. With the stock
`derive` of features.py a row never becomes a DataFrame. With a `derive` of your own it does, and
the codes and the trees are still computed on arrays. A model of another form is scored by scikit-learn,
and so is one whose answers differ here: this module reads attributes that are private in scikit-learn.
It can be deleted; then scikit-learn scores all models.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from ... import features
from ...experiment.column_types import MISSING, Kinds
from ...experiment.evaluate import predict
from ...experiment.tidy import Tidy
from .request_schema import frame

# SHA-256 of the source text of `derive` as the template ships it.
STOCK_DERIVE = (
    "28dc707f24e5c9b037c5847c87b5ff465601930a14307da7461d5dcf5daeb39b"  # pragma: allowlist secret
)
TREE_ROWS = 200  # for more rows the estimator's own loop is faster than walking the trees in numpy
AGE_START = datetime(2000, 1, 1)  # as in the stock `derive`, without a time column
UNKNOWN = -1  # the code of a word that training did not see
# Values of one column, or codes of its words, for the rows (n,).
Column = Sequence[float | None] | np.ndarray


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


def encoded(encode: ColumnTransformer) -> dict[str, dict[Any, float] | None]:
    """The estimator's inputs in order: a column of `derive`, and the codes of its words (None: a number).

    Raises ValueError if the encoder is not that of model.py.
    """
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=UNKNOWN)
    stock = [("text", str(codes)), ("number", "passthrough")]
    steps = [(name, str(step)) for name, step, _ in encode.transformers]
    if (steps, encode.remainder) != (stock, "drop"):
        raise ValueError("its encoder is not that of model.py")
    text, numbers = (columns for _, _, columns in encode.transformers)
    words = encode.named_transformers_["text"].categories_ if text else []
    columns: dict[str, dict[Any, float] | None] = {
        name: {word: float(code) for code, word in enumerate(known)}
        for name, known in zip(text, words, strict=True)
    }
    return columns | dict.fromkeys(numbers)


class StockInputs:
    """From rows to the numbers (n, inputs) that the estimator takes: the stock `derive` on arrays."""

    def __init__(self, tidy: Tidy, columns: dict[str, dict[Any, float] | None]) -> None:
        place = {name: k for k, name in enumerate(tidy.kinds)}
        dates = [name for name, kind in tidy.kinds.items() if kind == "date"]
        parts = {f"{d}_{part}": (part, d) for d in dates for part in ("hour", "weekday", "days")}
        self.time = None if tidy.time is None else place.get(tidy.time)
        self.steps: list[tuple[str, int, dict[Any, float]]] = []
        for name, codes in columns.items():
            if codes is not None:
                missing = {None: codes.get(MISSING, UNKNOWN)}
                self.steps.append(("text", place[name], codes | missing))
                continue
            part, source = parts.get(name, ("number", name))
            self.steps.append(("zero" if name in tidy.empty_ else part, place[source], {}))

    def __call__(self, rows: Sequence[tuple]) -> np.ndarray:
        given = list(zip(*rows, strict=True))
        columns = [self._column(given, *step) for step in self.steps]
        return np.array(columns, dtype=float).T  # None becomes NaN

    def _column(self, given: list[tuple], part: str, place: int, codes: dict[Any, float]) -> Column:
        values = given[place]
        if part == "number":
            return values
        if part == "text":
            return [codes.get(word, UNKNOWN) for word in values]
        if part == "zero":
            return [0.0] * len(values)
        if part == "hour":
            return [v and v.hour + v.minute / 60 for v in values]
        if part == "weekday":
            return [v and v.weekday() for v in values]
        starts = [AGE_START] * len(values) if self.time is None else given[self.time]
        pairs = zip(starts, values, strict=True)
        return [start and v and (start - v).total_seconds() / 86400 for start, v in pairs]


class DerivedInputs:
    """The same with a `derive` of the owner's, which gets the rows as a DataFrame, as it does in Tidy."""

    def __init__(self, tidy: Tidy, columns: dict[str, dict[Any, float] | None]) -> None:
        self.tidy, self.columns = tidy, columns

    def __call__(self, rows: Sequence[tuple]) -> np.ndarray:
        derived = features.derive(frame(rows, Kinds(self.tidy.kinds)), self.tidy.time)
        zeros = np.zeros(len(rows))
        columns = [
            zeros if name in self.tidy.empty_ else _codes(derived[name], codes)
            for name, codes in self.columns.items()
        ]
        return np.array(columns, dtype=float).T


def _codes(values: pd.Series, codes: dict[Any, float] | None) -> Column:
    """A derived column as the estimator takes it; a missing word is a word of its own, as in Tidy."""
    if codes is None:
        return values.to_numpy(np.float64)
    if values.dtype != np.float64:
        values = values.fillna(MISSING)
    return [codes.get(word, UNKNOWN) for word in values.tolist()]


def derive_is_stock() -> bool:
    """Whether `derive` of features.py is the one that the template ships."""
    try:
        source = inspect.getsource(features.derive.__code__)
    except (AttributeError, OSError):
        return False
    return hashlib.sha256(source.encode()).hexdigest() == STOCK_DERIVE


class FastScorer:
    """Scores rows as a model of the default form does; raises ValueError for a model of any other.

    Rows are in the order of the signature: numbers, words, dates of Python, None. The answers are
    probabilities (n, classes) or values (n,).
    """

    def __init__(self, model: Pipeline) -> None:
        steps = dict(model.steps)
        boosting = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
        if list(steps) != ["tidy", "encode", "estimator"] or type(steps["tidy"]) is not Tidy:
            raise ValueError("its steps are not those of model.py")
        tidy, encode, self.estimator = steps.values()
        if not isinstance(self.estimator, boosting):
            name = type(self.estimator).__name__
            raise ValueError(f"{name} is no histogram gradient boosting")
        columns = encoded(encode)
        self.on_arrays = derive_is_stock()
        inputs = StockInputs if self.on_arrays else DerivedInputs
        self.inputs: Callable[[Sequence[tuple]], np.ndarray] = inputs(tidy, columns)
        self.trees = Trees(self.estimator, len(columns))

    def __call__(self, rows: Sequence[tuple]) -> np.ndarray:
        inputs, loss = self.inputs(rows), self.trees.loss
        few = len(rows) <= TREE_ROWS
        raw = self.trees.raw(inputs) if few else self.estimator._raw_predict(inputs)
        if hasattr(self.estimator, "classes_"):
            return loss.predict_proba(raw if raw.shape[1] > 1 else raw[:, 0])
        return loss.link.inverse(raw[:, 0])


def checked(model: Pipeline, example: pd.DataFrame) -> FastScorer:
    """A scorer that gives the model's own answers on the example, also with gaps and unknown words.

    Raises ValueError if an answer is off by more than 1e-9: another release of scikit-learn, say.
    """
    score, random = FastScorer(model), np.random.default_rng(0)
    text = [c for c, kind in model.named_steps["tidy"].kinds.items() if kind == "text"]
    odd = example.assign(**{column: "no such word" for column in text})
    gaps = example.mask(random.random(example.shape) < 0.3)
    for rows in (example, odd, gaps, example.sample(frac=1, random_state=0)):
        many = pd.concat([rows] * (TREE_ROWS // len(rows) + 1))
        for part in (rows, rows.head(1), many):
            expected = predict(model, part)
            if not np.allclose(score(records(part)), expected, rtol=0, atol=1e-9):
                raise ValueError("its answers differ from scikit-learn's")
    return score


def records(rows: pd.DataFrame) -> list[tuple]:
    """The rows as a request gives them: None for what is missing, dates of Python."""
    columns = []
    for name in rows:
        values, missing = rows[name], rows[name].isna()
        is_date = pd.api.types.is_datetime64_dtype(values.dtype)
        given = list(values.dt.to_pydatetime()) if is_date else values.tolist()
        columns.append([None if gap else v for v, gap in zip(given, missing, strict=True)])
    return list(zip(*columns, strict=True))
