"""Data extraction: the step `data` makes the example if it is missing, then checks and lists the batches."""

import glob
import importlib
import importlib.util
import logging
from pathlib import Path

import pandas as pd

from . import dataset, tables
from .cli import PACKAGE
from .params import ROOT, load

EXAMPLE = f"{PACKAGE}.example"

log = logging.getLogger(__name__)


def run() -> None:
    """The step: make the example if its batches are missing, then check and list what is there."""
    data = load().data
    missing = not glob.glob(str(ROOT / data.source), recursive=True)
    if missing and importlib.util.find_spec(EXAMPLE):
        example = importlib.import_module(EXAMPLE)
        if data.source == example.SOURCE:
            example.write(ROOT / Path(data.source).parent)
    used = dataset.batches(data)
    for path in dataset.batches(data.model_copy(update={"through": None})):
        frame = tables.read([path], data)
        target = frame[data.target]
        facts = [f"{path.stem}: {len(frame):,} rows", f"{target.isna().mean():.1%} unlabelled"]
        if pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target.dropna()):
            facts.append(f"mean {data.target} {target.astype(float).mean():.3f}")
        if data.time is not None:
            facts.append(f"{frame[data.time].min()} to {frame[data.time].max()}")
        log.info("%s", ", ".join(facts) + ("" if path in used else " (after data.through)"))
    tables.read(used, data)
