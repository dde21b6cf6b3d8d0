"""How far a source that reads from a broker or a database is, for status and metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Gauge

from tallystick.event.times import format_utc

_LAG = Gauge(
    "tallystick_source_lag",
    "What the other side holds for a source and the source has not taken yet: records, or bytes of write-ahead log (postgresql).",
    ["source"],
    multiprocess_mode="livemax",
)
_MISSING = Counter("tallystick_source_missing", "Records that were gone before a source could read them.", ["source"])
_REPEATS = Counter("tallystick_source_repeats", "Records that the other side handed to a source again.", ["source"])


class Progress:
    """Counts since the start of one run. ``lag`` is None while it is not known; ``reason``: what is wrong though it runs."""

    def __init__(self, name: str) -> None:
        self.lag: int | None = None
        self.reason = ""
        self.last_success = ""
        self._missing = 0
        self._repeats = 0
        self._lag_gauge, self._missing_counter = _LAG.labels(name), _MISSING.labels(name)
        self._repeats_counter = _REPEATS.labels(name)

    def took(self) -> None:
        """Something was made durable and acknowledged just now."""
        self.last_success = format_utc(datetime.now(UTC))

    def set_lag(self, lag: int) -> None:
        self.lag = lag
        self._lag_gauge.set(lag)

    def add_missing(self, count: int) -> None:
        self._missing += count
        self._missing_counter.inc(count)

    def add_repeats(self, count: int) -> None:
        if count:
            self._repeats += count
            self._repeats_counter.inc(count)

    def status(self) -> dict[str, Any]:
        """The members that every such source has in `/v1/status`."""
        return {
            "lag": self.lag,
            "last_success": self.last_success,
            "missing": self._missing,
            "repeats": self._repeats,
            "reason": self.reason,
        }
