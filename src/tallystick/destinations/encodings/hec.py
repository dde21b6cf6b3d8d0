"""The events of Splunk's HTTP Event Collector: one JSON object each, one a line.

    {"time":1772600767.000000,"host":…,"index":…,"source":…,"sourcetype":…,"event":{…}}

`time` is the event's `occurred_at`; it is left out where that lies before 1970, and the collector then takes its own time.
Encodings in JSON go in as they are, others as a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from tallystick.destinations.encodings.framing import EventEncoding

_to_json = msgspec.json.Encoder().encode


class _Times(msgspec.Struct):
    occurred_at: str


_read_times = msgspec.json.Decoder(_Times).decode


class HecEvents:
    """``about``: members beside time and event (`host`, `index`, `source`, `sourcetype`); a missing `source` is the log's origin."""

    content_type = "application/json"
    suffix = ".json"

    def __init__(self, events: EventEncoding, about: dict[str, str], *, is_json: bool = True) -> None:
        self._events = events
        self._about = about
        self._is_json = is_json
        self.name = f"{events.name}_hec"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        about = _to_json({"source": origin} | self._about)[1:-1]
        records = self._events.encode_events(lines)
        if not self._is_json:
            records = [_to_json(record.decode()) for record in records]
        return b"".join(
            b'{%b%b,"event":%b}\n' % (_time_member(_read_times(line).occurred_at), about, record)
            for line, record in zip(lines, records, strict=True)
        )


def _time_member(text: str) -> bytes:
    if text < "1970":
        return b""
    return b'"time":%d.%06d,' % (int(datetime.fromisoformat(text).timestamp()), int(text[20:26]))
