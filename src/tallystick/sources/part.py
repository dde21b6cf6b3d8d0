"""One tenant's share of a request, and what the request's outcome is made of once all shares are durable."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.model import Producer
from tallystick.journal.entries import Committed, ProducerRanges, QuarantinedRecord, TenantBatch
from tallystick.journal.tenants import Tenant
from tallystick.sources.submission import Bad, Draft, EventResult, Outcome, TenantOutcome


@dataclass(slots=True)
class Part:
    """One tenant's share of a draft; ``positions`` are places in the draft's lists. ``filtered``: by filter, those taken away,
    and ``filtered_numbers`` what their producers had numbered them.

    ``said`` is as in `ReadBatch`, of these events; empty once anything was changed or taken away. ``bad``: positions of records
    that are in the draft's ``bad`` because of what was made of them here.
    """

    tenant: Tenant
    positions: Sequence[int]
    events: list[Event]
    contents: list[bytes]
    said: Sequence[bytes] = ()
    filtered: dict[str, list[int]] = field(default_factory=dict)
    filtered_numbers: dict[str, list[Producer]] = field(default_factory=dict)
    made_ids: list[str] = field(default_factory=list)
    batch: TenantBatch | None = None
    bad: set[int] = field(default_factory=set)

    def refuse(self, errors: Mapping[int, EventInvalidError], draft: Draft) -> None:
        """Make the events at these places bad."""
        self.blame(errors, draft)
        self.keep([(place, event) for place, event in enumerate(self.events) if place not in errors])

    def blame(self, errors: Mapping[int, EventInvalidError], draft: Draft) -> None:
        """Note the records of the events at these places as bad; each once, however many of its events are."""
        for place, error in errors.items():
            position = self.positions[place]
            if position not in self.bad:
                self.bad.add(position)
                told = EventInvalidError(error.message, line=draft.lines[position], pointer=error.pointer, code=error.code)
                draft.bad.append(Bad(told.line, told, draft.records[position], self.tenant.handle))

    def keep(self, kept: Sequence[tuple[int, Event]]) -> None:
        """Go on with these events, each with its place until now."""
        self.said = ()
        self.positions = [self.positions[place] for place, _ in kept]
        self.contents = [self.contents[place] for place, _ in kept]
        self.events = [event for _, event in kept]


@dataclass(slots=True)
class Shares:
    """What became of a draft, by tenant. ``stored`` are the ``parts`` with events left; ``committed.tenants`` is parallel to them."""

    parts: list[Part]
    stored: list[Part]
    committed: Committed


def producer_ranges(credential: str, numbers: Sequence[Producer]) -> list[ProducerRanges]:
    """The numbers of each producer and epoch."""
    found: dict[tuple[str, int], ProducerRanges] = {}
    for producer in numbers:
        item = found.get((producer.id, producer.epoch))
        if item is None:
            item = found[producer.id, producer.epoch] = ProducerRanges(credential, producer.id, producer.epoch, [])
        if item.ranges and producer.seq == item.ranges[-1][1] + 1:
            item.ranges[-1][1] = producer.seq
        else:
            item.ranges.append([producer.seq, producer.seq])
    return list(found.values())


def quarantined_record(draft: Draft, bad: Bad, home: str = "") -> QuarantinedRecord:
    """A bad record as the journal keeps it; ``home``: whose quarantine it goes to when it names no tenant."""
    return QuarantinedRecord(
        handle=bad.handle or home,
        source=draft.plan.name,
        code=bad.error.code,
        message=bad.error.message,
        received_at=draft.received_at,
        data=bad.record,
        line=bad.line,
        peer=draft.peer,
        credential=draft.sender.credential,
    )


def conflict_of(draft: Draft, part: Part, place: int) -> Bad:
    """The event at ``place`` of a part, as the bad record that the journal found it to be."""
    position = part.positions[place]
    line = draft.lines[position]
    error = EventInvalidError("this id was used before with other content", line=line, pointer="/id", code="id_conflict")
    return Bad(line, error, draft.records[position], part.tenant.handle)


def outcome_of(draft: Draft, shares: Shares) -> Outcome:
    """What became of the request, once it is durable."""
    parts, stored, committed = shares.parts, shares.stored, shares.committed
    conflicts = set(committed.conflicts)
    bad = draft.bad + [conflict_of(draft, stored[number], place) for number, place in committed.conflicts]
    tenants = []
    for number, (part, done) in enumerate(zip(stored, committed.tenants, strict=True)):
        records = partial(_records, draft, part.positions, {place for at, place in conflicts if at == number})
        tenants.append(TenantOutcome(done.handle, done.ranges, done.leaf_hashes, records))
    return Outcome(
        draft.received_at,
        sum(done.accepted for done in committed.tenants),
        sum(done.duplicates for done in committed.tenants),
        sum(len(gone) for part in parts for gone in part.filtered.values()),
        sorted(bad, key=lambda item: item.line),
        made_ids(stored),
        tenants,
    )


def _records(draft: Draft, positions: Sequence[int], conflicts: Collection[int]) -> list[bytes]:
    return [draft.records[position] for place, position in enumerate(positions) if place not in conflicts]


def made_ids(parts: list[Part], start: int = 0, end: int | None = None) -> list[str]:
    """The ids made here for the events at the draft's positions from ``start`` up to ``end``, in the order of the draft."""
    if len(parts) == 1 and end is None:
        return parts[0].made_ids
    made: list[tuple[int, str]] = []
    for part in parts:
        if part.made_ids and part.batch is not None:
            first = bisect_left(part.positions, start)
            last = len(part.positions) if end is None else bisect_left(part.positions, end, first)
            prefix = part.batch.made_prefix
            names = [str(event.id) for event in part.events[first:last]]
            made += [(at, name) for at, name in zip(part.positions[first:last], names, strict=True) if name.startswith(prefix)]
    return [name for _, name in sorted(made)]


def results_of(draft: Draft, shares: Shares, bad: list[Bad]) -> list[EventResult]:
    """One entry per event, in the order of the request's lines."""
    parts, stored, committed = shares.parts, shares.stored, shares.committed
    results = [EventResult(item.line, "quarantined", code=item.error.code) for item in bad]
    for part in parts:
        for name, gone in part.filtered.items():
            results += [EventResult(draft.lines[position], "filtered", filter=name) for position in gone]
    conflicts = set(committed.conflicts)
    for number, (part, done) in enumerate(zip(stored, committed.tenants, strict=True)):
        indexes = iter([first + n for first, count in done.ranges for n in range(count)])
        repeated = set(done.repeated)
        for place, event in enumerate(part.events):
            if (number, place) not in conflicts:
                line = draft.lines[part.positions[place]]
                outcome: Literal["accepted", "duplicate"] = "duplicate" if place in repeated else "accepted"
                results.append(EventResult(line, outcome, str(event.id), done.handle, next(indexes)))
    return sorted(results, key=lambda result: result.line)
