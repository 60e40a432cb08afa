"""The charts of the dashboard: drawings that stretch to their place, with words around them that do not."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import Any

from .collect import Found

SIGNS = {"promoted": "▲", "refused": "✕", "rolled back": "↩", "deployed": "●"}
LINES = {"judged": "var(--dim)", "allowed": "var(--alarm)"}
NEAR = 7  # percent of the width within which events share a sign


def when(seconds: float, form: str = "%d %b %Y, %H:%M") -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def number(value: float | None) -> str:
    """Three decimals, or fewer of a large one."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def between(interval: tuple[float, float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    return f"{number(interval[0])} to {number(interval[1])}"


def said(event: dict[str, Any]) -> str:
    return f"{event['decision']}: version {event['version']}"


def sign(event: dict[str, Any]) -> str:
    return SIGNS.get(event["decision"], "●")


def color(version: int, found: Found) -> str:
    others = sorted(int(key) for key in found["versions"] if int(key) != found["version"])
    return f"var(--v{others.index(version) % 5 + 1 if version in others else 0})"


def path(shape: str, stroke: str, more: str = "", title: str = "") -> str:
    """A line; `title` is what it says when somebody points at it."""
    about = f"<title>{escape(title)}</title>" if title else ""
    return f'<path d="{shape}" stroke="{stroke}" {more}>{about}</path>'


def dot(x: float, y: float, stroke: str, title: str = "") -> str:
    return path(f"M{x:.2f} {y:.2f}h0", stroke, 'stroke-width="7" stroke-linecap="round"', title)


def bar(
    x: float, y: float, width: float, height: float, fill: str, opacity: float, title: str = ""
):
    about = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"'
        f' opacity="{opacity}">{about}</rect>'
    )


class Axis:
    """Time from left to right, in percent; an event far from all predictions is only listed."""

    def __init__(self, found: Found) -> None:
        traffic, self.step = found.traffic["time"], found.step
        first, last = float(traffic.min()), float(traffic.max()) + self.step
        far = (last - first) / 4
        self.events = [e for e in found.events if first - far <= e["time"] <= last + far]
        moments = [first, last, *(event["time"] for event in self.events)]
        pad = (max(moments) - min(moments)) * 0.03
        self.first, self.last = min(moments) - pad, max(moments) + pad

    def at(self, moment: float) -> float:
        return 100 * (moment - self.first) / (self.last - self.first)

    def signs(self) -> str:
        """Above the plot; events that lie close together share one."""
        groups: list[list[dict[str, Any]]] = []
        for event in self.events:
            if groups and self.at(event["time"]) - self.at(groups[-1][0]["time"]) < NEAR:
                groups[-1].append(event)
            else:
                groups.append([event])
        return "".join(
            f'<span class="event" style="left: {self.at(group[0]["time"]):.2f}%" title="'
            + escape("; ".join(f"{when(e['time'])}: {said(e)}" for e in group))
            + f'">{sign(group[0]) if len(group) == 1 else len(group)}</span>'
            for group in groups
        )

    def plot(self, marks: list[str], ticks: list[tuple[float, str]]) -> str:
        """A plot of 100 x 100: marks, the events, time below, and ticks (y, text) on the left."""
        lines = [
            path(f"M{self.at(e['time']):.2f} 0V100", "var(--line)", 'stroke-dasharray="2 2"')
            for e in self.events
        ]
        form = "%d %b" if self.last - self.first > 3 * 86400 else "%H:%M"
        times = [when(t, form) for t in (self.first, (self.first + self.last) / 2, self.last)]
        left = "".join(f'<span style="top: {y:.2f}%">{escape(text)}</span>' for y, text in ticks)
        return (
            f'<div class="plot"><div class="y">{left}</div><div class="area">'
            '<svg viewBox="0 0 100 100" preserveAspectRatio="none">'
            f'{"".join([*lines, *marks])}</svg>{self.signs()}</div><div class="x">'
            f"{''.join(f'<span>{time}</span>' for time in times)}</div></div>"
        )


