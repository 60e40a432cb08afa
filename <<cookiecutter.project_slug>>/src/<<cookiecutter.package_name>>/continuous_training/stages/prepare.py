"""Data preparation, a stage: the labelled rows, split into those to fit on and those to judge on.

Each row gets the feature views, as they were known when its prediction is made. The newest `gate.holdout` days are held out; without a time column a random share (`split.test`) of
the newest batch. What the model makes of a row is in the model itself (features.py).
"""

import logging

import numpy as np
import pandas as pd

from ... import data
from ...experiment.column_types import Kinds, canonical
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Params, load
from .. import settings
from ..features import offline
from . import validate

log = logging.getLogger(__name__)


def split(
    frame: pd.DataFrame, newest: np.ndarray, params: Params, days: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to fit on and rows held out; `newest` (n,) marks those of the newest batch."""
    if params.data.time is not None:
        day = frame[params.data.time].dt.normalize()
        held = (day > day.max() - pd.Timedelta(days=days)).to_numpy()
    else:
        random = np.random.default_rng(params.seed).random(len(frame))
        held = newest & (random < params.split.test)
    if held.all() or not held.any():
        raise UserError(
            f"continuous_training.yaml: gate.holdout: {days} days leave no rows on a side"
        )
    return frame[~held], frame[held]


def run() -> None:
    params, gate = load(), settings.load().gate
    columns = validate.read(ROOT / validate.SCHEMA)
    kinds = Kinds({c: rules["kind"] for c, rules in columns.items() if c not in params.data.drop})
    kept = [params.data.target, *params.data.drop]
    paths = sorted((ROOT / "data/extracted").glob("*.parquet"))
    frames = [pd.read_parquet(path) for path in paths]
    frames = [canonical(f, Kinds(kinds | dict.fromkeys(kept, "as it is")), kept) for f in frames]
    frames = [
        data.labelled(frame, params) for frame in frames if frame[params.data.target].notna().any()
    ]
    frame = pd.concat(frames, ignore_index=True)
    store = offline.read(params.data)
    if store is not None:
        frame = store.add(frame)
    newest = np.arange(len(frame)) >= len(frame) - len(frames[-1])
    train, holdout = split(frame, newest, params, gate.holdout)
    folder = ROOT / "data/prepared"
    folder.mkdir(parents=True, exist_ok=True)
    train.to_parquet(folder / "train.parquet", index=False)
    holdout.to_parquet(folder / "holdout.parquet", index=False)
    log.info("prepare: %s rows to fit on, %s to judge on", f"{len(train):,}", f"{len(holdout):,}")
