"""A cursor: where a follower goes on reading, stored durably in `cursors/<name>.{a,b}`.

It is saved after the work it stands for is durable, so it may lag (work is repeated) but never lead (work is lost).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tallystick.durable import StateFile, make_dir


class Position(NamedTuple):
    """The next frame to read: ``offset`` in the segment with UUID ``segment``; ``seq`` is the next entry expected."""

    segment: bytes
    offset: int
    seq: int


START: Final = Position(bytes(16), 0, 1)


class Cursor:
    """One follower's cursor. ``extra`` is what it stored beside the position: a JSON object."""

    def __init__(self, data_dir: Path, name: str) -> None:
        make_dir(data_dir / "cursors")
        self.name = name
        self.extra: dict[str, Any] = {}
        self._state = StateFile(data_dir / "cursors" / name)

    @property
    def is_damaged(self) -> bool:
        """True when a copy is there but cannot be read: an older one was used, or none."""
        return self._state.is_damaged()

    def load(self) -> Position | None:
        """The newest whole state, or None: then the follower starts at the oldest segment."""
        payload = self._state.load()
        if payload is None:
            return None
        try:
            saved: dict[str, Any] = msgspec.json.decode(payload)
            position = Position(bytes.fromhex(saved.pop("segment")), int(saved.pop("offset")), int(saved.pop("seq")))
        except (msgspec.DecodeError, KeyError, ValueError, TypeError):
            return None
        self.extra = saved
        return position

    def save(self, position: Position, extra: dict[str, Any] | None = None) -> None:
        """Store durably. A crash before it returns leaves the last state: the work since then is done again. Raises OSError."""
        self.extra = dict(extra or {})
        record = {**self.extra, "segment": position.segment.hex(), "offset": position.offset, "seq": position.seq}
        self._state.save(msgspec.json.encode(record))
