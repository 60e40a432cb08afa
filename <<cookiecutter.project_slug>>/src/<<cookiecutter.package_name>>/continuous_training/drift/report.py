"""The page reports/drift.html: one file without scripts, for a desk or a phone, by day or by night."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..settings import Drift
    from .distributions import Bins
    from .drift import Observed

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #59636e; --line: #d1d9e0; --shade: #8c959f33;
  --back: #fff; --known: #afb8c1; --new: #0969da; --alarm: #bc4c00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d;
  --back: #0d1117; --known: #656c76; --new: #58a6ff; --alarm: #f0883e } }
body { margin: 0 auto; padding: 1.5rem; max-width: 66rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
p { color: var(--dim); max-width: 46rem }
table { width: 100%; border-collapse: collapse }
th, td { padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); text-align: left }
tbody th { min-width: 9rem; overflow-wrap: anywhere }
thead th, .stable { color: var(--dim); font-weight: normal }
.number { text-align: right; font-variant-numeric: tabular-nums }
.alarm { color: var(--alarm); font-weight: 600; white-space: nowrap }
svg { display: block; width: 100%; min-width: 13rem }
text { fill: var(--dim); font-size: 9px }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .2em 0 .6em }
@media (max-width: 50rem) { thead { display: none } th, td { border: 0; padding: .15rem 0 }
  tr { display: grid; grid-template-columns: 1fr 1fr 1fr; border-top: 1px solid var(--line); padding: 1rem 0 }
  tbody th { grid-column: 1 / 3 } .chart { grid-column: 1 / 4 }
  .number { text-align: left } .number::before { content: attr(title) " "; color: var(--dim) } }
"""


def chart(marks: list[str], first: str, last: str) -> str:
    """An SVG of 200 x 50, with the names of what is at its ends below."""
    return (
        f'<svg viewBox="0 0 200 64">{"".join(marks)}<path d="M0 50H200" stroke="var(--line)"/>'
        f'<text y="60">{escape(first[:20])}</text>'
        f'<text x="200" y="60" text-anchor="end">{escape(last[:20])}</text></svg>'
    )


def trend(values: dict[str, float], observed: "Observed", limit: float) -> str:
    """PSI of each batch, the limit, and the champion's batches in the shade."""
    names = list(observed.counts)
    step, scale = 200 / len(names), 44 / max(limit, *values.values())
    places = {n: (step * (names.index(n) + 0.5), 50 - scale * v) for n, v in values.items()}
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places.values())
    marks = [
        f'<rect width="{step * len(observed.batches):.1f}" height="50" fill="var(--shade)"/>',
        f'<path d="M0 {50 - scale * limit:.1f}h200" stroke="var(--alarm)" stroke-dasharray="4 3"/>',
        f'<polyline points="{line}" fill="none" stroke="var(--new)"/>',
    ]
    size = min(3, step / 3)
    for name, (x, y) in places.items():
        title = f"<title>{escape(name)}: PSI {values[name]:.3f}</title>"
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="var(--new)">{title}</circle>'
        )
    return chart(marks, names[0], names[-1])


def labels(its: "Bins") -> list[str]:
    """What the bins of a column are called."""
    if its.kind == "text":
        return [*its.at, "other words", "missing"]
    # An edge just below another one is there to cut off the value of the other.
    above = [np.nextafter(edge, np.inf) for edge in its.at]
    ends = [
        f"below {value:.5g}" if value in its.at else f"up to {edge:.5g}"
        for edge, value in zip(its.at, above, strict=True)
    ]
    return [*ends, f"above {its.at[-1]:.5g}" if ends else "any", "missing"]


def shares(its: "Bins", known: np.ndarray, newest: np.ndarray) -> str:
    """The share of each bin: of the champion's rows (wide bars) and of the newest batch (narrow)."""
    used, names, marks = np.flatnonzero(known + newest), labels(its), []
    p, q = known / known.sum(), newest / newest.sum()
    step, scale = 200 / len(used), 48 / max(p.max(), q.max())
    for place, b in enumerate(used):
        said = escape(f"{names[b]}: {q[b]:.1%} (champion's rows: {p[b]:.1%})")
        for share, width, color in ((p[b], 0.9, "known"), (q[b], 0.4, "new")):
            x, height = step * (place + (1 - width) / 2), scale * share
            marks.append(
                f'<rect x="{x:.1f}" y="{50 - height:.1f}" width="{step * width:.1f}"'
                f' height="{height:.1f}" fill="var(--{color})"><title>{said}</title></rect>'
            )
    return chart(marks, names[used[0]], names[used[-1]])


def row(name: str, its: dict, charts: list[str]) -> str:
    """The row of a feature: verdict, measures, charts."""
    ks = "&ndash;" if its["ks"] is None else f"{its['ks']:.3f}"
    verdict = ("alarm", "▲ drifted") if its["drifted"] else ("stable", "stable")
    return (
        f'<tr><th scope="row">{escape(name)}</th><td class="{verdict[0]}">{verdict[1]}</td>'
        f'<td class="number" title="PSI">{its["psi"]:.3f}</td>'
        f'<td class="number" title="KS">{ks}</td>'
        f'<td class="number" title="χ²">{its["chi2"]:,.0f}</td>'
        + "".join(f'<td class="chart">{chart}</td>' for chart in charts)
        + "</tr>"
    )


def document(title: str, body: str, style: str = "") -> str:
    """A whole page."""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}{style}</style>
{body}</html>
"""


def page(observed: "Observed", found: dict, limits: "Drift") -> str:
    """The page of what `drift.report` found, its features in the order of PSI."""
    features, newest, rows = found["features"], found["batch"], []
    for name in sorted(features, key=lambda name: -features[name]["psi"]):
        bars = shares(observed.bins[name], observed.reference[name], observed.counts[newest][name])
        line = trend(found["over_time"][name], observed, limits.psi)
        rows.append(row(name, features[name], [line, bars]))
    drifted = sum(its["drifted"] for its in features.values())
    first, last, batch = (escape(n) for n in (observed.batches[0], observed.batches[-1], newest))
    body = f"""<h1>{batch}: {drifted} of {len(features)} features have drifted</h1>
<p>Compared with the {observed.rows:,} rows of {first} to {last}, on which champion {observed.champion} was
fitted. Drifted is what exceeds PSI {limits.psi:g} or KS {limits.ks:g} by more than chance explains in so
many rows.</p>
<p>Line: PSI of each batch; dashed: its limit; shaded: the champion's batches. Bars: shares by bin,
<span class="key" style="background: var(--known)"></span>the champion's rows (wide) and
<span class="key" style="background: var(--new)"></span>{batch} (narrow).</p>
<table><thead><tr><th>Feature<th><th class="number">PSI<th class="number">KS<th class="number">χ²
<th>PSI by batch<th>Shares by bin</thead><tbody>
{"".join(rows)}</tbody></table>
"""
    return document(f"Drift of {newest}", body)
