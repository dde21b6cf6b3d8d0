"""What would expire when: the catalog's chunks against the periods in force. Pure; changes nothing.

An event may go when its period since `received_at` is over. Chunks go whole, so a chunk is due when its last event is; the sums
here are those of chunks. A chunk none of whose events says when it was received, or whose class has no period, is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tallystick.archive.catalog import ChunkRow

PeriodOf = Callable[[str, str], float | None]
"""Seconds that events of a tenant (by handle) and class are kept; None: for ever."""


@dataclass(slots=True)
class PlanLine:
    """All chunks of one tenant, class and month. Times are Unix seconds; None: never. ``first``, ``last``: inclusive indexes.

    The first of them expires at ``expires_from``, the last at ``expires_at``; ``due_events`` and ``due_bytes`` already.
    """

    handle: str
    retention_class: str
    month: str
    chunks: int = 0
    events: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    expires_from: float | None = None
    expires_at: float | None = None
    due_chunks: int = 0
    due_events: int = 0
    due_bytes: int = 0


def expires_at(row: ChunkRow, period_s: float | None) -> float | None:
    """The Unix second from which on a chunk is due; None: never."""
    return None if period_s is None or row.received_max is None else row.received_max / 1e6 + period_s


def plan_expiry(rows: Iterable[ChunkRow], period_of: PeriodOf, now: float) -> list[PlanLine]:
    """One line for each tenant, class and month, in the order in which they expire; those that never do come last."""
    lines: dict[tuple[str, str, str], PlanLine] = {}
    for row in rows:
        key = row.handle, row.retention_class, row.month
        line = lines.get(key)
        if line is None:
            line = lines[key] = PlanLine(*key, first=row.first, last=row.last)
        line.chunks += 1
        line.events += row.count
        line.bytes += row.size
        line.first, line.last = min(line.first, row.first), max(line.last, row.last)
        at = expires_at(row, period_of(row.handle, row.retention_class))
        if at is None:
            continue
        line.expires_from = at if line.expires_from is None else min(line.expires_from, at)
        line.expires_at = at if line.expires_at is None else max(line.expires_at, at)
        if at <= now:
            line.due_chunks += 1
            line.due_events += row.count
            line.due_bytes += row.size
    return sorted(lines.values(), key=lambda line: (line.expires_from is None, line.expires_from or 0.0, line.handle))
