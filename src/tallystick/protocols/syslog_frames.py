"""Syslog over a stream: where one message ends and the next begins (RFC 6587). Pure: bytes in, messages out.

    octet counting    83 <34>1 2003-10-11T22:14:15.003Z …        length in bytes, a space, the message; RFC 5425 asks for it
    line by line      <34>Oct 11 22:14:15 …\n                    what most senders do

Which of the two it is, the first bytes tell: a count begins with a digit (or with a sign, which no count may have), a message
with ``<`` or with other text. A connection stays with what it began with, so a message that begins with a digit is no count
once lines have been seen, and a message with line breaks inside stays one once counts have been seen.

1. A count is 1 to 8 digits without a leading zero, and a space. Anything else ends the stream: nobody can tell any more where a
   message begins (``failure`` says what it was).
2. A message longer than ``record_max`` is cut: its first ``record_max`` bytes are kept, the rest is counted and passed over as
   it comes (``cut``). Memory holds at most ``record_max`` bytes of an unfinished message.
3. Blank lines are no messages. CR and NUL before the line's end, and a line break behind a counted message, belong to the frame.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Framing = Literal["auto", "octet-counting", "lines"]

_DIGITS_MAX = 8
_TRAILER = b"\r\0"


class CutRecord(NamedTuple):
    """A message that was too long: how it begins, and how long it was in bytes."""

    head: bytes
    size: int


class SyslogFramer:
    """One connection's framing."""

    __slots__ = ("_framing", "_head", "_need", "_passed", "_record_max", "_skip", "_tail", "cut", "failure")

    def __init__(self, record_max: int, framing: Framing = "auto") -> None:
        self.cut: list[CutRecord] = []  # taken away by the caller
        self.failure = ""
        self._record_max = record_max
        self._framing = framing
        self._tail = bytearray()
        self._need = 0  # octet counting: nothing is complete before the tail has so many bytes
        self._head = b""  # of the message that is being passed over
        self._passed = 0  # bytes of it so far
        self._skip = 0  # octet counting: bytes of it to come

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes. After a ``failure`` nothing more comes."""
        if self._framing == "auto":
            data = bytes(self._tail) + data
            self._tail.clear()
            if not self._detect(data):
                self._tail += data
                return []
        if self.failure:
            return []
        return self._feed_lines(data) if self._framing == "lines" else self._feed_counted(data)

    def end(self) -> bytes:
        """What the stream ended in the middle of; empty when it ended between two messages."""
        if self._passed:
            self._finish_cut()
        tail, self._tail = bytes(self._tail), bytearray()
        if self._framing == "octet-counting":
            tail = tail.partition(b" ")[2]
        return tail.strip(_TRAILER + b"\n")

    def _detect(self, data: bytes) -> bool:
        """Settle how the stream is framed; False while too little is known."""
        start = data.lstrip(b"\r\n")[:2]
        if len(start) < 2 and start in (b"", b"-", b"+"):
            return False
        is_count = start[:1].isdigit() or (start[:1] in (b"-", b"+") and start[1:].isdigit())
        self._framing = "octet-counting" if is_count else "lines"
        return True

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if self._passed:
            end = data.find(b"\n")
            if end < 0:
                self._passed += len(data)
                return []
            self._passed += end
            self._finish_cut()
            data = data[end + 1 :]
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._tail:
            lines[0] = (bytes(self._tail) + lines[0]).rstrip(_TRAILER)
            self._tail.clear()
        self._tail += rest
        if len(self._tail) > self._record_max:
            self._head, self._passed = bytes(self._tail[: self._record_max]), len(self._tail)
            self._tail.clear()
        if b"\r" in data or b"\0" in data:
            lines = [line.rstrip(_TRAILER) for line in lines]
        if lines and (not all(lines) or max(map(len, lines)) > self._record_max):
            lines = [line for line in lines if line and self._fits(line)]
        return lines

    def _fits(self, line: bytes) -> bool:
        if len(line) <= self._record_max:
            return True
        self.cut.append(CutRecord(line[: self._record_max], len(line)))
        return False

    def _feed_counted(self, data: bytes) -> list[bytes]:
        if self._skip:
            step = min(self._skip, len(data))
            self._skip -= step
            self._passed += step
            if self._skip:
                return []
            self._finish_cut()
            data = data[step:]
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return []
            data = bytes(self._tail)
            self._tail.clear()
        return self._split_counted(data)

    def _split_counted(self, data: bytes) -> list[bytes]:
        """The whole messages in ``data``; the rest becomes the tail."""
        found: list[bytes] = []
        at, size = 0, len(data)
        self._need = 0
        while at < size:
            if data[at] == 10:  # a line break that the sender did not count
                at += 1
                continue
            start = data.find(b" ", at, at + _DIGITS_MAX + 1) + 1
            count = data[at : start - 1 if start else size]
            if not count.isdigit() or count[0] == 48 or (not start and len(count) > _DIGITS_MAX):
                self.failure = "octet_count"
                return found
            if not start:
                break
            length = int(count)
            end = start + length
            if length > self._record_max:
                if size < start + self._record_max:
                    self._need = start - at + self._record_max
                    break
                self._head = data[start : start + self._record_max]
                self._passed, self._skip = min(length, size - start), max(0, end - size)
                if self._skip:
                    return found
                self._finish_cut()
            elif end > size:
                self._need = end - at
                break
            else:
                found.append(data[start:end])
            at = end
        self._tail += data[at:]
        return found

    def _finish_cut(self) -> None:
        self.cut.append(CutRecord(self._head, self._passed))
        self._head, self._passed, self._skip = b"", 0, 0
