"""The charts of the dashboard: time from left to right, in percent of the width."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

from ...continuous_training.drift.charts import Bar, Chart, Dot, Line
from ...continuous_training.drift.pages import interval, moment, number
from .collect import EnvironmentReport, main_version

SIGNS = {"promoted": "▲", "refused": "✕", "rolled back": "↩", "deployed": "●"}
LIMIT_COLORS = {"reference": "dim", "allowed": "alarm"}
SHARED_SIGN = 7  # percent of the width within which events share a sign
OTHER_COLORS = 5  # of versions beside the main one, in the page's style


class EventSign(NamedTuple):
    """What stands above a plot: a sign, or how many events it stands for."""

    left: float
    text: str
    label: str  # the tooltip


class Plot(NamedTuple):
    """A chart with the events above it, the times below it, and ticks (top, text) on the left."""

    chart: Chart
    events: list[EventSign]
    times: list[str]
    ticks: list[tuple[float, str]]


def event_text(event: dict[str, Any]) -> str:
    """What was decided, and on which version."""
    return f"{event['decision']}: version {event['version']}"


def event_sign(event: dict[str, Any]) -> str:
    """The sign of a decision on the axis of time."""
    return SIGNS.get(event["decision"], "●")


def version_colors(content: dict[str, Any]) -> dict[int, str]:
    """The color of each version: v0 is that of the main one."""
    main = content["version"]
    others = sorted(int(version) for version in content["versions"] if int(version) != main)
    colors = {version: f"v{place % OTHER_COLORS + 1}" for place, version in enumerate(others)}
    return {main: "v0"} | colors


def limit_lines(content: dict[str, Any]) -> dict[str, float]:
    """The main version's metric when it was judged, and what it may come to; those that are known."""
    main = main_version(content)
    lines = {name: main.get(name, math.nan) for name in LIMIT_COLORS}
    return {name: value for name, value in lines.items() if math.isfinite(value)}


class TimeAxis:
    """The time that the plots show: that of the traffic, and of the events not far from it."""

    def __init__(self, report: EnvironmentReport) -> None:
        times = report.traffic["time"]
        first = float(times.min())
        last = float(times.max()) + report.bin_seconds
        far = (last - first) / 4
        self.events = [e for e in report.events if first - far <= e["time"] <= last + far]
        moments = [first, last, *(event["time"] for event in self.events)]
        margin = (max(moments) - min(moments)) * 0.03
        self.first = min(moments) - margin
        self.last = max(moments) + margin

    def at(self, seconds: float) -> float:
        """The place of a moment, in percent."""
        return 100 * (seconds - self.first) / (self.last - self.first)

    def signs(self) -> list[EventSign]:
        """The signs of the events; those that lie close together share one."""
        groups: list[list[dict[str, Any]]] = []
        for event in self.events:
            if groups and self.at(event["time"]) - self.at(groups[-1][0]["time"]) < SHARED_SIGN:
                groups[-1].append(event)
            else:
                groups.append([event])
        signs = []
        for group in groups:
            text = event_sign(group[0]) if len(group) == 1 else str(len(group))
            label = "; ".join(f"{moment(e['time'])}: {event_text(e)}" for e in group)
            signs.append(EventSign(self.at(group[0]["time"]), text, label))
        return signs

    def plot(self, chart: Chart, ticks: list[tuple[float, str]]) -> Plot:
        """The chart with a line at each event, and what is around it."""
        places = [self.at(event["time"]) for event in self.events]
        lines = [Line([(x, 0), (x, 100)], "line", dashes="2 2") for x in places]
        chart = chart._replace(lines=[*lines, *chart.lines])
        form = "%d %b" if self.last - self.first > 3 * 86400 else "%H:%M"
        middle = (self.first + self.last) / 2
        times = [moment(seconds, form) for seconds in (self.first, middle, self.last)]
        return Plot(chart, self.signs(), times, ticks)


