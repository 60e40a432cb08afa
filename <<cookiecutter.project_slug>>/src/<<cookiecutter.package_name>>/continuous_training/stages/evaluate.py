"""Model evaluation, a stage: the challenger against the baseline, on the rows held out.

It writes the report and the plots into reports/challenger, and the metrics, flat, into
reports/metrics.json (`dvc metrics diff` compares them between commits). The gate compares with the
champion, for that is a matter of the registry.
"""

import logging

import pandas as pd

from ...experiment import plots, reports
from ...experiment.evaluate import baseline, compare, report
from ...experiment.params import ROOT, load
from ...experiment.registry import read_model
from .train import FOLDER

log = logging.getLogger(__name__)


def run() -> None:
    params = load()
    train = pd.read_parquet(ROOT / "data/prepared/train.parquet")
    holdout = pd.read_parquet(ROOT / "data/prepared/holdout.parquet")
    model = read_model(ROOT / FOLDER, params).model
    table = compare({"candidate": model, "baseline": baseline(train, params)}, holdout, params)
    written = report(table, holdout, "held-out", params)
    reports.write_json("challenger/evaluation.json", written)
    for name, figure in plots.evaluation(model, holdout, table, params).items():
        figure.savefig(ROOT / f"reports/challenger/{name}.png", dpi=120)
    own = table[(table["model"] == "candidate") & (table["segment"] == "all")].iloc[0].iloc[3:]
    metrics = {name: float(value) for name, value in own.dropna().items()}
    reports.write_json("metrics.json", metrics)
    log.info("evaluate: %s %.4f", params.evaluate.metric, own[params.evaluate.metric])
