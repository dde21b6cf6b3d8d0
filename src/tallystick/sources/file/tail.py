"""One file that is being read: its bytes become records, and its entry learns how far it is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystick.plugin import Fault, Record
from tallystick.protocols.joining import Joined
from tallystick.protocols.lines import LineSplitter
from tallystick.sources.file.register import HEAD_BYTES, TAIL_BYTES, Entry, digest
from tallystick.sources.file.settings import FileSettings
from tallystick.sources.file.stream import ByteStream

TOO_LONG = "line_too_long"
_BOM = b"\xef\xbb\xbf"


class RewrittenError(Exception):
    """The file no longer holds what was read of it: it was truncated or written anew."""


@dataclass(slots=True)
class Portion:
    """What one or several files gave: one commit. ``size`` is in bytes."""

    records: list[Record] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    size: int = 0


class Tail:
    """Reads on where its entry's offset is. After each `read`, `settle` once what it gave is durable. Blocking."""

    def __init__(self, stream: ByteStream, entry: Entry, settings: FileSettings, now: float) -> None:
        self.stream = stream
        self.entry = entry
        self.grew_at = now
        self.is_linked = True
        self.is_at_end = False
        self.is_ending = False
        self._splitter = LineSplitter(entry.offset, settings.line_max.bytes)
        self._joiner = settings.joiner(entry.given)
        self._head = self._recent = b""
        if not stream.is_compressed:
            self._head = stream.peek(0, min(entry.offset, HEAD_BYTES))
            start = max(0, entry.offset - TAIL_BYTES)
            self._recent = stream.peek(start, entry.offset - start)
        stream.skip_to(entry.offset)

    @property
    def inode(self) -> tuple[int, int]:
        """Of the file that is open: a compressed one is not the one that its entry was made for."""
        return self.stream.stat.st_dev, self.stream.stat.st_ino

    @property
    def unread_bytes(self) -> int:
        """Bytes of the file as stored that were not read yet; 0 for compressed ones, whose length nobody knows."""
        return 0 if self.stream.is_compressed else max(0, self.entry.size - self.stream.position)

    @property
    def is_idle(self) -> bool:
        """Nothing unread, nothing held."""
        return self.is_at_end and not self.unread_bytes and not self._joiner.is_holding and not self._splitter.held_bytes

    def is_rewritten(self) -> bool:
        """Whether the file no longer holds what was read of it. Else its size is noted."""
        if self.stream.is_compressed:
            return False
        size, position, recent = self.stream.size(), self.stream.position, self._recent
        if size < position or self.stream.peek(position - len(recent), len(recent)) != recent:
            return True
        self.entry.size = size
        return False

    def read(self, portion: Portion, size: int, now: float) -> None:
        """Put records of the next ``size`` bytes into the portion. Raises RewrittenError, DamagedFileError, OSError."""
        if self.is_rewritten():
            raise RewrittenError
        block = self.stream.read(size)
        self.is_at_end = len(block) < size
        if block:
            self.grew_at = now
            if self.stream.position - len(block) < HEAD_BYTES:
                self._head = (self._head + block)[:HEAD_BYTES]
            self._recent = (self._recent + block)[-TAIL_BYTES:]
        found = self._joiner.add(self._splitter.feed(block), now) if block else []
        found += self._joiner.expire(now)
        if block or found:
            self._put(portion, found, len(block))

    def end(self, portion: Portion, now: float) -> None:
        """Nothing more will come: the last line, also without its line feed, and what is held."""
        self.is_ending = True
        self._put(portion, [*self._joiner.add(self._splitter.rest(), now), *self._joiner.flush()], 0)

    def settle(self) -> None:
        """What `read` or `end` gave is durable."""
        entry, held = self.entry, self._joiner.held_from
        entry.offset = self._splitter.start if held is None else held
        entry.given = sorted(place for place in self._joiner.given if place > entry.offset)
        entry.is_done = self.is_ending
        entry.size, entry.modified_ns = self.stream.stat.st_size, self.stream.stat.st_mtime_ns
        if self._head:
            entry.head, entry.head_size = digest(self._head), len(self._head)
        if self._recent:
            entry.tail, entry.tail_size, entry.tail_end = digest(self._recent), len(self._recent), self.stream.position

    def _put(self, portion: Portion, found: list[Joined], size: int) -> None:
        key, path = self.entry.key, self.entry.path
        for start, data, full_size in found:
            if full_size > len(data):
                message = f"the line at byte {start} of {path} has {full_size} bytes; its first {len(data)} are kept"
                portion.faults.append(Fault(1, TOO_LONG, message, data))
                continue
            if start == 0 and data.startswith(_BOM):
                data = data[len(_BOM) :]
            if data and not data.isspace():
                portion.records.append(Record(data, 1, path, f"{key}:{start}"))
        portion.tails.append(self)
        portion.size += size
