"""The archiver's metrics, made when it starts."""

from __future__ import annotations

from functools import cache
from typing import Any


class ArchiveMetrics:
    """`tallystick_archive_*`"""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge

        self.events: Any = Counter("tallystick_archive_events", "Events archived.")
        self.chunks: Any = Counter("tallystick_archive_chunks", "Chunks written by the archiver, merged ones included.")
        self.bytes: Any = Counter("tallystick_archive_bytes", "Bytes of chunks written, merged ones included.")
        self.merged: Any = Counter("tallystick_archive_merged_chunks", "Chunks that were merged into others.")
        self.retries: Any = Counter("tallystick_archive_retries", "Rounds that failed and were tried again.")
        self.waiting_bytes: Any = Gauge(
            "tallystick_archive_waiting_bytes", "Bytes of lines that wait to be archived.", multiprocess_mode="livesum"
        )
        self.expired: Any = Counter("tallystick_retention_expired_events", "Events that expired.")
        self.due: Any = Gauge(
            "tallystick_retention_due_events",
            "Archived events past their period that are not gone yet.",
            multiprocess_mode="livesum",
        )
        self.braked: Any = Gauge(
            "tallystick_retention_braked", "1 while expiry is stopped until a person lets it go on.", multiprocess_mode="livesum"
        )


@cache
def archive_metrics() -> ArchiveMetrics:
    """The one set of this process. Call after `telemetry.use_metrics_dir`."""
    return ArchiveMetrics()
