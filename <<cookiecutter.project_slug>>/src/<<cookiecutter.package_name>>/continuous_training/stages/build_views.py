"""The feature views, a stage: their sums over all extracted rows, into data/feature_store.

That is the offline store, from which `prepare` joins the views to the rows.
"""

import logging
import shutil

import pandas as pd

from ...experiment.params import ROOT, load
from ..features import offline

log = logging.getLogger(__name__)


def run() -> None:
    paths = sorted((ROOT / "data/extracted").glob("*.parquet"))
    history = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    store = offline.offline(history, load().data)
    folder = ROOT / offline.FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if store is None:
        log.info("build_views: feature_views.py has no views for such data")
        return
    store.write(folder)
    log.info("build_views: %d feature views", len(store.views))
