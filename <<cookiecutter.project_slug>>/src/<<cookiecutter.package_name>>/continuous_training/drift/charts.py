"""Charts as bars, lines and dots, placed in percent of the plot, from the left and from the top.

charts.html.jinja draws them, stretched to the place that they have. A color is the name of a CSS
variable of the page.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .distributions import Bins


class Bar(NamedTuple):
    """A filled rectangle; all places of a chart are shares of its width and height, in percent."""

    left: float
    top: float
    width: float
    height: float
    color: str
    label: str = ""  # the tooltip
    opacity: float = 1


class Line(NamedTuple):
    """A line through points (x, y)."""

    points: list[tuple[float, float]]
    color: str
    dashes: str = "none"  # of SVG's stroke-dasharray, in pixels
    width: float = 1  # pixels


class Dot(NamedTuple):
    """A round mark."""

    x: float
    y: float
    color: str
    label: str = ""  # the tooltip


class Chart(NamedTuple):
    """What is drawn, the bars first; `first` and `last` are written below the ends."""

    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    first: str = ""
    last: str = ""
    dot_size: float = 7  # pixels


def trend(
    values: dict[str, float], batches: list[str], fitted: int, limit: float, highest: float
) -> Chart:
    """PSI by batch, up to `highest`, and its limit; shaded are the batches that the champion was fitted on."""
    step = 100 / len(batches)

    def y(value: float) -> float:
        return 95 - 83 * min(value / highest, 1)

    dots = [
        Dot(step * (batches.index(name) + 0.5), y(value), "new", f"{name}: PSI {value:.3f}")
        for name, value in values.items()
    ]
    lines = [
        Line([(0, y(limit)), (100, y(limit))], "alarm", dashes="4 3"),
        Line([(dot.x, dot.y) for dot in dots], "new", width=1.5),
    ]
    shade = Bar(0, 0, step * fitted, 100, "shade")
    return Chart([shade], lines, dots, batches[0], batches[-1], dot_size=min(7, 150 / len(batches)))


def share_bars(column: Bins, reference: np.ndarray, newest: np.ndarray) -> Chart:
    """The share of each bin that has rows: of the reference (wide bars) and of the newest rows (narrow).

    Both are counts (bins,) as `distributions.count` makes them.
    """
    used = np.flatnonzero(reference + newest)
    labels = bin_labels(column)
    names = [labels[place] for place in used]
    before = (reference / reference.sum())[used]
    now = (newest / newest.sum())[used]
    step = 100 / len(used)
    scale = 96 / max(before.max(), now.max())
    bars = []
    for color, shares, width in (("known", before, 0.9), ("new", now, 0.4)):
        for place, height in enumerate(scale * shares):
            label = f"{names[place]}: {now[place]:.1%} (reference: {before[place]:.1%})"
            left = step * (place + (1 - width) / 2)
            bars.append(Bar(left, 100 - height, step * width, height, color, label))
    return Chart(bars, first=names[0], last=names[-1])


def bin_labels(column: Bins) -> list[str]:
    """The names of a column's bins, in the order of their counts."""
    if column.kind == "text":
        return [*column.at, "other words", "missing"]
    # An edge just below another one is there to cut off the value of the other.
    above = [np.nextafter(edge, np.inf) for edge in column.at]
    ends = [
        f"below {value:.5g}" if value in column.at else f"up to {edge:.5g}"
        for edge, value in zip(column.at, above, strict=True)
    ]
    return [*ends, f"above {column.at[-1]:.5g}" if ends else "any", "missing"]
