"""Data extraction, a stage: each batch up to `data.through`, with types, into data/extracted.

A batch that cannot be read stops the pipeline ; the pipeline then quarantines it.
"""

import logging
import shutil

import pandas as pd

from ...experiment import dataset, tables
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Data, load
from .validate import skew

log = logging.getLogger(__name__)


def extract(path, settings: Data) -> pd.DataFrame:
    """One batch as tables.read gives it; columns of `data.drop` stay, for older models may use them."""
    frame = tables.read([path], settings)
    for column in settings.drop:  # as they are: words and numbers in one column are no Parquet
        if pd.api.types.infer_dtype(frame[column]).startswith("mixed"):
            frame[column] = frame[column].astype("str")
    return frame


def run() -> None:
    settings = load().data
    folder = ROOT / "data/extracted"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths, broken, rows = dataset.batches(settings), {}, 0
    for path in paths:
        try:
            frame = extract(path, settings)
        except UserError as error:
            broken[path.stem] = [str(error)]
            continue
        rows += len(frame)
        frame.to_parquet(folder / f"{path.stem}.parquet", index=False)
    if broken:
        raise skew(broken, of=len(paths))
    log.info("extract: %s rows of %d batches", f"{rows:,}", len(paths))
