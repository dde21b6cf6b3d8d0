"""Two-generation state files: a cursor or register that survives a crash at any step and a damaged copy.

On disk, `NAME.a` and `NAME.b`, each one record:

    magic "TSSTATE1" | generation u64 be | length u32 be | crc32c u32 be over generation, length and payload | payload

``save`` replaces the slot with the older generation, so the other slot still holds the last good state if the
machine stops at any point. ``load`` returns the newest whole payload. When one slot is damaged the older generation is
used, which may repeat work but never skips any; when both are, the caller rebuilds.
"""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c

from tallystick.durable.files import replace_file

_MAGIC = b"TSSTATE1"
_HEAD = struct.Struct(">8sQII")


class StateFile:
    """One small durable value with two generations. One writer process; any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slots = (path.with_name(path.name + ".a"), path.with_name(path.name + ".b"))
        self._generation = -1

    def load(self) -> bytes | None:
        """The newest whole payload, or None when no slot is readable (see ``is_damaged``)."""
        found = [slot for slot in map(_read_slot, self._slots) if slot is not None]
        if not found:
            return None
        generation, payload = max(found)
        self._generation = max(self._generation, generation)
        return payload

    def is_damaged(self) -> bool:
        """True when a slot exists but cannot be read: the caller should report it."""
        return any(slot.exists() and _read_slot(slot) is None for slot in self._slots)

    def save(self, payload: bytes) -> None:
        """Store ``payload`` durably as the next generation. Raises OSError; then the last state still holds."""
        if self._generation < 0:
            self.load()
        generation = self._generation + 1
        body = struct.pack(">QI", generation, len(payload))
        crc = google_crc32c.value(body + payload)
        replace_file(self._slots[generation % 2], _HEAD.pack(_MAGIC, generation, len(payload), crc) + payload)
        self._generation = generation


def _read_slot(path: Path) -> tuple[int, bytes] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEAD.size:
        return None
    magic, generation, length, crc = _HEAD.unpack_from(data)
    payload = data[_HEAD.size :]
    if magic != _MAGIC or len(payload) != length:
        return None
    if google_crc32c.value(struct.pack(">QI", generation, length) + payload) != crc:
        return None
    return generation, payload
