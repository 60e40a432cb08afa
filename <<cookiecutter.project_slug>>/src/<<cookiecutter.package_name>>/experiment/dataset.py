"""The data set: the batches of `data.source`, and the digests by which data is known again.

A batch is one file; batches are in the order of their names.
"""

import glob
import hashlib
from pathlib import Path

from .errors import UserError
from .params import ROOT, Data


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


def left_out(data: Data) -> list[str]:
    """The names of the batches after `data.through`."""
    every = batches(data.model_copy(update={"through": None}))
    return [path.stem for path in every[len(batches(data)) :]]


def batch(data: Data, name: str) -> Path:
    """The file of the batch called `name`, whether `data.through` reaches it or not."""
    named = [p for p in batches(data.model_copy(update={"through": None})) if p.stem == name]
    if not named:
        raise UserError(f"no batch of {data.source} is called {name}")
    return named[0]


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
