"""The figures of the notebooks and of the evaluation: matplotlib figures, no state, no files."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import data
from .calibration import calibration
from .params import Params

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

COLORS = {"candidate": "#1f6feb", "champion": "#bf8700", "baseline": "#8c959f"}


def evaluation(model: "Pipeline", rows: pd.DataFrame, table: pd.DataFrame, params: Params):
    """The figures of one evaluation, by name: calibration, and segments where there are any."""
    X, y = data.xy(rows, params, any_classes=True)
    if params.task == "regression":
        predicted, truth, what = model.predict(X), y, params.data.target
    else:
        predicted, what = (
            model.predict_proba(X)[:, -1],
            f"{params.data.target} = {model.classes_[-1]}",
        )
        truth = (y == model.classes_[-1]).astype(float)
    figures = {"calibration": _calibration(truth, predicted, what)}
    if len(table) > table["model"].nunique():
        figures["segments"] = _segments(table, params.evaluate.metric)
    return figures


def _calibration(truth: np.ndarray, predicted: np.ndarray, what: str) -> Figure:
    points, gap = calibration(truth, predicted)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.axline((points[0, 0], points[0, 0]), slope=1, color=COLORS["baseline"], linestyle="--")
    axes.plot(points[:, 0], points[:, 1], marker="o", color=COLORS["candidate"])
    axes.set(xlabel="predicted (mean of a tenth of the rows)", ylabel="observed (mean)")
    axes.set_title(f"{_text(what)}: calibration, mean gap {gap:.3g}")
    axes.grid(alpha=0.3)
    return figure


def _segments(table: pd.DataFrame, metric: str) -> Figure:
    table = table.assign(segment=table["segment"].map(_text))
    names = list(table["segment"].unique())[::-1]
    figure = Figure(figsize=(7, 1.5 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    for model, part in table.groupby("model", sort=False):
        values = part.set_index("segment")[metric].reindex(names)
        color = COLORS[str(model)]
        face = "none" if model == "champion" else color
        axes.plot(values, names, "o", ms=7, color=color, markerfacecolor=face, label=model)
    axes.set(xlabel=metric, title=f"{metric} by segment")
    axes.legend(loc="best")
    axes.grid(alpha=0.3)
    return figure


def target_by(frame: pd.DataFrame, column: str, params: Params) -> Figure:
    """The target's mean (share of the last class) by value of a column: its mean by day for a
    date, by tenth of the rows for a number, the 20 largest groups for text."""
    y = frame[params.data.target]
    if params.task == "regression":
        target, what = y.astype(float), f"mean {params.data.target}"
    else:
        last = sorted(y.dropna().unique(), key=str)[-1]
        target = (y == last).astype(float).where(y.notna())
        what = f"share of {params.data.target} {last}"
    values = frame[column]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    if pd.api.types.is_datetime64_dtype(values.dtype):
        axes.plot(target.groupby(values.dt.floor("D")).mean(), color=COLORS["candidate"])
        figure.autofmt_xdate()
    elif pd.api.types.is_numeric_dtype(values.dtype):
        bins = pd.qcut(values, 10, duplicates="drop")
        means = target.groupby(values.groupby(bins, observed=True).transform("mean")).mean()
        axes.plot(means, marker="o", color=COLORS["candidate"])
    else:
        means = target.groupby(values).mean()[values.value_counts().index[:20]].sort_values()
        axes.barh(means.index.map(_text), means, color=COLORS["candidate"])
    axes.set(title=_text(f"{what} by {column}"))
    axes.grid(alpha=0.3)
    return figure


def _text(value: object) -> str:
    """As it is: matplotlib would read what stands between two dollar signs as a formula."""
    return str(value).replace("$", r"\$")