def metric(found: Found, axis: Axis) -> str:
    """The metric of each version over time, its interval in the shade; what the main one may come to."""
    series = {int(key): its.get("over_time", []) for key, its in found["versions"].items()}
    main = found["versions"].get(str(found["version"]), {})
    lines = {"judged": main.get("judged", math.nan), "allowed": main.get("limit", math.nan)}
    lines = {name: value for name, value in lines.items() if math.isfinite(value)}
    if not any(series.values()):
        return "<p>No labels have come yet for what was predicted: there is no live metric.</p>"
    bins = [part for its in series.values() for part in its]
    values = [*lines.values(), *(part["value"] for part in bins)]
    values += [end for part in bins for end in part["interval"] if math.isfinite(end)]
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1) * 0.06
    y: Callable[[float], float] = lambda v: 100 * (high + pad - v) / (high - low + 2 * pad)  # noqa: E731
    marks = []
    for version, its in series.items():
        shade, line, dots, end = color(version, found), "", [], 0.0
        for part in its:
            left, right = axis.at(part["from"]), axis.at(part["to"])
            x, v = (left + right) / 2, y(part["value"])
            if between(part["interval"]):
                top, bottom = y(part["interval"][1]), y(part["interval"][0])
                marks.append(bar(left, top, right - left, bottom - top, shade, 0.16))
            line += f"{'L' if left - end < right - left else 'M'}{x:.2f} {v:.2f}"  # or a gap
            text = f"version {version}, {when(part['from'])}: {number(part['value'])}"
            text += f" ({between(part['interval'])}), {part['rows']:,} rows"
            dots.append(dot(x, v, shade, text))
            end = right
        marks += [path("M" + line[1:] or "M0 0", shade, 'fill="none"'), *dots]
    marks += [
        path(f"M0 {y(value):.2f}H100", LINES[name], 'stroke-dasharray="5 4"')
        for name, value in lines.items()
    ]
    ticks = [(y(value), number(value)) for value in (high, (low + high) / 2, low)]
    keys = "".join(
        f'<span><span class="dash" style="border-color: {LINES[name]}"></span>{name}'
        f" {number(value)}</span> "
        for name, value in lines.items()
    )
    return f'{axis.plot(marks, ticks)}<p class="legend">{legend(found)}{keys}</p>'


def legend(found: Found) -> str:
    """The colors of the versions."""
    return "".join(
        f'<span><span class="key" style="background: {color(version, found)}"></span>version'
        f" {version}</span> "
        for version in sorted(map(int, found["versions"]))
    )


def traffic(found: Found, axis: Axis) -> str:
    """Rows by version over time, stacked; shadows are pale."""
    marks, most = [], int(found.traffic.groupby("time")["rows"].sum().max())
    for moment, part in found.traffic.groupby("time"):
        start, top = float(moment), 100.0  # type: ignore[arg-type]
        left = axis.at(start)
        wide = axis.at(start + axis.step) - left
        for its in part.sort_values(["shadow", "version"]).to_dict("records"):
            height, version = 95 * its["rows"] / most, int(its["version"])
            top -= height
            text = f"{when(start)}: {its['rows']:,} rows, version {version}"
            text, opacity = (f"{text} (shadow)", 0.4) if its["shadow"] else (text, 1)
            marks.append(bar(left, top, wide * 0.9, height, color(version, found), opacity, text))
    return axis.plot(marks, [(5, f"{most:,}"), (100, "0")])


def interval(part: dict[str, Any], low: float, high: float) -> str:
    """A segment's value and interval, and a tick where it was when the version was judged."""
    shade, marks = "var(--alarm)" if part["worse"] else "var(--v0)", ""
    x: Callable[[float], float] = lambda v: 2 + 96 * (v - low) / (high - low or 1)  # noqa: E731
    if between(part["interval"]):
        first, last = (x(end) for end in part["interval"])
        marks += path(f"M{first:.1f} 5H{last:.1f}", shade, 'stroke-width="2"')
    if math.isfinite(part["judged"]):
        marks += path(f"M{x(part['judged']):.1f} 0V10", "var(--dim)", 'stroke-width="2"')
    if math.isfinite(part["value"]):
        marks += dot(x(part["value"]), 5, shade)
    return f'<svg class="range" viewBox="0 0 100 10" preserveAspectRatio="none">{marks}</svg>'
