"""Data: which rows have a label, which columns the model may see, the target, the split. YOURS.

experiment/tables.py reads the files of `data.source`, CSV or Parquet, a batch each: numbers and
booleans as float64, text as str, dates as datetime64. Rows from elsewhere, such as a database, become
a batch by a script of yours that writes such a file.
"""

import numpy as np
import pandas as pd

from .experiment.column_types import target_values
from .experiment.errors import UserError
from .experiment.params import Params


def labelled(frame: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows that have a target, or all rows with `data.unlabelled` as the missing label."""
    data, missing = params.data, frame[params.data.target].isna()
    if not missing.any() or data.unlabelled == "drop":
        frame = frame[~missing]
    elif data.unlabelled == "refuse":
        raise UserError(f"{missing.sum()} rows have no {data.target!r} (data.unlabelled: refuse)")
    else:
        target = frame[data.target].astype(object).where(~missing, data.unlabelled)
        frame = frame.assign(**{data.target: target})
    if frame.empty:
        raise UserError(f"column {data.target!r} (data.target) is empty in every row")
    return frame


def xy(
    frame: pd.DataFrame, params: Params, any_classes: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """The features (every column that params.yaml does not set apart) and the target, (n,).

    Raises UserError if there is nothing to learn; `any_classes` allows rows of one class.
    """
    data = params.data
    X = frame.drop(columns=[c for c in [data.target, data.id, *data.drop] if c in frame])
    if X.columns.empty:
        raise UserError("params.yaml: data.drop leaves no column to learn from")
    return X, target_values(frame[data.target], params.task, any_classes)


def split(frame: pd.DataFrame, params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test rows: the test is the newest share, or a random one without a time column."""
    if params.data.time is None:
        test = np.random.default_rng(params.seed).random(len(frame)) < params.split.test
    else:
        time = frame[params.data.time]
        test = time > time.quantile(1 - params.split.test, interpolation="lower")
    if test.all() or not test.any():
        raise UserError("params.yaml: split.test leaves no rows on one side: use more data")
    return frame[~test], frame[test]
