"""The dashboard reports/monitor.html, and monitor.md: one file without scripts, for a desk or a phone."""

import math
from html import escape
from typing import Any

from ...continuous_training.drift.report import document, row, shares
from ...experiment.markdown import plain
from . import charts as charts
from .charts import between, number, when
from .collect import Found

STYLE = """
:root { --good: #1a7f37; --v0: var(--new); --v1: #8250df; --v2: #1a7f37; --v3: #bf3989; --v4: #9a6700;
  --v5: #57606a }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --v1: #a371f7; --v2: #3fb950;
  --v3: #f778ba; --v4: #d29922; --v5: #8b949e } }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem }
h1::before { content: "●"; color: var(--good); margin-right: .4em } h1.bad::before { color: var(--alarm) }
h1.unknown::before { color: var(--known) } p, li { overflow-wrap: anywhere } ul { padding-left: 1.1rem }
.dim { color: var(--dim); font-weight: normal } .legend > span { white-space: nowrap }
.dash { display: inline-block; width: 1.4em; border-top: 2px dashed; margin: 0 .3em .25em .6em }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(13rem, 45%), 1fr));
  gap: .75rem; margin: 1.5rem 0 }
.tiles div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; font-weight: 600 }
.tiles span { color: var(--dim); font-size: .85rem; overflow-wrap: anywhere }
.alert { border-left: 4px solid var(--alarm); padding: .1rem 0 .1rem .8rem; margin: .7rem 0;
  overflow-wrap: anywhere }
.plot { display: grid; grid-template-columns: 3.2rem 1fr; margin: 2rem 0 .5rem; font-size: .75rem;
  color: var(--dim) }
.area { position: relative; height: 12rem; border-bottom: 1px solid var(--line) }
.area svg { position: absolute; inset: 0; height: 100%; min-width: 0 }
.area path, .range path { vector-effect: non-scaling-stroke }
.area span, .y span { position: absolute; white-space: nowrap }
.event { top: -1.35rem; transform: translateX(-50%); border: 1px solid var(--line); cursor: help;
  border-radius: 9px; padding: 0 .35rem; background: var(--back); color: var(--ink); line-height: 1.15rem }
.y { position: relative } .y span { right: .45rem; transform: translateY(-50%) }
.x { grid-column: 2; display: flex; justify-content: space-between; margin-top: .2rem }
td.number { white-space: nowrap } td.chart svg { max-width: 24rem } .range { height: .9rem }
td.wide { overflow-wrap: anywhere; color: var(--dim); min-width: 12rem }
@media (max-width: 50rem) { body { padding: 1rem } td.wide, tbody th { grid-column: 1 / 4 }
  td:empty { display: none } .plot { grid-template-columns: 2.8rem 1fr } td.number { white-space: normal } }
"""
NOTHING = "<p>Nothing.</p>"
AGES = {
    "prediction": "since the last prediction",
    "label": "since the newest prediction that has a label (or the first, without any)",
    "trained": "from the rows it was fitted on to the newest one predicted",
}


def main(found: Found) -> dict[str, Any]:
    """What was found of the main version."""
    return found["versions"].get(str(found["version"]), {})


def state(found: Found) -> str:
    """The state in words, for a title."""
    env, version, its = found["environment"], found["version"], main(found)
    names = sorted({alert["name"].replace("_", " ") for alert in found["alerts"]})
    if not version:
        return f"{env}: nothing is deployed, and nothing was predicted yet"
    if "degradation" in names:
        return f"{env}: version {version} is worse than allowed"
    if names:
        return f"{env}: version {version} needs a look: {', '.join(names)}"
    if not its:
        return f"{env}: version {version} serves, no predictions yet"
    if not its.get("labelled"):
        return f"{env}: version {version} answers, no labels yet"
    if not its["enough"]:
        return f"{env}: version {version} answers, too few labels to judge it"
    return f"{env}: version {version} is healthy"


def role(key: str, found: Found) -> str:
    its = found["versions"][key]
    if int(key) == found["version"]:
        return "main"
    return "shadow" if its["shadow"] else "beside" if its.get("beside") else "before"


def tiles(found: Found) -> str:
    its, about, stale, shown = main(found), found["service"], found["staleness"], []
    if "value" in its:
        shown.append((number(its["value"]), f"{found['metric']} ({between(its['interval'])})"))
        shown.append((number(its["judged"]), f"when judged; allowed {number(its['limit'])}"))
    if its:
        rows = sum(one["rows"] for one in found["versions"].values())
        text = f"{its.get('labelled', 0):,} of the main version have a label"
        shown += [(f"{rows:,}", f"rows predicted; {text}")]
        shown += [(f"{its['p99']:.0f} ms", f"p99 of a request; p50 {its['p50']:.1f} ms")]
    for name, text in AGES.items():
        days = stale[name]
        if days is not None:
            short = f"{days:.0f} days" if days >= 3 else f"{days * 24:.1f} hours"
            shown.append((short, text))
    if about is not None:
        lost = f"{about.get('prediction_log_dropped', 0):,} requests lost to the log,"
        lost += f" {about.get('refused_versions', 0):,} versions refused"
        shown.append(
            ("answers", lost) if about["answers"] else ("silent", "the service does not answer")
        )
    return "".join(f"<div><b>{escape(b)}</b><span>{escape(t)}</span></div>" for b, t in shown)


def cell(title: str, text: str) -> str:
    return f'<td class="number" title="{escape(title)}">{escape(text)}</td>'


