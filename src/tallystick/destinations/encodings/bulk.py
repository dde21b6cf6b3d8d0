"""The bulk format of OpenSearch and Elasticsearch: an action line before each event.

    {"create":{"_id":"<leaf hash, 64 hexadecimal digits>"}}
    {"v":1,"id":…}

The `_id` is the event's leaf hash in its log: two tenants may use one event id, and a name that is the hash of the bytes
can only be taken by these very bytes. So "exists already" is never somebody else's event.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.destinations.encodings.framing import EventEncoding
from tallystick.evidence.entry import event_hashes

_DIGITS = 64


class BulkCreate:
    """One `create` for each event; the event in an encoding that is JSON."""

    content_type = "application/x-ndjson"
    suffix = ".ndjson"

    def __init__(self, events: EventEncoding) -> None:
        self._events = events
        self.name = f"{events.name}_bulk"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return self.encode_lines(lines)

    def encode_lines(self, lines: Sequence[bytes]) -> bytes:
        """Action and event, each on its line, the last one ended too; of any of the lines of a cut."""
        digits = event_hashes(lines).hex().encode()
        names = (digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
        pairs = zip(names, self._events.encode_events(lines), strict=True)
        return b"".join(b'{"create":{"_id":"%b"}}\n%b\n' % pair for pair in pairs)
