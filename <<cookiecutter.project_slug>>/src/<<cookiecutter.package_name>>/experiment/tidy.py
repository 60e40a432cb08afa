"""The first step of every model: `derive` of features.py on rows in canonical form.

It is stored with the model, so a served row gets its features as the training rows did.
"""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import features
from .column_types import MISSING, Kinds, canonical


class Tidy(TransformerMixin, BaseEstimator):
    """Raw columns in, those of `derive` out, none all NaN."""

    def __init__(self, kinds: dict[str, str], time: str | None = None):
        self.kinds = kinds
        self.time = time

    def fit(self, X: pd.DataFrame, y=None) -> "Tidy":
        """Remember which derived columns have no value at all."""
        frame = self._derived(X)
        # A column without a single value in the fitted rows stops scikit-learn's boosting.
        self.empty_ = [c for c in frame if frame[c].dtype == np.float64 and frame[c].isna().all()]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The derived columns: numbers as float64, words as object, a missing word as MISSING."""
        check_is_fitted(self)
        return self._derived(X).assign(**dict.fromkeys(self.empty_, 0.0))

    def _derived(self, X: pd.DataFrame) -> pd.DataFrame:
        frame = features.derive(canonical(X, Kinds(self.kinds)), self.time)
        text = [c for c, dtype in frame.dtypes.items() if dtype != np.float64]
        return frame.assign(**{c: frame[c].fillna(MISSING).astype(object) for c in text})


# What a stored model names. Models of the template's version 0.1.0 look for Tidy in features.py.
TYPES = [f"{Tidy.__module__}.Tidy", f"{features.__name__}.Tidy"]
vars(features)["Tidy"] = Tidy
