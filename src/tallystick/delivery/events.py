"""Sealed events of a tenant by index: from the journal while it is there, else from the archive.

Looking in that order is safe against the archiver: it makes an event readable in the archive before its segment goes. An index that
neither has is a gap, with the reason that the dead letter will carry:

- ``lost``     the journal or the archiver declared it lost, or the journal has the tenant's events before and after it
- ``expired``  the archive's period for it is over, or its month's or person's key was destroyed
- ``damaged``  its chunk does not decrypt; once restored, the dead letter can be replayed

What is sealed but merely not readable now (the journal's reader fails, the archive store is down) is no gap: it raises
TransientError, and the lane tries again later.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from tallystick.delivery.blocks import Journal, JournalBlocks
from tallystick.errors import DestinationUnavailableError, IntegrityError, NotFoundError, TransientError

_ARCHIVE_STEP = 10_000


@dataclass(slots=True)
class Span:
    """Consecutive events from ``first``: ``lines[k]`` is index ``first + k``, empty where ``gaps`` has that index."""

    first: int
    lines: list[bytes] = field(default_factory=list)
    gaps: dict[int, str] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.first + len(self.lines)


class Archive(Protocol):
    """What is needed of the archive. ``mark``: the first index not archived; ``lines``: those it still has; ``lost``: spans
    (first, count) that were gone before they could be archived."""

    def mark(self, handle: str) -> int: ...

    def lines(self, handle: str, first_index: int, count: int) -> list[tuple[int, bytes]]: ...

    def lost(self, handle: str) -> list[tuple[int, int]]: ...


class Reader(Protocol):
    """What a lane needs of `EventReader`."""

    def read(self, handle: str, first: int, end: int, max_events: int, max_bytes: int) -> Span: ...


class EventReader:
    """Shared by all destinations of a process; may be called from several threads."""

    def __init__(self, journal: Journal, again: Journal, archive: Archive, cache_bytes: int) -> None:
        """``journal`` and ``again`` are two readers of the same files (see `blocks`)."""
        self._blocks = JournalBlocks(journal, again, cache_bytes)
        self._archive = archive
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Follow the journal to its durable mark, and let go of what was retired. Raises OSError."""
        with self._lock:
            self._blocks.advance()
            self._blocks.forget_retired()

    def read(self, handle: str, first: int, end: int, max_events: int, max_bytes: int) -> Span:
        """Events from ``first`` to before ``end``, about as many as the limits allow (a frame is not divided). Raises TransientError.

        ``end`` must not be beyond what is sealed.
        """
        span, size = Span(first), 0
        while span.end < end and len(span.lines) < max_events and size < max_bytes:
            lines = self._from_journal(handle, span.end)
            if lines is not None:
                lines = lines[: end - span.end] if len(lines) > end - span.end else lines
                span.lines += lines
                size += sum(map(len, lines))
                continue
            size += self._add_from_archive(handle, span, min(end, span.end + _ARCHIVE_STEP, span.end + max_events))
        return span

    def _from_journal(self, handle: str, index: int) -> list[bytes] | None:
        try:
            with self._lock:
                return self._blocks.lines_from(handle, index)
        except FileNotFoundError:
            return None  # the segment was retired a moment ago: its events are in the archive
        except OSError as error:
            raise DestinationUnavailableError(f"the journal cannot be read: {error}") from error

    def _add_from_archive(self, handle: str, span: Span, end: int) -> int:
        """Append what the archive has up to ``end``, with gaps for what is gone; returns the bytes added."""
        mark = self._archive.mark(handle)
        if span.end >= mark:
            self._add_gap(handle, span, end)
            return 0
        end = min(end, mark)
        found, gone = self._read_archive(handle, span.end, end)
        if len(found) + len(gone) < end - span.end:
            # Asked once more before anything counts as gone: a catalog that is just being made anew has no rows.
            if self._archive.mark(handle) < end:
                raise TransientError("the archive's catalog is being made anew", place=handle)
            found, gone = self._read_archive(handle, span.end, end)
        lost = self._archive.lost(handle) if len(found) < end - span.end else []
        for index in range(span.end, end):
            line = found.get(index)
            if line is None:
                is_lost = any(first <= index < first + count for first, count in lost) or self._is_lost(handle, index)
                span.gaps[index] = gone.get(index) or ("lost" if is_lost else "expired")
            span.lines.append(line or b"")
        return sum(map(len, found.values()))

    def _read_archive(self, handle: str, first: int, end: int) -> tuple[dict[int, bytes], dict[int, str]]:
        """Lines, and reasons of what cannot be had: a chunk whose key is destroyed or that is damaged costs its own events only."""
        try:
            return dict(self._archive.lines(handle, first, end - first)), {}
        except (NotFoundError, IntegrityError) as error:
            if end - first == 1:
                return {}, {first: "damaged" if isinstance(error, IntegrityError) else "expired"}
        middle = (first + end) // 2
        low, high = self._read_archive(handle, first, middle), self._read_archive(handle, middle, end)
        return low[0] | high[0], low[1] | high[1]

    def _add_gap(self, handle: str, span: Span, end: int) -> None:
        """Indexes that are not archived and not in the journal: lost if the journal says so or has events around them."""
        index = span.end
        with self._lock:
            if self._blocks.lines_from(handle, index) is not None:
                return  # it was read while the archive was asked: no gap, and the caller looks again
            following = self._blocks.gap_end(handle, index)
        if following is None and not self._is_lost(handle, index):
            raise TransientError(f"event {index} is sealed but cannot be read yet", place=handle)
        for lost in range(index, min(end, following or index + 1)):
            span.gaps[lost] = "lost"
            span.lines.append(b"")

    def _is_lost(self, handle: str, index: int) -> bool:
        with self._lock:
            return self._blocks.is_lost(handle, index)