def table(titles: list[str], rows: list[str]) -> str:
    """Those titles that begin with # are of numbers."""
    head = "".join(
        f'<th class="number">{escape(t[1:])}' if t.startswith("#") else f"<th>{escape(t)}"
        for t in titles
    )
    return f"<table><thead><tr>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def versions(found: Found) -> str:
    rows, name = [], found["metric"]
    for key, its in sorted(found["versions"].items(), key=lambda one: -int(one[0])):
        text = (its.get("beside") or {}).get("said", f"judged {number(its.get('judged'))}")
        shade = charts.color(int(key), found)
        rows.append(
            f'<tr><th scope="row"><span class="key" style="background: {shade}; margin-left: 0">'
            f'</span> version {key} <span class="dim">{role(key, found)}</span></th>'
            + cell("rows", f"{its['rows']:,}")
            + cell("labelled", f"{its.get('labelled', 0):,}")
            + cell("failed", f"{its['failures']:,}")
            + cell("p99", f"{its['p99']:.0f} ms")
            + cell(name, number(its.get("value")))
            + cell("95 %", between(its.get("interval")))
            + f'<td class="wide">{escape(text)}</td></tr>'
        )
    return table(
        ["Version", "#rows", "#labelled", "#failed", "#p99", f"#{name}", "#95 %", "Judged"], rows
    )


def segments(found: Found) -> str:
    parts, rows = main(found).get("segments", []), []
    ends = [end for p in parts for end in (p["value"], p["judged"], *p["interval"])]
    ends = [end for end in ends if math.isfinite(end)]
    for part in sorted(parts, key=lambda part: not part["worse"]):
        verdict = '<td class="alarm">▲ worse</td>' if part["worse"] else "<td></td>"
        rows.append(
            f'<tr><th scope="row">{escape(part["segment"])}</th>{verdict}'
            + cell("rows", f"{part['rows']:,}")
            + cell(found["metric"], number(part["value"]))
            + cell("judged", number(part["judged"]))
            + f'<td class="chart">{charts.interval(part, min(ends), max(ends))}</td></tr>'
        )
    titles = ["Segment", "", "#rows", f"#{found['metric']}", "#judged", "95 % for all together"]
    return table(titles, rows) if rows and ends else "<p>None has labelled rows enough yet.</p>"


def drift(found: Found) -> str:
    its, features = found.observed, found["drift"]
    if its is None or not features:
        return "<p>Nothing can be compared yet.</p>"
    names = sorted(
        features, key=lambda name: (not features[name]["drifted"], -features[name]["psi"])
    )
    bars = [shares(its.bins[name], its.known[name], its.live[name]) for name in names]
    rows = [row(name, features[name], [bar]) for name, bar in zip(names, bars, strict=True)]
    text = f"<p>What was sent and answered (narrow bars) beside the {its.rows:,} rows that version"
    text += f" {found['version']} was fitted on (wide bars).</p>"
    return text + table(["Feature", "", "#PSI", "#KS", "#χ²", "Shares by bin"], rows)


def alerts(found: Found) -> str:
    shown = [
        f'<div class="alert"><b>{escape(a["name"].replace("_", " "))}</b> <span class="dim">since'
        f" {escape(a['since'][:16].replace('T', ' '))}</span><br>{escape(a['message'])}</div>"
        for a in found["alerts"]
    ]
    due = found["retrain"] and f"<p>Retraining is due: {escape(found['retrain']['name'])}.</p>"
    return "".join([*shown, due or ""]) or "<p>None.</p>"


def page(found: Found) -> str:
    """reports/monitor.html."""
    title, drawn = state(found), "<p>No prediction was logged in this time.</p>"
    if len(found.traffic):
        axis = charts.Axis(found)
        drawn = f"""<h2>Live {escape(found["metric"])}</h2>{charts.metric(found, axis)}
<h2>Traffic by version</h2>{charts.traffic(found, axis)}{versions(found)}
<h2>Segments</h2>{segments(found)}
<h2>Drift</h2>{drift(found)}"""
    happened = "".join(
        f'<li><span class="dim">{when(event["time"])}</span> {charts.sign(event)}'
        f" {escape(charts.said(event))}</li>"
        for event in found.events[:-21:-1]
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    kind = "bad" if found["alerts"] else "" if main(found).get("enough") else "unknown"
    body = f"""<h1 class="{kind}">{escape(title)}</h1>
<p>{when(found["time"])} UTC. A live metric is of the predictions that have a label by now, by the time of
the prediction; shaded is where it lies with 95 % confidence.</p>
<div class="tiles">{tiles(found)}</div>
<h2>Alerts</h2>{alerts(found)}
{drawn}
<h2>What happened</h2>{f"<ul>{happened}</ul>" if happened else NOTHING}
{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
"""
    return document(title, body, STYLE)


def markdown(found: Found) -> str:
    """reports/monitor.md."""

    def safe(text: str) -> str:
        return plain(text).replace("@", "@\u200b")  # nobody is called

    lines = [f"# {safe(state(found))}", ""]
    for alert in found["alerts"]:
        new = "**new** " if alert["new"] else ""
        lines.append(f"- {new}{alert['name']}: {safe(alert['message'])}")
    if found["versions"]:
        lines += ["", f"| version | | rows | labelled | {found['metric']} | judged |"]
        lines.append("|---|---|---|---|---|---|")
    for key, its in found["versions"].items():
        value = f"{number(its.get('value'))} ({between(its.get('interval'))})"
        cells = [key, role(key, found), f"{its['rows']:,}", f"{its.get('labelled', 0):,}", value]
        lines.append(f"| {' | '.join([*cells, number(its.get('judged'))])} |")
    notes = [
        f"version {key}: {its['beside']['said']}"
        for key, its in found["versions"].items()
        if its.get("beside")
    ]
    lines += ["", *(f"- {safe(note)}" for note in [*notes, *found["notes"]])]
    return "\n".join([*lines, ""])
