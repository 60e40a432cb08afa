"""What Prometheus reads from /metrics of the service."""

from collections.abc import Callable
from typing import Any

import prometheus_client as prometheus


class Metrics:
    """Counters and gauges; those of `sources` are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus.Counter("requests", "Predictions asked for", ["status"], **named)
        self.rows = prometheus.Counter("rows", "Rows scored", ["version"], **named)
        self.seconds = prometheus.Histogram("seconds", "Time to answer", **named)
        self.version = prometheus.Gauge("model_version", "Version that answers", **named)
        self.share = prometheus.Gauge("canary_share", "Percent that the canary answers", **named)
        self.refused = prometheus.Counter(
            "refused_versions", "Versions that may not serve", **named
        )
        self.failed = prometheus.Counter(
            "canary_failed", "Requests that the main version answered for it", **named
        )

    def watch(self, sources: dict[str, tuple[str, Callable[[], float]]]) -> None:
        """Gauges by name: what each is, and where its value comes from."""
        for name, (text, source) in sources.items():
            prometheus.Gauge(name, text, registry=self.registry).set_function(source)

    def page(self) -> tuple[bytes, str]:
        """The text, and its media type."""
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST
