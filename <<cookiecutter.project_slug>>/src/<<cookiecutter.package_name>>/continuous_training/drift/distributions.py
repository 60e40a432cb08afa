"""Distributions: how a column is cut into bins, and how far two vectors of counts are apart.

The reference cuts each column, once; from then on a batch is a vector of counts a column, and all
measures come from two of those. A column has drifted if PSI or KS is above its limit by more than chance
explains in so many rows: the verdict means the same for a hundred rows and for a million.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ...experiment.column_types import Kinds, canonical
from ..settings import Drift

NUMBERS, WORDS = 32, 30  # bins of a numeric column, words that have a bin of their own
Z, C = 3.09, 1.95  # the normal quantile and Smirnov's c for one false alarm in a thousand


class Bins(NamedTuple):
    """How a column is cut: numbers at edges (a value on an edge is below it), or into words.

    The counts are those of the bins, or of the words and all other ones; last, of missing values.
    """

    kind: str
    at: np.ndarray | pd.Index


def bins(reference: pd.DataFrame, columns: Kinds) -> dict[str, Bins]:
    """The bins of each column: of about equal count for numbers, the most frequent words for text."""
    found = {}
    for column, kind in columns.items():
        values = canonical(reference, Kinds({column: kind}))[column]
        if kind == "text":
            at = values.value_counts().index[:WORDS]
        else:
            known = values.dropna().to_numpy(np.float64)
            shares = np.linspace(0, 1, NUMBERS + 1)[1:-1]
            quantiles = np.quantile(known, shares, method="inverted_cdf") if len(known) else known
            edges, times = np.unique(quantiles, return_counts=True)
            # A value that is many quantiles gets a bin of its own, by an edge just below it.
            at = np.union1d(edges, np.nextafter(edges[times > 1], -np.inf))
        found[column] = Bins(kind, at)
    return found


def count(frame: pd.DataFrame, bins: dict[str, Bins]) -> dict[str, np.ndarray]:
    """How many rows of a frame are in each bin, by column."""
    found = {}
    for column, its in bins.items():
        values = canonical(frame, Kinds({column: its.kind}))[column]
        missing = values.isna().sum()
        if its.kind == "text":
            counts = values.value_counts().reindex(its.at, fill_value=0).to_numpy()
            counts = np.append(counts, len(values) - missing - counts.sum())
        else:
            places = np.searchsorted(its.at, values.to_numpy(np.float64))
            counts = np.bincount(places, minlength=len(its.at) + 1)
            counts[-1] -= missing  # which sort after all numbers
        found[column] = np.append(counts, missing)
    return found


def psi(reference: np.ndarray, batch: np.ndarray) -> float:
    """The population stability index of two vectors of counts (Siddiqi 2006, Credit Risk Scorecards).

    Each side gets half a row a bin more, spread as both together are, so that no share is zero.
    """
    both = reference + batch
    used, extra = both > 0, np.count_nonzero(both) / 2
    sides = [(side + extra * both / both.sum())[used] for side in (reference, batch)]
    p, q = (side / side.sum() for side in sides)
    return float(np.sum((q - p) * np.log(q / p)))


def psi_bound(reference: np.ndarray, batch: np.ndarray, limit: float) -> float:
    """What PSI exceeds once in a thousand times if that of the populations is `limit`.

    It is about 1/n + 1/m times a chi-squared variable with a degree of freedom less than bins (Yurdakul
    2018, Statistical Properties of the Population Stability Index), here the noncentral one; the
    quantile is that of Abdel-Aty (1954, Biometrika 41, 538).
    """
    scale = 1 / reference.sum() + 1 / batch.sum()
    free, shift = max(np.count_nonzero(reference + batch) - 1, 1), limit / scale
    spread = 2 / 9 * (free + 2 * shift) / (free + shift) ** 2
    return float(scale * (free + shift) * (1 - spread + Z * np.sqrt(spread)) ** 3)


def ks(reference: np.ndarray, batch: np.ndarray) -> float | None:
    """The Kolmogorov-Smirnov distance of what is not missing, at the edges of the bins.

    Within a bin it can be larger, by its share at most. None if a side has no value.
    """
    sides = reference[:-1], batch[:-1]
    if not all(side.any() for side in sides):
        return None
    p, q = (np.cumsum(side) / side.sum() for side in sides)
    return float(np.abs(p - q).max())


def chi2(reference: np.ndarray, batch: np.ndarray) -> float:
    """The chi-squared statistic of two binned samples (Numerical Recipes, 14.3); grows with the rows."""
    reference, batch = (side[reference + batch > 0] for side in (reference, batch))
    ratio = np.sqrt(batch.sum() / reference.sum())
    return float(np.sum((reference * ratio - batch / ratio) ** 2 / (reference + batch)))


def compare(reference: np.ndarray, batch: np.ndarray, kind: str, limits: Drift) -> dict:
    """The measures of a column, and whether it has drifted; `ks` is None for words.

    KS exceeds its limit by chance by c sqrt(1/n + 1/m) at most (Smirnov; Knuth, TAOCP 2, 3.3.1).
    """
    value, distance = psi(reference, batch), None if kind == "text" else ks(reference, batch)
    drifted = value > psi_bound(reference, batch, limits.psi)
    if distance is not None:
        known = [side[:-1].sum() for side in (reference, batch)]
        drifted |= distance > limits.ks + C * np.sqrt(1 / known[0] + 1 / known[1])
    measured = {"psi": value, "ks": distance, "chi2": chi2(reference, batch)}
    return measured | {"drifted": bool(drifted)}
