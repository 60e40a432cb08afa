"""The rows to learn from and to evaluate on: those with a target, with their feature views."""

import pandas as pd

from ..data import labelled
from . import dataset, floors, tables
from .params import Params


def load(params: Params, batch: str | None = None) -> pd.DataFrame:
    """The rows that have a target, of all batches or of one, with the columns of the feature views."""
    if batch is None:
        frame = tables.read(dataset.batches(params.data), params.data)
        store = floors.feature_store(params.data, frame)
    else:
        frame = tables.read([dataset.batch(params.data, batch)], params.data)
        store = floors.feature_store(params.data)
    return labelled(frame if store is None else store.add(frame), params)
