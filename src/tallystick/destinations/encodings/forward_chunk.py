"""One chunk of the Fluentd forward protocol: CompressedPackedForward, `[tag, bin, {"chunk", "size", "compressed"}]`.

An entry is `[EventTime, record]`: the time is `occurred_at`, or `received_at` where that is outside of what an EventTime holds
(1970 to 2106). An encoding in JSON becomes the record's members, integers beyond 64 bits as text; others its `message`. The
chunk's name is made of the log's origin, the range and the entries, so each attempt bears the same.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from tallystick.destinations.encodings.framing import EventEncoding, compress_gzip

_pack = msgspec.msgpack.Encoder().encode
_SECONDS_MAX = (1 << 32) - 1
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


class _Event(msgspec.Struct):
    tenant: str
    occurred_at: str
    received_at: str


_read_event = msgspec.json.Decoder(_Event).decode


class ForwardChunk:
    """``tag`` may hold `{tenant}`."""

    content_type = "application/msgpack"
    suffix = ".msgpack"

    def __init__(self, events: EventEncoding, tag: str, *, is_json: bool = True) -> None:
        self._events = events
        self._tag = tag
        self._is_json = is_json
        self.name = f"{events.name}_forward"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        about = [_read_event(line) for line in lines]
        records = map(self._record, self._events.encode_events(lines))
        entries = b"".join(_entry(_time(event), record) for event, record in zip(about, records, strict=True))
        digest = hashlib.sha256(f"{origin} {first_index} {last_index} ".encode() + entries).digest()
        option = {"chunk": base64.b64encode(digest[:16]).decode(), "size": len(lines), "compressed": "gzip"}
        return _pack([self._tag.replace("{tenant}", about[0].tenant), compress_gzip(entries), option])

    def _record(self, record: bytes) -> Any:
        return msgspec.json.decode(record) if self._is_json else {"message": record.decode()}


def chunk_of(body: bytes) -> str:
    """The name of the chunk in a body that ``encode`` made."""
    return str(msgspec.msgpack.decode(body)[2]["chunk"])


def _entry(time: msgspec.msgpack.Ext, record: Any) -> bytes:
    try:
        return _pack([time, record])
    except OverflowError:
        return _pack([time, _bounded(record)])


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_bounded(inner) for inner in value]
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        return str(value)
    return value


def _time(event: _Event) -> msgspec.msgpack.Ext:
    text = event.occurred_at
    seconds = int(datetime.fromisoformat(text).timestamp()) if text > "1970" else -1
    if not 0 <= seconds <= _SECONDS_MAX:
        text = event.received_at
        seconds = int(datetime.fromisoformat(text).timestamp())
    return msgspec.msgpack.Ext(0, struct.pack(">II", seconds, int(text[20:26]) * 1_000))
