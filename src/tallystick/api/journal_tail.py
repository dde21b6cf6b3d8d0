"""Feeds the live tail from the journal: from the durable mark on, events only, tenants by name."""

from __future__ import annotations

from tallystick.api.tail import Tailed
from tallystick.journal.cursor import Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry

_READ_BYTES = 1 << 20


class JournalTail:
    """A `tail.TailSource`. Used by one thread at a time."""

    def __init__(self, reader: JournalReader, tenants: TenantRegistry) -> None:
        self._reader = reader
        self._tenants = tenants

    def end(self) -> Position:
        """Just behind the last durable event."""
        mark = self._reader.mark()
        return Position(mark.segment, mark.offset, mark.seq + 1)

    def read(self, position: Position, timeout_s: float) -> tuple[list[Tailed], Position]:
        """Events after ``position``, or none after ``timeout_s``. Damaged spans are passed over: the archiver reports them."""
        if not self._reader.wait(position, timeout_s):
            return [], position
        frames, after = self._reader.read(position, _READ_BYTES)
        events: list[Tailed] = []
        for frame in frames:
            if isinstance(frame, Frame) and frame.type == FrameType.EVENTS:
                tenant = self._name(frame.handle)
                events += [Tailed(tenant, frame.first_index + place, line) for place, line in enumerate(frame.lines())]
        return events, after

    def _name(self, handle: str) -> str:
        tenant = self._tenants.by_handle(handle)
        if tenant is None:
            self._tenants.reload()
            tenant = self._tenants.by_handle(handle)
        return tenant.name if tenant else handle
