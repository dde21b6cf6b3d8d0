"""How encoded events become the body of a cut: one a line, or together in one JSON object; plain, or framed by zstd or gzip.

An encoding (`EventEncoding`) knows one event; a framing knows the cut. A *record* here is one event in its encoded form. Rules for both:

1. One event becomes one record, and no record has a line feed in it: ``records_of`` gives the records back, so a destination that
   sends one message an event sends parts of the very bytes whose digest is stored.
2. Each record names its tenant and the event's id, so two events of one destination never give the same record.
3. Every canonical line has a record: encoding never fails, whatever a sender wrote.
4. Compressed frames are deterministic: no time, no name, a fixed level. Their bytes also depend on the library, so its version is
   part of ``version``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import zstandard

from tallystick.plugin import Encoder


class EventEncoding(Protocol):
    """One event's form. Pure; ``version`` changes when any byte does.

    ``content_type`` and ``suffix`` are those of lines of records, ``record_type`` is the media type of one.
    """

    name: str
    version: str
    content_type: str
    record_type: str
    suffix: str

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """The record of each canonical line, in order."""


class Lines:
    """Each record and a line feed."""

    def __init__(self, events: EventEncoding) -> None:
        self._events = events
        self.name = events.name
        self.version = events.version
        self.content_type = events.content_type
        self.suffix = events.suffix

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return b"\n".join(self._events.encode_events(lines)) + b"\n"


class Envelope:
    """One JSON object for webhooks: ``{"events":[…],"range":{"log","first_index","last_index"}}``, the records verbatim."""

    content_type = "application/json"
    suffix = ".json"

    def __init__(self, events: EventEncoding) -> None:
        self._events = events
        self.name = f"{events.name}_envelope"
        self.version = events.version

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        span = f'"range":{{"log":"{origin}","first_index":{first_index},"last_index":{last_index}}}'
        return b'{"events":[' + b",".join(self._events.encode_events(lines)) + b"]," + span.encode() + b"}"


class Batch:
    """One JSON array of the records, as an encoding's own specification has it."""

    suffix = ".json"

    def __init__(self, events: EventEncoding, content_type: str) -> None:
        self._events = events
        self.name = f"{events.name}_batch"
        self.version = events.version
        self.content_type = content_type

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return b"[" + b",".join(self._events.encode_events(lines)) + b"]"


class Compressed:
    """Another encoding inside one compressed frame."""

    def __init__(self, inner: Encoder, compression: str) -> None:
        library, self.suffix, self._compress = _FRAMES[compression]
        self._inner = inner
        self.name = f"{inner.name}+{compression}"
        self.version = f"{inner.version}+{library}"
        self.content_type = f"application/{compression}"
        self.suffix = inner.suffix + self.suffix

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return self._compress(self._inner.encode(lines, origin=origin, first_index=first_index, last_index=last_index))


def records_of(body: bytes) -> list[bytes]:
    """The records of a body that is lines of them, one for each event of the cut."""
    return body[:-1].split(b"\n")


def compress_zstd(body: bytes) -> bytes:
    """One zstd frame, level 3, with content size and checksum."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True).compress(body)


def compress_gzip(body: bytes) -> bytes:
    """One gzip member, level 6, with modification time 0 and no name."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


_FRAMES: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "zstd": ("zstd-" + ".".join(map(str, zstandard.ZSTD_VERSION)), ".zst", compress_zstd),
    "gzip": (f"zlib-{zlib.ZLIB_RUNTIME_VERSION}", ".gz", compress_gzip),
}
