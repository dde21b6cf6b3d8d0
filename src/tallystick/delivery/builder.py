"""Makes cuts from sealed events: gathers lines, filters, encodes, and builds a stored cut's bytes again.

Blocking (reads journal and archive): called in the lane's own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from tallystick.delivery.cut import (
    BatchLimits,
    CutContext,
    CutRecord,
    Predicate,
    Selection,
    build_cut,
    count_within,
    pick_lines,
    record_cut,
    select_lines,
)
from tallystick.delivery.events import Reader
from tallystick.delivery.history import SettledCut, pack_kept
from tallystick.delivery.state import Replay
from tallystick.evidence.origin import event_origin
from tallystick.plugin import Cut, Destination

SCAN_EVENTS_MAX = 100_000
"""Events looked at for one cut when a filter lets few of them through."""


@dataclass(slots=True)
class Planned:
    """A cut with its record; ``cut`` is None when no event of the range is to be sent."""

    record: CutRecord
    cut: Cut | None
    attempts: int = 0
    failures: int = 0
    last_reply: str = ""


class CutBuilder:
    """One destination's. ``note`` gives the signed checkpoint of a handle; ``compile_where`` a query's predicate."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        limits: BatchLimits,
        reader: Reader,
        *,
        server_name: str,
        config_hash: str,
        where: str,
        compile_where: Callable[[str], Predicate],
        note: Callable[[str], str],
    ) -> None:
        self.limits = limits
        self._name = name
        self._destination = destination
        self._reader = reader
        self._server_name = server_name
        self._config = config_hash
        self._where = where
        self._compile = compile_where
        self._predicates: dict[str, Predicate | None] = {"": None}
        self._note = note
        self._predicate(where)

    def plan(self, number: int, handle: str, tenant: str, first: int, sealed: int) -> Planned:
        """The next cut of a tenant, from index ``first``, of events before ``sealed``. Raises TransientError."""
        return self._plan(number, handle, tenant, self._gather(handle, first, sealed, self._where))

    def plan_range(self, number: int, handle: str, tenant: str, first: int, last: int) -> Planned:
        """A cut of exactly this range: half of one that was too large, or one in place of a voided one."""
        return self._plan(number, handle, tenant, self._select(handle, first, last, self._where))

    def plan_replay(self, number: int, replay: Replay) -> Planned:
        """A cut of the events that a replay names, whatever the filter says now."""
        selection = self._select(replay.handle, replay.indexes[0], replay.indexes[-1], "")
        planned = self._plan(number, replay.handle, replay.tenant, pick_lines(selection, replay.indexes), is_replay=True)
        record = replace(planned.record, only=replay.indexes, letters=replay.letters, reasons=replay.reasons)
        return Planned(record, planned.cut)

    def rebuild(self, record: CutRecord) -> Cut | None:
        """The stored cut's bytes again; None when they would not be the same. Raises TransientError."""
        selection = self._select(record.handle, record.first, record.last, record.where)
        if record.only:
            selection = pick_lines(selection, record.only)
        if not selection.indexes:
            return None
        cut = build_cut(self._context(record.handle, record.tenant, record.checkpoint), selection, self._destination.encoder)
        return cut if cut.sha256 == record.sha256 else None

    def rebuild_settled(self, cut: SettledCut) -> Cut | None:
        """The bytes of a cut that was settled, under today's checkpoint; None when they would not be the same. Raises TransientError."""
        # What was refused was in the bytes; what was dead-lettered for having no content has none now either.
        sent = [index for index in range(cut.first, cut.last + 1) if cut.is_kept(index)]
        selection = pick_lines(self._select(cut.handle, cut.first, cut.last, ""), sent)
        if not selection.indexes:
            return None
        made = build_cut(self._context(cut.handle, cut.tenant, self._note(cut.handle)), selection, self._destination.encoder)
        return made if made.sha256 == cut.sha256 else None

    def _plan(self, number: int, handle: str, tenant: str, selection: Selection, *, is_replay: bool = False) -> Planned:
        context = self._context(handle, tenant, self._note(handle))
        if not selection.indexes:
            record = CutRecord(number, handle, tenant, selection.first, selection.last, "", "", "", self._config, "")
            return Planned(replace(record, where=self._where, gaps=selection.gaps), None)
        cut = build_cut(context, selection, self._destination.encoder)
        record = record_cut(cut, number, context, self._destination.encoder, self._destination.place(cut))
        kept = b""
        if not is_replay and len(selection.indexes) != cut.last_index - cut.first_index + 1:
            kept = pack_kept(cut.first_index, cut.last_index, selection.indexes)
        record = replace(record, events=len(selection.indexes), kept=kept, gaps=selection.gaps)
        return Planned(record, cut)

    def _gather(self, handle: str, first: int, sealed: int, where: str) -> Selection:
        """As many events as the limits allow; with a filter, as many as pass it, but at most SCAN_EVENTS_MAX looked at."""
        limits, predicate = self.limits, self._predicate(where)
        indexes: list[int] = []
        lines: list[bytes] = []
        gaps: dict[int, str] = {}
        size, at = 0, first
        while at < sealed:
            span = self._reader.read(handle, at, sealed, limits.max_events - len(lines), limits.max_bytes - size)
            taken = count_within(span.lines, limits.max_events - len(lines), limits.max_bytes - size)
            found = {index: reason for index, reason in span.gaps.items() if index < at + taken}
            part = select_lines(at, span.lines[:taken] if taken < len(span.lines) else span.lines, found, predicate)
            if predicate is None and not gaps and not found and at == first:
                return part
            indexes += part.indexes
            lines += part.lines
            gaps.update(found)
            size += sum(map(len, part.lines))
            at += taken
            if len(lines) >= limits.max_events or size >= limits.max_bytes or at - first >= SCAN_EVENTS_MAX:
                break
        return Selection(first, at - 1, indexes, lines, gaps)

    def _select(self, handle: str, first: int, last: int, where: str) -> Selection:
        """Exactly the range, however large."""
        lines: list[bytes] = []
        gaps: dict[int, str] = {}
        while first + len(lines) <= last:
            at = first + len(lines)
            span = self._reader.read(handle, at, last + 1, last + 1 - at, 1 << 62)
            lines += span.lines
            gaps.update(span.gaps)
        return select_lines(first, lines, gaps, self._predicate(where))

    def _predicate(self, where: str) -> Predicate | None:
        if where not in self._predicates:
            self._predicates[where] = self._compile(where)
        return self._predicates[where]

    def _context(self, handle: str, tenant: str, checkpoint: str) -> CutContext:
        origin = event_origin(self._server_name, handle)
        return CutContext(self._name, tenant, handle, origin, checkpoint, self._config, self._where)
