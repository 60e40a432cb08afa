"""The pages reports/monitor.html and monitor.md: one file without scripts, for a desk or a phone."""

import math
from datetime import UTC, datetime
from html import escape
from typing import Any

from ..continuous_training.drift_report import document, row, shares
from ..evaluate import GREATER_IS_BETTER
from .watch import Found

STYLE = """
:root { --v0: var(--new); --v1: #8250df; --v2: #1a7f37; --v3: #bf3989; --v4: #9a6700; --v5: #57606a }
@media (prefers-color-scheme: dark) { :root { --v1: #a371f7; --v2: #3fb950; --v3: #f778ba;
  --v4: #d29922; --v5: #8b949e } }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem }
h1::before { content: "●"; color: var(--good); margin-right: .4em } h1.bad::before { color: var(--alarm) }
h1.unknown::before { color: var(--known) } :root { --good: #1a7f37 }
p { overflow-wrap: anywhere } .dim { color: var(--dim) } ul { padding-left: 1.1rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0 } .tiles div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; font-weight: 600 }
.tiles span { color: var(--dim); font-size: .85rem }
.alert { border-left: 4px solid var(--alarm); padding: .1rem 0 .1rem .8rem; margin: .7rem 0 }
.plot { display: grid; grid-template-columns: 3.2rem 1fr; margin: 2rem 0 .5rem; font-size: .75rem;
  color: var(--dim) }
.area { position: relative; height: 13rem; border-bottom: 1px solid var(--line) }
.area.low { height: 7rem }
.area svg { position: absolute; inset: 0; height: 100%; min-width: 0; overflow: hidden }
.area path, .area line, .area polyline { vector-effect: non-scaling-stroke }
.area > span { position: absolute; white-space: nowrap }
.area > .limit { right: 0; background: var(--back); padding: 0 .2rem; opacity: .85 }
.area > .event { top: -1.35rem; transform: translateX(-50%); border: 1px solid var(--line); cursor: help;
  border-radius: 9px; padding: 0 .35rem; background: var(--back); color: var(--ink); line-height: 1.15rem }
.y, .x { position: relative } .x { grid-column: 2; height: 1.4rem } .x span, .y span { position: absolute }
.y span { right: .45rem; transform: translateY(-50%) } .x span { top: .2rem; white-space: nowrap }
.range { min-width: 9rem; height: 1rem } .range * { vector-effect: non-scaling-stroke }
.range td, .wide { overflow-wrap: anywhere }
@media (max-width: 50rem) { body { padding: 1rem } td.wide { grid-column: 1 / 4 }
  .number:empty { display: none } tbody th { grid-column: 1 / 4 } .plot { grid-template-columns: 2.6rem 1fr } }
"""
SIGNS = {"promoted": "▲", "refused": "✕", "rolled back": "↩", "deployed": "●"}


def state(found: Found) -> str:
    """The state in words, without what an alert says."""
    env, number, its = found["environment"], found["version"], its_of(found)
    names = sorted({alert["name"].replace("_", " ") for alert in found["alerts"]})
    if not number:
        return f"{env}: nothing is deployed, and nothing was predicted yet"
    if "degradation" in names:
        return f"{env}: version {number} is worse than allowed"
    if names:
        return f"{env}: version {number} needs a look: {', '.join(names)}"
    if not its:
        return f"{env}: version {number} serves, no predictions yet"
    if not its.get("labelled"):
        return f"{env}: version {number} answers, no labels yet"
    if not its["enough"]:
        return f"{env}: version {number} answers, too few labels to judge it"
    return f"{env}: version {number} is healthy"


def its_of(found: Found) -> dict[str, Any]:
    """What was found of the main version."""
    return found["versions"].get(str(found["version"]), {})


