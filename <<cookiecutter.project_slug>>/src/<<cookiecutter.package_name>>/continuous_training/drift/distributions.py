"""Distributions: how a column is cut into bins, and how far apart two vectors of counts are.

The reference cuts each column, once; from then on a batch is a vector of counts for each column, and all
measures come from two of those. A column has drifted if PSI or KS is above its limit, beyond sampling
noise: the verdict means the same for a hundred rows and for a million.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ncx2

from ...experiment.column_types import Kinds, canonical
from ..settings import Drift

NUMBER_BINS = 32  # of a numeric column
WORD_BINS = 30  # words that have a bin of their own
FALSE_ALARMS = 0.001  # how often a column of an unchanged population may exceed its bound
SMIRNOV_C = 1.95  # Smirnov's constant for that share


class Bins(NamedTuple):
    """How a column is cut: numbers at edges (a value on an edge is below it), or into words.

    The counts are those of the bins, or of the words and all other words; the last is that of missing values.
    """

    kind: str
    at: np.ndarray | pd.Index


def bins(reference: pd.DataFrame, columns: Kinds) -> dict[str, Bins]:
    """The bins of each column: of about equal count for numbers, the most frequent words for text."""
    cuts = {}
    for column, kind in columns.items():
        values = canonical(reference, Kinds({column: kind}))[column]
        if kind == "text":
            at = values.value_counts().index[:WORD_BINS]
        else:
            known = values.dropna().to_numpy(np.float64)
            shares = np.linspace(0, 1, NUMBER_BINS + 1)[1:-1]
            quantiles = np.quantile(known, shares, method="inverted_cdf") if len(known) else known
            edges, times = np.unique(quantiles, return_counts=True)
            # A value that is many quantiles gets a bin of its own, by an edge just below it.
            at = np.union1d(edges, np.nextafter(edges[times > 1], -np.inf))
        cuts[column] = Bins(kind, at)
    return cuts


def count(frame: pd.DataFrame, bins: dict[str, Bins]) -> dict[str, np.ndarray]:
    """How many rows of a frame are in each bin (bins + 1,), by column."""
    counted = {}
    for column, cut in bins.items():
        values = canonical(frame, Kinds({column: cut.kind}))[column]
        missing = values.isna().sum()
        if cut.kind == "text":
            counts = values.value_counts().reindex(cut.at, fill_value=0).to_numpy()
            counts = np.append(counts, len(values) - missing - counts.sum())
        else:
            places = np.searchsorted(cut.at, values.to_numpy(np.float64))
            counts = np.bincount(places, minlength=len(cut.at) + 1)
            counts[-1] -= missing  # which sort after all numbers
        counted[column] = np.append(counts, missing)
    return counted


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
    """What PSI exceeds with the probability FALSE_ALARMS if that of the populations is `limit`.

    PSI is about 1/n + 1/m times a chi-squared variable with a degree of freedom less than bins (Yurdakul
    2018, Statistical Properties of the Population Stability Index), here the noncentral one.
    """
    scale = 1 / reference.sum() + 1 / batch.sum()
    freedom = max(np.count_nonzero(reference + batch) - 1, 1)
    return float(scale * ncx2.ppf(1 - FALSE_ALARMS, freedom, limit / scale))


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


def compare(reference: np.ndarray, batch: np.ndarray, kind: str, limits: Drift) -> dict[str, Any]:
    """`{psi, psi_bound, ks, ks_bound, chi2, drifted}` of a column's counts; KS is None for words.

    By chance KS exceeds its limit by c sqrt(1/n + 1/m) at most (Smirnov; Knuth, TAOCP 2, 3.3.1).
    """
    index, index_bound = psi(reference, batch), psi_bound(reference, batch, limits.psi)
    distance, bound = None if kind == "text" else ks(reference, batch), None
    drifted = index > index_bound
    if distance is not None:
        noise = SMIRNOV_C * np.sqrt(sum(1 / side[:-1].sum() for side in (reference, batch)))
        bound = limits.ks + float(noise)
        drifted |= distance > bound
    return {
        "psi": index,
        "psi_bound": index_bound,
        "ks": distance,
        "ks_bound": bound,
        "chi2": chi2(reference, batch),
        "drifted": bool(drifted),
    }
