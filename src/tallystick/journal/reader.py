"""Reading the journal in another process (or offline): by frame, in order, never beyond the durable mark.

1. Every frame handed out has passed its CRC and its AEAD. What has not is a `DamagedSpan` in its place, named by segment,
   bytes and seqs, and reading goes on behind it; nobody has to remove a file for that.
2. The end of the active segment is the mark's offset; the end of an older one is what its successor's header says.
3. A segment that should be there and is not shows as a jump of seqs, and is a span as well.
   Read errors are not damage yet: for ``patience_s`` they are an UnreadableError and the position stays; the disk may come back.
4. A position stays usable when its segment is gone: reading goes on at the entry that its ``seq`` names.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tallystick.errors import IntegrityError, UnreadableError
from tallystick.journal.cursor import START, Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.mark import NO_MARK, Mark, MarkReader
from tallystick.journal.scan import BLOCK_BYTES, Gap, SegmentScanner, written_end
from tallystick.journal.segment import HEADER_BLOCK, KeyWrapper, SegmentHeader, list_segments

_POLL_S = (0.002, 0.02)


@dataclass(slots=True)
class DamagedSpan:
    """Bytes ``start`` to ``end`` (exclusive) of a segment hold no frame that can be believed.

    Entries ``first_seq`` to ``last_seq`` were there (none known to be when ``last_seq < first_seq``). ``lost`` maps handles to
    (first_index, count) as far as the frames read before and after show it; a follower that knows its tree sizes finds
    the same gap when the tenant's next frame begins behind it.
    """

    segment: bytes
    start: int
    end: int
    first_seq: int
    last_seq: int
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)


class JournalReader:
    """One follower's view. Not thread-safe. ``is_offline``: no writer runs; without a readable MARK the journal's end is
    looked for in the last segment. ``patience_s``: see rule 3; 0 takes what cannot be read for damaged at once."""

    def __init__(self, data_dir: Path, keys: KeyWrapper, *, is_offline: bool = False, patience_s: float = 60.0) -> None:
        self._directory = data_dir / "journal"
        self._keys = keys
        self._is_offline = is_offline
        self._patience_s = patience_s
        self._unreadable_since: float | None = None
        self._failing: list[Path] = []
        self._mark_reader = MarkReader(self._directory)
        self._last_mark = NO_MARK
        self._headers: dict[str, SegmentHeader] = {}
        self._segments: list[tuple[Path, SegmentHeader]] = []
        self._ends: dict[bytes, int] = {}
        self._fd = -1
        self._open_segment = b""
        self._scanner: SegmentScanner | None = None
        self._next_index: dict[str, int] = {}

    def mark(self) -> Mark:
        """The durable mark; the last one seen while the file cannot be read."""
        mark = self._mark_reader.read()
        if mark is None and self._is_offline and self._last_mark == NO_MARK:
            mark = self._search_end()
        if mark is not None:
            self._last_mark = mark
        return self._last_mark

    def oldest(self) -> Position:
        """Where the oldest segment that is still kept begins."""
        self._list()
        if not self._segments:
            return START
        header = self._segments[0][1]
        return Position(header.uuid, HEADER_BLOCK, header.first_seq)

    def read(self, position: Position, max_bytes: int = BLOCK_BYTES) -> tuple[list[Frame | DamagedSpan], Position]:
        """What follows ``position``, about ``max_bytes`` of it, and the position behind that; nothing at the mark.

        Raises UnreadableError while the disk does not give what is next, and then can be called again.
        """
        mark = self.mark()
        if not mark.seq and mark.segment == NO_MARK.segment:
            return [], position
        place = self._find(position.segment)
        if place is None:
            return self._find_by_seq(position)
        header = self._segments[place][1]
        limit = self._limit(place, mark)
        if limit is None:
            self._list()  # the mark has moved on, so a successor is there, and its header names this end
            place = self._find(position.segment)
            limit = self._limit(place, mark) if place is not None else None
        if place is None or limit is None:
            return [], position
        if position.offset < limit:
            return self._read_frames(place, position, limit, max_bytes, mark)
        if header.uuid == mark.segment:
            return [], position
        return self._next_segment(place, position)

    def wait(self, position: Position, timeout_s: float, stop: threading.Event | None = None) -> bool:
        """True as soon as there is something to read at ``position``; False after ``timeout_s`` seconds or at ``stop``."""
        deadline = time.monotonic() + timeout_s
        delay = _POLL_S[0]
        stop = stop or threading.Event()
        while True:
            mark = self.mark()
            if mark != NO_MARK and (mark.segment != position.segment or mark.offset > position.offset):
                return True
            left = deadline - time.monotonic()
            if left <= 0 or stop.wait(min(delay, left)):
                return False
            delay = min(delay * 1.5, _POLL_S[1])

    def close(self) -> None:
        self._mark_reader.close()
        self._close_segment()

    def _list(self) -> None:
        listed = list_segments(self._directory, self._headers)
        self._segments = listed.segments
        self._failing = listed.failing
        self._headers = {path.name: header for path, header in listed.segments}
        self._ends = listed.ends()

    def _find(self, segment: bytes) -> int | None:
        for attempt in range(2):
            for place, (_, header) in enumerate(self._segments):
                if header.uuid == segment:
                    return place
            if not attempt:
                self._list()
        return None

    def _limit(self, place: int, mark: Mark) -> int | None:
        """Where the valid bytes of a segment end; None when that is not known yet."""
        path, header = self._segments[place]
        if header.uuid == mark.segment:
            return mark.offset
        end = self._ends.get(header.uuid)
        if end is None and place + 1 < len(self._segments):
            end = self._ends[header.uuid] = written_end(path, HEADER_BLOCK)  # its successor, which would say it, is gone
        return end

    def _find_by_seq(self, position: Position) -> tuple[list[Frame | DamagedSpan], Position]:
        """The position's segment is not here: begin where its next entry is, or declare what is missing before that."""
        place = 0
        for number, (_, header) in enumerate(self._segments):
            if header.first_seq <= position.seq:
                place = number
        if not self._segments:
            return [], position
        header = self._segments[place][1]
        seq = max(position.seq, header.first_seq)
        return self._jump(position, header.first_seq), Position(header.uuid, HEADER_BLOCK, seq)

    def _next_segment(self, place: int, position: Position) -> tuple[list[Frame | DamagedSpan], Position]:
        if place + 1 >= len(self._segments):
            self._list()
            found = self._find(position.segment)
            if found is None or found + 1 >= len(self._segments):
                return [], position
            place = found
        header = self._segments[place + 1][1]
        return self._jump(position, header.first_seq), Position(header.uuid, HEADER_BLOCK, max(position.seq, header.first_seq))

    def _jump(self, position: Position, first_seq: int) -> list[Frame | DamagedSpan]:
        if first_seq <= position.seq:
            return []
        if self._failing:
            self._segments = []  # listed anew by the next call
            self._be_patient(str(self._failing[0]), "a header gives read errors")
        return [DamagedSpan(position.segment, position.offset, position.offset, position.seq, first_seq - 1)]

    def _read_frames(
        self, place: int, position: Position, limit: int, max_bytes: int, mark: Mark
    ) -> tuple[list[Frame | DamagedSpan], Position]:
        scanner = self._scanner_for(place)
        items, offset = scanner.read(position.offset, limit, max_bytes)
        while isinstance(items[-1], Gap) and offset < limit:
            unreadable = scanner.unreadable
            more, offset = scanner.read(offset, limit, max_bytes)  # the frame behind a gap says which seqs it held
            scanner.unreadable = unreadable or scanner.unreadable
            items += more
        if scanner.unreadable is None:
            self._unreadable_since = None
        elif any(isinstance(item, Gap) for item in items):
            self._be_patient(str(self._segments[place][0]), scanner.unreadable.strerror or "read error")
        header = self._segments[place][1]
        end_seq = mark.seq + 1
        if header.uuid != mark.segment:
            end_seq = self._segments[place + 1][1].first_seq if place + 1 < len(self._segments) else position.seq
        judged, seq = self._judge(items, header.uuid, position.seq, end_seq)
        return judged, Position(header.uuid, offset, seq)

    def _be_patient(self, place: str, what: str) -> None:
        """Raises UnreadableError until the patience is at its end; from then on the damage is believed."""
        now = time.monotonic()
        if self._unreadable_since is None:
            self._unreadable_since = now
        if now < self._unreadable_since + self._patience_s:
            raise UnreadableError(
                f"the journal cannot be read: {what}", place=place, hint="Tried again; check the disk if this goes on"
            )

    def _judge(self, items: list[Frame | Gap], segment: bytes, seq: int, end_seq: int) -> tuple[list[Frame | DamagedSpan], int]:
        """Open every frame, and give damage its seqs: from the frames before and behind it."""
        judged: list[Frame | DamagedSpan] = []
        span: DamagedSpan | None = None
        for item in items:
            if isinstance(item, Gap) or not _is_authentic(item):
                start, end = (item.start, item.end) if isinstance(item, Gap) else (item.offset, item.end)
                if judged and judged[-1] is span and span is not None:
                    span.end = end
                else:
                    span = DamagedSpan(segment, start, end, seq, end_seq - 1)
                    judged.append(span)
                continue
            if span is not None:
                if judged[-1] is span:
                    span.last_seq = item.first_seq - 1
                self._attribute(item, span)
            if item.count and item.next_seq <= seq:
                continue  # handled before: the position was found by its seq
            if item.type == FrameType.EVENTS:
                self._next_index[item.handle] = item.first_index + item.count
            seq = max(seq, item.next_seq)
            judged.append(item)
        if judged and judged[-1] is span and span is not None:
            seq = max(seq, end_seq)
        return judged, seq

    def _attribute(self, frame: Frame, span: DamagedSpan) -> None:
        """Say which of a tenant's indexes ``span`` took, when the tenant's next frame or a mark frame shows it."""
        if frame.type == FrameType.EVENTS:
            sizes = {frame.handle: frame.first_index}
        elif frame.type == FrameType.MARK:
            sizes = msgspec.json.decode(frame.records()[0])["next"]
        else:
            return
        for handle, size in sizes.items():
            expected = self._next_index.get(handle)
            if expected is not None and size > expected:
                span.lost[handle] = (expected, size - expected)
                self._next_index[handle] = size

    def _scanner_for(self, place: int) -> SegmentScanner:
        path, header = self._segments[place]
        if self._scanner is None or self._open_segment != header.uuid:
            self._close_segment()
            key = self._keys.unwrap(header.wrapped_key, header.uuid)
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                raise UnreadableError(f"a segment cannot be opened: {error.strerror}", place=str(path)) from error
            self._open_segment = header.uuid
            self._scanner = SegmentScanner(self._fd, header, key)
        return self._scanner

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._scanner = None

    def _search_end(self) -> Mark | None:
        """Offline, without MARK: the end of the last whole group in the last segment."""
        self._list()
        if not self._segments:
            return None
        path, header = self._segments[-1]
        seq, end, offset = header.first_seq - 1, HEADER_BLOCK, HEADER_BLOCK
        scanner, limit = self._scanner_for(len(self._segments) - 1), path.stat().st_size
        while offset < limit:
            items, offset = scanner.read(offset, limit)
            for frame in items:
                if isinstance(frame, Frame) and frame.is_last_of_group:
                    seq, end = max(seq, frame.next_seq - 1), frame.end
        return Mark(seq, header.uuid, end, header.epoch)


def _is_authentic(frame: Frame) -> bool:
    try:
        frame.payload()
    except IntegrityError:
        return False
    return True
