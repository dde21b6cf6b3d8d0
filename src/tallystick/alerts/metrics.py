"""The metrics of alerts, made when the follower starts."""

from __future__ import annotations

from functools import cache
from typing import Any


class AlertMetrics:
    """`tallystick_alerts_*`"""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge

        self.raised: Any = Counter("tallystick_alerts", "Alerts that were appended as events.", ["rule"])
        self.lag: Any = Gauge(
            "tallystick_alerts_lag_events", "Entries of the journal that no rule has judged yet.", multiprocess_mode="livemax"
        )


@cache
def alert_metrics() -> AlertMetrics:
    """The one set of this process. Call after `telemetry.use_metrics_dir`."""
    return AlertMetrics()
