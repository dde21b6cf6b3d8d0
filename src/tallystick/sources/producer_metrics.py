"""The metrics of producers' numbers, made when the follower starts."""

from __future__ import annotations

from functools import cache
from typing import Any


class ProducerMetrics:
    """`tallystick_producer_*`"""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge

        self.found: Any = Counter(
            "tallystick_producer_findings",
            "Producers' numbers on record in accounts: missing (`sequence`), `late`, come again (`repeat`), and restarts.",
            ["reason"],
        )
        self.watched: Any = Gauge(
            "tallystick_producers_watched", "Producers whose numbers are watched.", multiprocess_mode="livesum"
        )


@cache
def producer_metrics() -> ProducerMetrics:
    """The one set of this process. Call after `telemetry.use_metrics_dir`."""
    return ProducerMetrics()