def metric_plot(report: EnvironmentReport, axis: TimeAxis) -> Plot | None:
    """The metric of each version over time, its interval in the shade; None without any label."""
    content = report.content
    series = {int(version): entry["over_time"] for version, entry in content["versions"].items()}
    limits = limit_lines(content)
    values = [*limits.values()]
    for part in (part for parts in series.values() for part in parts):
        values += [v for v in (part["value"], *part["interval"]) if math.isfinite(v)]
    if not any(series.values()):
        return None
    low, high = min(values), max(values)
    margin = (high - low or abs(high) or 1) * 0.06

    def y(value: float) -> float:
        return 100 * (high + margin - value) / (high - low + 2 * margin)

    bars, dots = list[Bar](), list[Dot]()
    lines = [
        Line([(0, y(value)), (100, y(value))], LIMIT_COLORS[name], dashes="5 4")
        for name, value in limits.items()
    ]
    colors = version_colors(content)
    for version, parts in series.items():
        own_dots = []
        for part in parts:
            left, right = axis.at(part["from"]), axis.at(part["to"])
            bottom, top = (y(end) for end in part["interval"])
            if math.isfinite(bottom) and math.isfinite(top):
                bar = Bar(left, top, right - left, bottom - top, colors[version], opacity=0.16)
                bars.append(bar)
            label = f"version {version}, {moment(part['from'])}: {number(part['value'])}"
            label += f" ({interval(part['interval'])}), {part['rows']:,} rows"
            own_dots.append(Dot((left + right) / 2, y(part["value"]), colors[version], label))
        for (one, dot), (other, after) in pairwise(zip(parts, own_dots, strict=True)):
            if other["from"] - one["to"] < one["to"] - one["from"]:  # else a gap
                lines.append(Line([(dot.x, dot.y), (after.x, after.y)], colors[version]))
        dots += own_dots
    ticks = [(y(value), number(value)) for value in (high, (low + high) / 2, low)]
    return axis.plot(Chart(bars, lines, dots), ticks)


def traffic_plot(report: EnvironmentReport, axis: TimeAxis) -> Plot:
    """Rows by version over time, stacked; those of a shadow are pale."""
    colors = version_colors(report.content)
    traffic = report.traffic.sort_values(["time", "shadow", "version"])
    highest = int(traffic.groupby("time")["rows"].sum().max())
    below = traffic.groupby("time")["rows"].cumsum()
    bars = []
    for part, rows in zip(traffic.to_dict("records"), below, strict=True):
        left = axis.at(part["time"])
        width = 0.9 * (axis.at(part["time"] + report.bin_seconds) - left)
        label = f"{moment(part['time'])}: {part['rows']:,} rows, version {part['version']}"
        label += " (shadow)" if part["shadow"] else ""
        height = 95 * part["rows"] / highest
        color, opacity = colors.get(part["version"], "v5"), 0.4 if part["shadow"] else 1
        bars.append(Bar(left, 100 - 95 * rows / highest, width, height, color, label, opacity))
    return axis.plot(Chart(bars), [(5, f"{highest:,}"), (100, "0")])


def segment_chart(segment: dict[str, Any], low: float, high: float) -> Chart:
    """A segment's value and interval, and a tick at its value when the version was judged."""
    color = "alarm" if segment["worse"] else "v0"
    lines, dots = [], []

    def x(value: float) -> float:
        return 2 + 96 * (value - low) / (high - low or 1)

    if interval(segment["interval"]):
        lines.append(Line([(x(end), 50) for end in segment["interval"]], color, width=2))
    if math.isfinite(segment["reference"]):
        place = x(segment["reference"])
        lines.append(Line([(place, 0), (place, 100)], "dim", width=2))
    if math.isfinite(segment["value"]):
        dots.append(Dot(x(segment["value"]), 50, color))
    return Chart(lines=lines, dots=dots)
