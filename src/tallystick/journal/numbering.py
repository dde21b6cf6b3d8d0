"""Which numbers come next: the journal's seq, and the index in each tenant's tree.

`cursors/numbering` (a StateFile) holds them as they were at the start of one segment:
``{"segment": uuid in hexadecimal, "next_seq": n, "next_index": {handle: n}}``. It is written after that segment got its
name, so at a start it names the active segment or, after a crash in between, one a little older; the frames from there on
bring it up to date. Lost or damaged, it is rebuilt from the headers of all frames (`recovery`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tallystick.durable import StateFile, make_dir
from tallystick.journal.frame import Frame, FrameType


@dataclass(slots=True)
class Numbering:
    """The next numbers to give. Seqs start at 1, indexes at 0."""

    next_seq: int = 1
    next_index: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Numbering:
        return Numbering(self.next_seq, dict(self.next_index))

    def pass_frame(self, frame: Frame) -> None:
        """Go past the numbers that a frame of the journal holds."""
        self.next_seq = max(self.next_seq, frame.next_seq)
        if frame.type in (FrameType.EVENTS, FrameType.LOST) and frame.handle:
            self.raise_index(frame.handle, frame.first_index + frame.count)

    def raise_index(self, handle: str, index: int) -> None:
        if index > self.next_index.get(handle, 0):
            self.next_index[handle] = index


class _Saved(msgspec.Struct):
    segment: str
    next_seq: int
    next_index: dict[str, int]


class NumberingFile:
    """The state file. Written by the journal's writer only."""

    def __init__(self, data_dir: Path) -> None:
        make_dir(data_dir / "cursors")
        self._state = StateFile(data_dir / "cursors" / "numbering")

    def load(self) -> tuple[bytes, Numbering] | None:
        """The segment and the numbers at its start, or None when nothing readable is there."""
        payload = self._state.load()
        if payload is None:
            return None
        try:
            saved = msgspec.json.decode(payload, type=_Saved)
            return bytes.fromhex(saved.segment), Numbering(saved.next_seq, saved.next_index)
        except (msgspec.MsgspecError, ValueError):
            return None

    def save(self, segment: bytes, numbering: Numbering) -> None:
        """A crash before this is durable leaves the older state: the next start reads one segment more. Raises OSError."""
        self._state.save(msgspec.json.encode(_Saved(segment.hex(), numbering.next_seq, numbering.next_index)))
