"""Syslog messages as a stream carries them: a length before each (octet counting, RFC 6587 3.4.1), or a line feed behind it.

    134 <108>1 2026-03-04T05:06:07.891234Z - tallystick - user.login [tallystick@32473 …] {…}

The encoding `rfc5424` makes whole messages. Records of others (CEF, LEEF, JSON) get a head: facility 13 (log audit), severity 6,
time and name.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tallystick.destinations.encodings.framing import EventEncoding

WHOLE = "rfc5424"


class _Times(msgspec.Struct):
    occurred_at: str


_read_times = msgspec.json.Decoder(_Times).decode


class SyslogFrames:
    """Frames one behind the other."""

    content_type = "text/plain; charset=utf-8"
    suffix = ".log"

    def __init__(self, events: EventEncoding, *, is_counted: bool) -> None:
        self._events = events
        self._is_counted = is_counted
        self.name = f"{events.name}_{'octet_counting' if is_counted else 'lf'}"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return self.frame(self._messages(lines))

    def frame(self, messages: Sequence[bytes]) -> bytes:
        """The stream of these messages."""
        if self._is_counted:
            return b"".join(b"%d %b" % (len(message), message) for message in messages)
        return b"".join(b"%b\n" % message for message in messages)

    def split(self, body: bytes) -> list[bytes]:
        """The messages of a stream that ``encode`` made."""
        if not self._is_counted:
            return body[:-1].split(b"\n")
        messages, at = [], 0
        while at < len(body):
            begin = body.index(b" ", at) + 1
            at, length = begin, int(body[at : begin - 1])
            messages.append(body[at : at + length])
            at += length
        return messages

    def _messages(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        records = self._events.encode_events(lines)
        if self._events.name == WHOLE:
            return records
        times = (_read_times(line).occurred_at.encode() for line in lines)
        return [b"<110>1 %b - tallystick - - - %b" % pair for pair in zip(times, records, strict=True)]
