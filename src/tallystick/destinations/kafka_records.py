"""What the records of a cut look like in Kafka: key, value, and the proof that travels in the headers. Pure.

tallystick-id           the event's id
tallystick-index        its index in its tenant's tree
tallystick-log          origin of the tree
tallystick-range        first and last index of the cut
tallystick-cut          `<destination>:<name of the cut>`: which records came together
tallystick-checkpoint   signed note that covers the range
content-type            of the value
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tallystick.destinations.encodings import records_of
from tallystick.event.codec import decode_line
from tallystick.plugin import Cut
from tallystick.transforms.paths import event_path

CUT = "tallystick-cut"
LOG = "tallystick-log"
BY_TENANT = "tenant"

Header = tuple[str, bytes]


class _Id(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_Id).decode


def make_key(key: str) -> Callable[[str, bytes], bytes]:
    """From tenant and canonical line to the record's key: the tenant, or the value at a path, else the tenant. Raises ConfigError."""
    if key == BY_TENANT:
        return lambda tenant, _line: tenant.encode()
    path = event_path(key, "read")

    def at_path(tenant: str, line: bytes) -> bytes:
        value = path.read(decode_line(line))
        if value is None or value == b"null":
            return tenant.encode()
        return str(msgspec.json.decode(value)).encode() if value[:1] == b'"' else value

    return at_path


def make_records(
    cut: Cut, destination: str, content_type: str, key: Callable[[str, bytes], bytes]
) -> Iterator[tuple[bytes, bytes, list[Header]]]:
    """Key, value and headers of each event of a cut, in order."""
    common = [
        (LOG, cut.origin.encode()),
        ("tallystick-range", f"{cut.first_index}-{cut.last_index}".encode()),
        (CUT, f"{destination}:{cut.name}".encode()),
        ("tallystick-checkpoint", cut.checkpoint.encode()),
        ("content-type", content_type.encode()),
    ]
    for index, line, value in zip(cut.indexes, cut.lines, records_of(cut.body), strict=True):
        own = [("tallystick-id", _decode_id(line).id.encode()), ("tallystick-index", str(index).encode())]
        yield key(cut.tenant, line), value, own + common
