"""What Prometheus reads from /metrics of the service."""

from collections.abc import Callable
from typing import Any

import prometheus_client as prometheus


class Metrics:
    """The service's counters, and gauges that are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        counter = prometheus.Counter
        self.requests = counter("requests", "Predictions asked for", ["status"], **own)
        self.rows = counter("rows", "Rows scored", ["version"], **own)
        self.refused = counter("refused_versions", "Versions that may not serve", **own)
        self.failed = counter("canary_failed", "Requests on which the canary failed", **own)
        self.seconds = prometheus.Histogram("seconds", "Time to answer", **own)
        self.version = prometheus.Gauge("model_version", "Version that answers", **own)
        self.share = prometheus.Gauge("canary_share", "Percent that the canary answers", **own)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge, and where its value comes from."""
        prometheus.Gauge(name, text, registry=self.registry).set_function(value)

    def page(self) -> tuple[bytes, str]:
        """The text, and its media type."""
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST
