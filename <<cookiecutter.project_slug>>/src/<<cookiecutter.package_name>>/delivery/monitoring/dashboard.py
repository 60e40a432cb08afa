"""The dashboard reports/monitor.html, and monitor.md for the summary of a workflow."""

import math
from typing import Any

from ...continuous_training.drift.charts import share_bars
from ...continuous_training.drift.pages import render
from . import charts
from .collect import EnvironmentReport, main_version

EVENTS = 20  # the newest ones, which are listed


def headline(content: dict[str, Any]) -> str:
    """The state of an environment in a few words."""
    env, version = content["environment"], content["version"]
    main = main_version(content)
    names = sorted({alert["name"].replace("_", " ") for alert in content["alerts"]})
    if not version:
        return f"{env}: nothing is deployed, and nothing was predicted yet"
    if "degradation" in names:
        return f"{env}: version {version} is worse than allowed"
    if names:
        return f"{env}: version {version} needs attention: {', '.join(names)}"
    if not main:
        return f"{env}: version {version} serves, no predictions yet"
    if not main.get("labelled"):
        return f"{env}: version {version} answers, no labels yet"
    if not main["enough_labels"]:
        return f"{env}: version {version} answers, too few labels to judge it"
    return f"{env}: version {version} is healthy"


def roles(content: dict[str, Any]) -> dict[str, str]:
    """What each version is: main, shadow, beside (it answers too), or before."""
    words = {}
    for version, entry in content["versions"].items():
        other = "shadow" if entry["shadow"] else "beside" if entry.get("comparison") else "before"
        words[version] = "main" if int(version) == content["version"] else other
    return words


def page(report: EnvironmentReport) -> str:
    """reports/monitor.html."""
    content = report.content
    main = main_version(content)
    plots = {}
    if len(report.traffic):
        axis = charts.TimeAxis(report)
        plots = {
            "metric": charts.metric_plot(report, axis),
            "traffic": charts.traffic_plot(report, axis),
        }
    return render(
        "delivery/monitoring/monitor.html.jinja",
        title=headline(content),
        report=content,
        main=main,
        state="bad" if content["alerts"] else "good" if main.get("enough_labels") else "unknown",
        versions=sorted(content["versions"].items(), key=lambda item: -int(item[0])),
        roles=roles(content),
        colors=charts.version_colors(content),
        limits=charts.limit_lines(content),
        limit_colors=charts.LIMIT_COLORS,
        plots=plots,
        segments=_segments(main),
        features=_features(report),
        fitted_rows=report.drift_counts.fitted_rows if report.drift_counts else 0,
        events=[
            (event["time"], charts.event_sign(event), charts.event_text(event))
            for event in report.events[: -EVENTS - 1 : -1]
        ],
    )


def _segments(main: dict[str, Any]) -> list[tuple[dict[str, Any], charts.Chart]]:
    """The segments with their charts on one scale, those that are worse first."""
    parts = main.get("segments", [])
    ends = [end for p in parts for end in (p["value"], p["reference"], *p["interval"])]
    ends = [end for end in ends if math.isfinite(end)]
    if not ends:
        return []
    return [
        (part, charts.segment_chart(part, min(ends), max(ends)))
        for part in sorted(parts, key=lambda part: not part["worse"])
    ]


def _features(report: EnvironmentReport) -> list[tuple[str, dict[str, Any], list[charts.Chart]]]:
    """The features that can be compared, each with its measures and its chart; drifted ones first."""
    counts = report.drift_counts
    if counts is None:
        return []
    drift = report.content["drift"].items()
    return [
        (name, measures, [share_bars(counts.bins[name], counts.reference[name], counts.live[name])])
        for name, measures in sorted(drift, key=lambda i: (not i[1]["drifted"], -i[1]["psi"]))
    ]


def markdown(content: dict[str, Any]) -> str:
    """reports/monitor.md."""
    template = "delivery/monitoring/monitor.md.jinja"
    return render(template, title=headline(content), report=content, roles=roles(content))
