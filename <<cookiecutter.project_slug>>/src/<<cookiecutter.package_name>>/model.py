"""The model: which estimator, with which arguments, and which ones `tune` may try. YOURS."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from .experiment.column_types import kinds
from .experiment.errors import UserError
from .experiment.params import Params
from .experiment.tidy import Tidy

# What a stored model may hold beside scikit-learn's own types that skops knows. Loading refuses
# everything else; a new estimator of yours may need a line here or in params.yaml.
TRUSTED_TYPES = [
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]


def build(X: pd.DataFrame, params: Params) -> Pipeline:
    """An unfitted pipeline for the columns of X: tidy, encode words as codes, boost trees."""
    used = {column: kind for column, kind in kinds(X).items() if kind != "empty"}
    if not used:
        raise UserError("no column has a value to learn from: see data.drop in params.yaml")
    tidy = Tidy(used, params.data.time)
    columns = tidy.fit_transform(X.head(1000))
    text = [c for c in columns if columns[c].dtype != np.float64]
    numbers = [c for c in columns if c not in text]
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("text", codes, text), ("number", "passthrough", numbers)])
    return Pipeline([("tidy", tidy), ("encode", encode), ("estimator", estimator(params))])


def estimator(params: Params) -> BaseEstimator:
    """The estimator, with `model.arguments` of params.yaml."""
    arguments: dict[str, Any] = {"random_state": params.seed} | params.model.arguments
    kind = HistGradientBoostingClassifier
    if params.task == "regression":
        kind = HistGradientBoostingRegressor
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"params.yaml: model.arguments: {error}") from None


def candidates() -> dict[str, list]:
    """The values of `model.arguments` that `tune` draws its candidates from."""
    return {
        "learning_rate": [0.03, 0.05, 0.1, 0.2],
        "max_iter": [50, 100, 200],
        "max_leaf_nodes": [15, 31, 63],
        "min_samples_leaf": [20, 100, 300],
        "l2_regularization": [0.0, 1.0, 10.0],
    }
