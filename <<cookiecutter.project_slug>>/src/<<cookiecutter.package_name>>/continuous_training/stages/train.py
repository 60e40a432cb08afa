"""Training, a stage: fit the challenger on data/prepared/train.parquet, into models/challenger."""

import logging
import shutil

import mlflow
import pandas as pd

from ...experiment import tracking
from ...experiment.column_types import Kinds
from ...experiment.params import ROOT, load
from ...experiment.registry import save_options
from ...experiment.train import fit

FOLDER = "models/challenger"

log = logging.getLogger(__name__)


def run() -> None:
    params = load()
    tracking.quiet()
    train = pd.read_parquet(ROOT / "data/prepared/train.parquet")
    model = fit(train, params)
    folder = ROOT / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    kinds = Kinds(model.named_steps["tidy"].kinds)
    mlflow.sklearn.save_model(model, str(folder), **save_options(model, kinds, params))
    log.info("train: fitted on %s rows", f"{len(train):,}")
