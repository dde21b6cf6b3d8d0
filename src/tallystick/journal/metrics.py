"""The journal's metrics, made when a writer opens, so that readers work without prometheus_client."""

from __future__ import annotations

from functools import cache
from typing import Any

_SYNC_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class JournalMetrics:
    """`tallystick_journal_*`"""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.sync_seconds: Any = Histogram("tallystick_journal_sync_seconds", "Time of one fdatasync.", buckets=_SYNC_BUCKETS_S)
        self.commits: Any = Counter("tallystick_journal_commits", "Commits made durable.")
        self.entries: Any = Counter("tallystick_journal_entries", "Entries made durable.")
        self.bytes: Any = Counter("tallystick_journal_bytes", "Bytes made durable.")
        self.poisoned: Any = Counter("tallystick_journal_poisoned_segments", "Segments given up after a failed write or sync.")
        self.refused: Any = Counter("tallystick_journal_refused_appends", "Appends refused.", ["code"])
        self.queue_bytes: Any = Gauge("tallystick_journal_queue_bytes", "Bytes waiting for a commit.", multiprocess_mode="livesum")


@cache
def journal_metrics() -> JournalMetrics:
    """The one set of this process. Call after `telemetry.use_metrics_dir`."""
    return JournalMetrics()
