"""How far predicted probabilities are from what happens."""

import numpy as np


def calibration(truth: np.ndarray, predicted: np.ndarray, bins: int = 10):
    """Bins of about equal count: (n, 3) mean prediction, mean truth, rows; and their weighted gap.

    Equal predictions share a bin. The gap is the expected calibration error of Naeini et al. (2015)
    with these bins.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="left")
    rows = np.bincount(place)
    used = rows > 0
    means = [np.bincount(place, weights=values)[used] / rows[used] for values in (predicted, truth)]
    table = np.column_stack([*means, rows[used]])
    return table, float(np.average(np.abs(table[:, 0] - table[:, 1]), weights=table[:, 2]))
