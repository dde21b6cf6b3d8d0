"""Bytes in, lines out: a stream that arrives in blocks is cut at line feeds, with bounded memory whatever it holds.

A line is what stands before a line feed, without a carriage return before it (both ends count towards ``end``). The last one waits
until its line feed comes, or until `LineSplitter.rest` says that none will. Of a line longer than the bound only its beginning is
kept; how long it was is told when its end is found. NUL bytes before a line are left out: they fill what a power cut or a truncation
under a writer left behind, up to gigabytes.
"""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """``data`` stands at byte ``start`` of the stream; the next line begins at ``end``. ``size`` is more than ``len(data)`` when it was cut."""

    start: int
    end: int
    data: bytes
    size: int

    @property
    def is_cut(self) -> bool:
        return self.size > len(self.data)


class LineSplitter:
    """Cuts the blocks of one stream. ``start`` is where the line begins whose end has not come yet."""

    def __init__(self, position: int, line_max: int) -> None:
        self.start = self.position = position
        self._line_max = line_max
        self._parts: list[bytes] = []
        self._kept = 0
        self._void = 0
        self._ends_in_return = False

    @property
    def held_bytes(self) -> int:
        """Bytes kept of the line whose end has not come."""
        return self._kept

    def feed(self, block: bytes) -> list[Line]:
        """The lines that ``block``, which follows what was fed before, brings to their end."""
        *whole, last = block.split(b"\n")
        lines = []
        start, line_max = self.start, self._line_max
        for number, text in enumerate(whole):
            if (number == 0 and self.position > start) or text.startswith(b"\0"):
                self._keep(text)
                lines.append(self._close(1))
                start = self.start
                continue
            end = start + len(text) + 1
            data = text[:-1] if text.endswith(b"\r") else text
            lines.append(Line(start, end, data[:line_max], len(data)))
            start = end
            self.start = self.position = start
        self._keep(last)
        return lines

    def rest(self) -> list[Line]:
        """The last line, when the stream has ended without a line feed."""
        return [self._close(0)] if self.position > self.start else []

    def _keep(self, text: bytes) -> None:
        self.position += len(text)
        if text:
            self._ends_in_return = text.endswith(b"\r")
        if not self._kept and text.startswith(b"\0"):
            whole, text = len(text), text.lstrip(b"\0")
            self._void += whole - len(text)
        kept = text[: self._line_max - self._kept]
        if kept:
            self._parts.append(kept)
            self._kept += len(kept)

    def _close(self, terminator: int) -> Line:
        size = self.position - self.start - self._void
        if terminator and self._ends_in_return and size:
            size -= 1
        data = b"".join(self._parts)[: min(size, self._line_max)]
        line = Line(self.start, self.position + terminator, data, size)
        self._parts, self._kept, self._void, self._ends_in_return = [], 0, 0, False
        self.start = self.position = line.end
        return line
