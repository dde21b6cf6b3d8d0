"""Opening of sealed members: the line of an event with them in their places, for who may."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tallystick.errors import NotFoundError
from tallystick.event import Event, SealedGroup
from tallystick.event.codec import decode_line
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.members import put_back
from tallystick.privacy.seal import epoch_subject_key, from_text, open_sealed
from tallystick.privacy.subjects import SubjectKeys

_MARK = b',"sealed":['
_plain = msgspec.json.Decoder(dict[str, msgspec.Raw])


def groups_of(line: bytes) -> list[SealedGroup]:
    """The sealed groups of a canonical line; looks before it decodes."""
    if _MARK not in line:
        return []
    groups = decode_line(line).sealed
    return groups if isinstance(groups, list) else []


class Opener:
    """Opens under the keys that are there now. ``origin_of`` gives a tenant's origin by its handle. Thread-safe."""

    def __init__(self, keys: KeyStore, subjects: SubjectKeys, origin_of: Callable[[str], str]) -> None:
        self._keys = keys
        self.subjects = subjects
        self._origin_of = origin_of

    def open(self, handle: str, line: bytes) -> tuple[bytes, int]:
        """The line with all that opens in its place, and how many groups did. Raises IntegrityError: a group is not what it was."""
        groups = groups_of(line)
        if not groups:
            return line, 0
        event, opened = decode_line(line), 0
        members: dict[str, msgspec.Raw] = {}
        for group in groups:
            try:
                members |= _plain.decode(self.plain(handle, event, group))
                opened += 1
            except NotFoundError:  # erased, or its month expired: it stays sealed
                continue
        return (put_back(line, members) if members else line), opened

    def plain(self, handle: str, event: Event, group: SealedGroup) -> bytes:
        """P of one group. Raises NotFoundError when the key of its person or month is gone, IntegrityError."""
        retention_class = event.ingest.class_ if isinstance(event.ingest, msgspec.Struct) else ""
        subject_key = self.subjects.key_of(from_text(group.subject))
        epoch_key = self._keys.epoch_key(handle, retention_class, str(event.received_at)[:7])
        return open_sealed(epoch_subject_key(epoch_key, subject_key), group, self._origin_of(handle), str(event.id))
