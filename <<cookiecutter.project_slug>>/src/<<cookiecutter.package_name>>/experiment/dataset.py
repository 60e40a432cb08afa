"""The data set: the batches of `data.source`, and the digests by which data is known again.

A batch is one file; batches are in the order of their names. The step `data` checks and lists them.
"""

import glob
import hashlib
import importlib.util
import logging
from pathlib import Path

import pandas as pd

from ..data import labelled
from . import floors, tables
from .errors import UserError
from .params import ROOT, Data, Params, load

PACKAGE = __package__.partition(".")[0]

log = logging.getLogger(__name__)


def batches(data: Data) -> list[Path]:
    """The files of `data.source` up to the batch `data.through`, in the order of their names."""
    paths = sorted(
        (Path(p) for p in glob.glob(str(ROOT / data.source), recursive=True)), key=lambda p: p.stem
    )
    if not paths:
        raise UserError(
            f"params.yaml: data.source: no file matches {data.source}; run the step `data` for the"
            " example, or name a CSV or Parquet file of yours"
        )
    through = data.through
    chosen = [p for p in paths if through is None or p.stem[: len(through)] <= through]
    if not chosen:
        raise UserError(
            f"params.yaml: data.through: {through} is before the first batch, {paths[0].stem}"
            " (null: use all)"
        )
    return chosen


def batch(data: Data, name: str) -> Path:
    """The file of the batch called `name`, whether `data.through` reaches it or not."""
    named = [p for p in batches(data.model_copy(update={"through": None})) if p.stem == name]
    if not named:
        raise UserError(f"no batch of {data.source} is called {name}")
    return named[0]


def load_labelled(params: Params, batch_name: str | None = None) -> pd.DataFrame:
    """The rows that have a target, of all batches or of one, with the columns of the feature views."""
    if batch_name is None:
        frame = tables.read(batches(params.data), params.data)
        store = floors.feature_store(params.data, frame)
    else:
        frame = tables.read([batch(params.data, batch_name)], params.data)
        store = floors.feature_store(params.data)
    return labelled(frame if store is None else store.add(frame), params)


def digests(paths: list[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by name."""
    by_name = {}
    for path in paths:
        with path.open("rb") as file:
            by_name[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return by_name


def digest(paths: list[Path]) -> str:
    """SHA-256 over the names and contents of the batches: equal digest, equal data."""
    return combined(digests(paths))


def combined(by_name: dict[str, str]) -> str:
    """One digest of those of `digests`."""
    lines = (f"{name} {content}\n" for name, content in by_name.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def run() -> None:
    """The step: make the example if its batches are missing, then check and list what is there."""
    data = load().data
    missing = not glob.glob(str(ROOT / data.source), recursive=True)
    if missing and importlib.util.find_spec(f"{PACKAGE}.example"):
        from .. import example

        if data.source == example.SOURCE:
            example.write(ROOT / Path(data.source).parent)
    used = batches(data)
    for path in batches(data.model_copy(update={"through": None})):
        frame = tables.read([path], data)
        target = frame[data.target]
        facts = [f"{path.stem}: {len(frame):,} rows", f"{target.isna().mean():.1%} unlabelled"]
        if pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target.dropna()):
            facts.append(f"mean {data.target} {target.astype(float).mean():.3f}")
        if data.time is not None:
            facts.append(f"{frame[data.time].min()} to {frame[data.time].max()}")
        log.info("%s", ", ".join(facts) + ("" if path in used else " (after data.through)"))
    tables.read(used, data)