def when(seconds: float, form: str = "%d %b %Y, %H:%M") -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def between(interval: tuple[float, float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def role(key: str, found: Found) -> str:
    if int(key) == found["version"]:
        return "main"
    its = found["versions"][key]
    return "shadow" if its["shadow"] else "beside" if its.get("beside") else "before"


def tiles(found: Found) -> str:
    its, about, stale = its_of(found), found["service"], found["staleness"]
    shown = []
    if "value" in its:
        shown.append((number(its["value"]), f"{found['metric']}, {between(its['interval'])}"))
        shown.append((number(its["judged"]), f"when judged; allowed {number(its['limit'])}"))
    if its:
        rows = sum(one["rows"] for one in found["versions"].values() if not one["shadow"])
        shown.append((f"{rows:,}", "rows predicted"))
        if "labelled" in its:
            shown.append((f"{its['labelled']:,}", f"with a label, {its['waiting']:,} wait"))
        shown.append((f"{its['p99']:.0f} ms", f"p99; half within {its['p50']:.1f} ms"))
    for name, text in (
        ("prediction", "since the last prediction"),
        ("trained", "from training to newest row"),
    ):
        if stale[name] is not None:
            days = stale[name]
            short = f"{days:.0f} d" if days >= 2 else f"{days * 24:.1f} h"
            shown.append((short, text))
    if about is not None:
        lost = about.get("prediction_log_dropped", 0)
        said = f"{lost:,} lost to the log, {about['refused_versions']:,} refused"
        shown.append(("answers", said) if about["answers"] else ("silent", about["url"]))
    return "".join(f"<div><b>{escape(b)}</b><span>{escape(t)}</span></div>" for b, t in shown)


class Axis:
    """Time from left to right, in percent; events far from all predictions are only listed."""

    def __init__(self, found: Found) -> None:
        traffic = found.traffic
        step = traffic["time"].drop_duplicates().diff().min() if len(traffic) else math.nan
        self.step = 60.0 if math.isnan(step) else float(step)
        first, last = float(traffic["time"].min()), float(traffic["time"].max()) + self.step
        about = (last - first) / 4
        self.events = [e for e in found.events if first - about <= e["time"] <= last + about]
        moments = [first, last, *(event["time"] for event in self.events)]
        pad = (max(moments) - min(moments)) * 0.03
        self.first, self.last = min(moments) - pad, max(moments) + pad

    def at(self, moment: float) -> float:
        return 100 * (moment - self.first) / (self.last - self.first)

    def ticks(self) -> str:
        form = "%d %b" if self.last - self.first > 3 * 86400 else "%H:%M"
        marks = [
            f'<span style="{side}">{when(moment, form)}</span>'
            for moment, side in (
                (self.first, "left: 0"),
                ((self.first + self.last) / 2, "left: 50%; transform: translateX(-50%)"),
                (self.last, "right: 0"),
            )
        ]
        return f'<div class="x">{"".join(marks)}</div>'

    def badges(self) -> tuple[str, str]:
        """Lines in the plot and signs above it; events that lie close together share a sign."""
        groups: list[list[dict]] = []
        for event in self.events:
            if groups and self.at(event["time"]) - self.at(groups[-1][0]["time"]) < 7:
                groups[-1].append(event)
            else:
                groups.append([event])
        lines, signs = [], []
        for group in groups:
            place = self.at(group[0]["time"])
            said = "; ".join(f"{when(e['time'])}: {_said(e)}" for e in group)
            sign = SIGNS.get(group[0]["decision"], "●") if len(group) == 1 else str(len(group))
            lines += [_line(self.at(e["time"]), "var(--line)") for e in group]
            signs.append(
                f'<span class="event" style="left: {place:.2f}%" title="{escape(said)}">{sign}</span>'
            )
        return "".join(lines), "".join(signs)


def _said(event: dict) -> str:
    return f"{event['decision']}: version {event['version']}"


def _line(x: float, color: str) -> str:
    return f'<path d="M{x:.2f} 0V100" stroke="{color}" stroke-dasharray="2 2"/>'


def plot(marks: str, around: str, ticks: list[tuple[float, str]], axis: Axis, low: str = "") -> str:
    """A plot of 100 x 100 that is stretched to its place, with words around it that are not."""
    sides = "".join(f'<span style="top: {y:.2f}%">{escape(text)}</span>' for y, text in ticks)
    return (
        f'<div class="plot"><div class="y">{sides}</div><div class="area {low}">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{marks}</svg>{around}</div>'
        f"{axis.ticks()}</div>"
    )


def color(key: str, found: Found) -> str:
    others = sorted((k for k in found["versions"] if int(k) != found["version"]), key=int)
    return f"var(--v{0 if int(key) == found['version'] else others.index(key) % 5 + 1})"


def legend(found: Found) -> str:
    keys = [
        f'<span class="key" style="background: {color(key, found)}"></span>version {key}'
        f" ({role(key, found)})"
        for key in sorted(found["versions"], key=int)
    ]
    return f'<p class="dim">{" ".join(keys)}</p>'


def metric_chart(found: Found, axis: Axis) -> str:
    """The metric over time of each version, its interval in the shade, and the limits of the main one."""
    main, series = its_of(found), {k: v.get("over_time", []) for k, v in found["versions"].items()}
    lines = {"judged": main.get("judged"), "allowed": main.get("limit")}
    lines = {name: value for name, value in lines.items() if value is not None and value == value}
    values = [*lines.values(), *(b["value"] for its in series.values() for b in its)]
    sure = [e for its in series.values() for b in its if b["rows"] >= 100 for e in b["interval"]]
    values += [value for value in sure if math.isfinite(value)]
    if not any(series.values()):
        return "<p>No labels have come yet for what was predicted: there is no live metric.</p>"
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1) * 0.08
    low, high = low - pad, high + pad

    def y(value: float) -> float:
        return 100 * (high - min(max(value, low), high)) / (high - low)

    marks, signs = axis.badges()
    for key, its in series.items():
        shade = color(key, found)
        for part in its:
            left, right = axis.at(part["from"]), axis.at(part["to"])
            if all(map(math.isfinite, part["interval"])):
                top, bottom = y(part["interval"][1]), y(part["interval"][0])
                marks += (
                    f'<rect x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}"'
                    f' height="{bottom - top:.2f}" fill="{shade}" opacity=".16"/>'
                )
        middle = [(axis.at((p["from"] + p["to"]) / 2), y(p["value"])) for p in its]
        points = " ".join(f"{x:.2f},{v:.2f}" for x, v in middle)
        marks += f'<polyline points="{points}" fill="none" stroke="{shade}" stroke-width="1.5"/>'
        for (x, v), part in zip(middle, its, strict=True):
            said = f"version {key}, {when(part['from'])}: {part['value']:.3f}"
            said += f" ({between(part['interval'])}), {part['rows']:,} rows"
            marks += (
                f'<path d="M{x:.2f} {v:.2f}h0" stroke="{shade}" stroke-width="7"'
                f' stroke-linecap="round"><title>{escape(said)}</title></path>'
            )
    upper = max(lines.values(), default=0)
    for name, value in lines.items():
        shade = "var(--alarm)" if name == "allowed" else "var(--dim)"
        marks += f'<path d="M0 {y(value):.2f}H100" stroke="{shade}" stroke-dasharray="5 4"/>'
        shift = "-100%" if value == upper else "0"
        signs += (
            f'<span class="limit" style="top: {y(value):.2f}%; transform: translateY({shift});'
            f' color: {shade}">{name} {value:.3f}</span>'
        )
    ticks = [(y(value), f"{value:.3f}") for value in (high - pad, (low + high) / 2, low + pad)]
    return plot(marks, signs, ticks, axis)


def traffic_chart(found: Found, axis: Axis) -> str:
    """Rows by version over time, stacked; shadows are pale."""
    most = found.traffic.groupby("time")["rows"].sum().max()
    marks = axis.badges()[0]
    for moment, part in found.traffic.groupby("time"):
        top, left = 100.0, axis.at(float(moment))
        wide = axis.at(float(moment) + axis.step) - left
        for its in part.sort_values(["shadow", "version"]).itertuples():
            height, key = 95 * its.rows / most, str(its.version)
            fill = color(key, found) if key in found["versions"] else "var(--known)"
            said = f"{when(float(moment))}: {its.rows:,} rows, version {key}"
            top -= height
            marks += (
                f'<rect x="{left + wide * 0.05:.2f}" y="{top:.2f}" width="{wide * 0.9:.2f}"'
                f' height="{height:.2f}" fill="{fill}" opacity="{0.4 if its.shadow else 1}">'
                f"<title>{escape(said + (' (shadow)' if its.shadow else ''))}</title></rect>"
            )
    return plot(marks, "", [(5, f"{most:,}"), (100, "0")], axis, "low")


def cell(title: str, text: str) -> str:
    return f'<td class="number" title="{escape(title)}">{escape(text)}</td>'


def table(titles: list[str], rows: list[str]) -> str:
    head = "".join(
        f'<th class="number">{title[1:]}' if title.startswith("#") else f"<th>{title}"
        for title in titles
    )
    return f"<table><thead><tr>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def versions(found: Found) -> str:
    rows = []
    for key, its in sorted(found["versions"].items(), key=lambda one: -int(one[0])):
        more = its.get("beside")
        said = more["said"] if more else f"judged {number(its.get('judged'))}"
        rows.append(
            f'<tr><th scope="row"><span class="key" style="background: {color(key, found)};'
            f' margin-left: 0"></span> version {key} <span class="dim">{role(key, found)}</span></th>'
            + cell("rows", f"{its['rows']:,}")
            + cell("labelled", f"{its.get('labelled', 0):,}")
            + cell("failed", f"{its['failures']:,}")
            + cell("p99", f"{its['p99']:.0f} ms")
            + cell(found["metric"], number(its.get("value")))
            + cell("95 %", between(its.get("interval")))
            + f'<td class="wide">{escape(said)}</td></tr>'
        )
    titles = ["Version", "#rows", "#labelled", "#failed", "#p99", f"#{escape(found['metric'])}"]
    return table([*titles, "#95 %", "Beside the main one"], rows)


def segments(found: Found) -> str:
    """Each segment's value and interval, a thick line, and where it was when the version was judged."""
    parts = its_of(found).get("segments", [])
    ends = [p[k] for p in parts for k in ("value", "judged")] + [e for p in parts for e in p["interval"]]
    ends = [end for end in ends if math.isfinite(end)]
    if not ends:
        return "<p>No segment has labelled rows enough yet.</p>"
    low, wide = min(ends), max(ends) - min(ends) or 1

    def x(value: float) -> float:
        return 2 + 96 * (value - low) / wide

    rows, sign = [], 1 if found["metric"] in GREATER_IS_BETTER else -1
    for part in sorted(parts, key=lambda p: sign * (p["value"] - (p["limit"] if p["limit"] == p["limit"] else p["value"]))):
        shade = "var(--alarm)" if part["worse"] else "var(--v0)"
        marks = ""
        if between(part["interval"]):
            first, last = (x(end) for end in part["interval"])
            marks = f'<path d="M{first:.1f} 5H{last:.1f}" stroke="{shade}" stroke-width="2"/>'
        if math.isfinite(part["judged"]):
            marks += f'<path d="M{x(part["judged"]):.1f} 0V10" stroke="var(--dim)" stroke-width="2"/>'
        if math.isfinite(part["value"]):
            marks += f'<path d="M{x(part["value"]):.1f} 5h0" stroke="{shade}" stroke-width="8" stroke-linecap="round"/>'
        verdict = ("alarm", "▲ worse") if part["worse"] else ("stable", "")
        rows.append(
            f'<tr><th scope="row">{escape(part["segment"])}</th>'
            f'<td class="{verdict[0]}">{verdict[1]}</td>'
            + cell("rows", f"{part['rows']:,}")
            + cell(found["metric"], number(part["value"]))
            + cell("judged", number(part["judged"]))
            + f'<td class="chart"><svg class="range" viewBox="0 0 100 10" preserveAspectRatio="none">{marks}'
            "</svg></td></tr>"
        )
    titles = ["Segment", "", "#rows", f"#{escape(found['metric'])}", "#judged", "95 %, all segments together"]
    return table(titles, rows)


def drift(found: Found) -> str:
    its = found.observed
    if its is None or not found["drift"]:
        return "<p>Nothing to compare yet.</p>"
    names = sorted(found["drift"], key=lambda name: -found["drift"][name]["psi"])
    rows = [
        row(name, found["drift"][name], [shares(its.bins[name], its.known[name], its.live[name])])
        for name in names
    ]
    text = (
        f"<p>What was sent and answered (narrow bars) beside the {its.rows:,} rows that version"
        f" {found['version']} was fitted on (wide), by bin.</p>"
    )
    return text + table(["Feature", "", "#PSI", "#KS", "#χ²", "Shares by bin"], rows)


def alerts(found: Found) -> str:
    shown = [
        f'<div class="alert"><b>{escape(a["name"].replace("_", " "))}</b> <span class="dim">since'
        f" {escape(a['since'][:16].replace('T', ' '))}</span><br>{escape(a['message'])}</div>"
        for a in found["alerts"]
    ]
    if found["retrain"]:
        shown.append(f"<p><b>Retraining is due</b>: {escape(found['retrain']['name'])}.</p>")
    return "".join(shown) or "<p>None.</p>"


def listed(found: Found) -> str:
    lines = [
        f'<li><span class="dim">{when(e["time"])}</span> {SIGNS.get(e["decision"], "●")}'
        f" {escape(_said(e))}</li>"
        for e in found.events[::-1][:20]
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nothing.</p>"


def page(found: Found) -> str:
    """reports/monitor.html."""
    title, main = state(found), its_of(found)
    kind = "bad" if found["alerts"] else "" if main.get("enough") else "unknown"
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    if len(found.traffic):
        axis = Axis(found)
        charts = f"<h2>Live {escape(found['metric'])}</h2>{metric_chart(found, axis)}{legend(found)}"
        charts += f"<h2>Traffic by version</h2>{traffic_chart(found, axis)}{versions(found)}"
        charts += f"<h2>Segments</h2>{segments(found)}<h2>Drift</h2>{drift(found)}"
    else:
        charts = "<p>No prediction was logged in this time: there is nothing to draw yet.</p>"
    body = f"""<h1 class="{kind}">{escape(title)}</h1>
<p>{when(found["time"])} UTC. Live metrics are of predictions that have a label by now, by the time of the
prediction; shaded is where they lie with 95 % confidence.</p>
<div class="tiles">{tiles(found)}</div>
<h2>Alerts</h2>{alerts(found)}
{charts}
<h2>What happened</h2>{listed(found)}
{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
"""
    return document(title, body, STYLE)


def markdown(found: Found) -> str:
    """reports/monitor.md."""

    def safe(text: str) -> str:
        return " ".join(escape(text, quote=False).replace("|", "\\|").replace("@", "@\u200b").split())

    lines = [f"# {safe(state(found))}", ""]
    for alert in found["alerts"]:
        new = "**new** " if alert["new"] else ""
        lines.append(f"- {new}{alert['name']}: {safe(alert['message'])}")
    if found["retrain"]:
        lines.append(f"- **retraining is due**: {found['retrain']['name']}")
    lines += ["", f"| version | | rows | labelled | {found['metric']} | judged |", "|---|---|---|---|---|---|"]
    for key, its in found["versions"].items():
        value = f"{number(its.get('value'))} ({between(its.get('interval'))})"
        cells = [key, role(key, found), f"{its['rows']:,}", f"{its.get('labelled', 0):,}", value]
        lines.append(f"| {' | '.join([*cells, number(its.get('judged'))])} |")
    notes = [its["beside"]["said"] for its in found["versions"].values() if its.get("beside")]
    lines += ["", *(f"- {safe(note)}" for note in [*notes, *found["notes"]])]
    return "\n".join([*lines, ""])
