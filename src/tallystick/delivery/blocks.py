"""Which part of the journal holds which events, and the parts read last.

The journal is in order of acceptance over all tenants; a destination reads one tenant by index. While following the journal
once, this notes for each *block* (a run of frames of a few MiB) and each tenant in it the bounds of its indexes: 24 bytes,
however small the frames are. A lookup is a bisection; the block is then read again, unless it is among those kept. Frames are
kept as they lie on disk, encrypted and compressed, within ``cache_bytes``; opened ones within a quarter of that.

Not thread-safe; `events.EventReader` holds a lock around it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from tallystick.journal.cursor import Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan

BLOCK_BYTES = 4 << 20
_READ_BYTES = 2 << 20


class Journal(Protocol):
    """What is needed of `journal.reader.JournalReader`."""

    def oldest(self) -> Position: ...

    def read(self, position: Position, max_bytes: int = ...) -> tuple[list[Frame | DamagedSpan], Position]: ...


@dataclass(slots=True)
class _Block:
    start: Position
    items: int = 0
    size: int = 0


@dataclass(slots=True)
class _Spans:
    """Of one tenant, ascending: bounds [first, end) and the block's number."""

    first: array[int] = field(default_factory=lambda: array("Q"))
    end: array[int] = field(default_factory=lambda: array("Q"))
    block: array[int] = field(default_factory=lambda: array("Q"))


class JournalBlocks:
    """Follows the journal from its oldest segment and finds events in it."""

    def __init__(self, journal: Journal, again: Journal, cache_bytes: int) -> None:
        """``journal`` is followed in order; ``again``, another reader of the same files, reads blocks a second time."""
        self._journal = journal
        self._again = again
        self._cache_bytes = cache_bytes
        self._blocks: dict[int, _Block] = {}
        self._open = 0
        self._spans: dict[str, _Spans] = {}
        self._lost: dict[str, list[tuple[int, int]]] = {}
        self._frames: OrderedDict[int, dict[str, list[Frame]]] = OrderedDict()
        self._frames_bytes = 0
        self._lines: OrderedDict[tuple[bytes, int], list[bytes]] = OrderedDict()
        self._lines_bytes = 0
        self._position: Position | None = None

    def advance(self) -> None:
        """Read on to the durable mark. Raises OSError; then the next call goes on where this one stopped."""
        while True:
            position = self._position or self._journal.oldest()
            items, after = self._journal.read(position, _READ_BYTES)
            if not items and after == position:
                self._position = position
                return
            block = self._blocks.get(self._open)
            if block is None or block.size >= BLOCK_BYTES:
                self._open += 1
                block = self._blocks[self._open] = _Block(position)
                self._frames[self._open] = {}
            for item in items:
                self._note(item, self._open)
            block.items += len(items)
            frames = _event_frames(items)
            block.size += sum(frame.size for frame in frames)
            if self._open in self._frames:
                self._add_frames(self._open, frames)
            self._position = after

    def forget_retired(self) -> None:
        """Let go of blocks whose segment was deleted: the archive has their events."""
        oldest = self._journal.oldest()
        retired = [number for number, block in self._blocks.items() if block.start.seq < oldest.seq and number != self._open]
        if not retired:
            return
        bound = max(retired)
        for number in retired:
            del self._blocks[number]
            self._drop(number)
        for spans in self._spans.values():
            count = bisect_right(spans.block, bound)
            del spans.first[:count], spans.end[:count], spans.block[:count]

    def lines_from(self, handle: str, index: int) -> list[bytes] | None:
        """The lines from ``index`` to the end of its frame; None when the journal does not have it (any more)."""
        number = self._find(handle, index)
        if number is None:
            return None
        frames = self._load(number).get(handle, [])
        at = bisect_right(frames, index, key=lambda frame: frame.first_index) - 1
        if at < 0 or index >= frames[at].first_index + frames[at].count:
            return None
        lines = self._open_frame(frames[at])
        skip = index - frames[at].first_index
        return lines[skip:] if skip else lines

    def is_lost(self, handle: str, index: int) -> bool:
        """Whether the journal itself declares the index lost, in a `lost` frame or by damage."""
        return any(first <= index < first + count for first, count in self._lost.get(handle, ()))

    def gap_end(self, handle: str, index: int) -> int | None:
        """If the journal has events of the tenant before ``index`` and behind it, but not it: the first one behind it."""
        number = self._find(handle, index)
        if number is not None:  # inside a block's bounds, between two of its frames
            firsts = [frame.first_index for frame in self._load(number).get(handle, [])]
            at = bisect_right(firsts, index)
            return firsts[at] if 0 < at < len(firsts) else None
        spans = self._spans.get(handle)
        at = bisect_right(spans.first, index) if spans is not None else 0
        return spans.first[at] if spans is not None and 0 < at < len(spans.first) else None

    def _find(self, handle: str, index: int) -> int | None:
        spans = self._spans.get(handle)
        if spans is None:
            return None
        at = bisect_right(spans.first, index) - 1
        return spans.block[at] if at >= 0 and index < spans.end[at] else None

    def _note(self, item: Frame | DamagedSpan, number: int) -> None:
        if not isinstance(item, Frame):
            for handle, (first, count) in item.lost.items():
                self._lost.setdefault(handle, []).append((first, count))
        elif item.type == FrameType.LOST:
            self._lost.setdefault(item.handle, []).append((item.first_index, item.count))
        elif item.type == FrameType.EVENTS:
            spans = self._spans.setdefault(item.handle, _Spans())
            end = item.first_index + item.count
            if spans.block and spans.block[-1] == number:
                spans.end[-1] = end
            else:
                spans.first.append(item.first_index)
                spans.end.append(end)
                spans.block.append(number)

    def _load(self, number: int) -> dict[str, list[Frame]]:
        kept = self._frames.get(number)
        if kept is not None:
            self._frames.move_to_end(number)
            return kept
        block = self._blocks[number]
        frames: list[Frame] = []
        position, seen = block.start, 0
        while seen < block.items:
            items, after = self._again.read(position, _READ_BYTES)
            if not items and after == position:
                break
            frames += _event_frames(items[: block.items - seen])
            seen += len(items)
            position = after
        self._frames[number] = {}
        self._add_frames(number, frames)
        return self._frames[number]

    def _add_frames(self, number: int, frames: list[Frame]) -> None:
        by_handle = self._frames[number]
        for frame in frames:
            by_handle.setdefault(frame.handle, []).append(frame)
            self._frames_bytes += frame.size
        while self._frames_bytes > self._cache_bytes and len(self._frames) > 1:
            self._drop(next(other for other in self._frames if other != number))

    def _drop(self, number: int) -> None:
        frames = self._frames.pop(number, None)
        if frames is not None:
            self._frames_bytes -= sum(frame.size for group in frames.values() for frame in group)

    def _open_frame(self, frame: Frame) -> list[bytes]:
        key = frame.segment, frame.offset
        lines = self._lines.get(key)
        if lines is not None:
            self._lines.move_to_end(key)
            return lines
        lines = frame.lines()
        self._lines[key] = lines
        self._lines_bytes += sum(map(len, lines))
        while self._lines_bytes > self._cache_bytes // 4 and len(self._lines) > 1:
            _, old = self._lines.popitem(last=False)
            self._lines_bytes -= sum(map(len, old))
        return lines


def _event_frames(items: list[Frame | DamagedSpan]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame) and item.type == FrameType.EVENTS]
