"""One tenant's share of a request, and what the request's outcome is made of once all shares are durable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tallystick.errors import EventInvalidError, EventTooLargeError
from tallystick.event import Event
from tallystick.journal.entries import Committed, QuarantinedRecord, TenantBatch
from tallystick.journal.tenants import Tenant
from tallystick.sources.submission import Bad, Draft, EventResult, Outcome, TenantOutcome


@dataclass(slots=True)
class Part:
    """One tenant's share of a draft; ``positions`` are places in the draft's lists. ``filtered``: by filter, those taken away."""

    tenant: Tenant
    positions: Sequence[int]
    events: list[Event]
    contents: list[bytes]
    filtered: dict[str, list[int]] = field(default_factory=dict)
    made_ids: list[str] = field(default_factory=list)
    batch: TenantBatch | None = None

    def drop(self, places: Sequence[int], draft: Draft, message: str) -> None:
        """Make the events at ``places`` bad: their line is too long."""
        gone = set(places)
        for place in places:
            line = draft.lines[self.positions[place]]
            error = EventInvalidError(message, line=line, code=EventTooLargeError.code)
            draft.bad.append(Bad(line, error, draft.records[self.positions[place]], self.tenant.handle))
        keep = [place for place in range(len(self.events)) if place not in gone]
        self.events = [self.events[place] for place in keep]
        self.contents = [self.contents[place] for place in keep]
        self.positions = [self.positions[place] for place in keep]


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
    )


def conflict_of(draft: Draft, part: Part, place: int) -> Bad:
    """The event at ``place`` of a part, as the bad record that the journal found it to be."""
    position = part.positions[place]
    line = draft.lines[position]
    error = EventInvalidError("this id was used before with other content", line=line, pointer="/id", code="id_conflict")
    return Bad(line, error, draft.records[position], part.tenant.handle)


def outcome_of(draft: Draft, parts: list[Part], stored: list[Part], committed: Committed) -> Outcome:
    """What became of the request, once it is durable."""
    conflicts = set(committed.conflicts)
    bad = draft.bad + [conflict_of(draft, stored[number], place) for number, place in committed.conflicts]
    tenants = []
    for number, (part, done) in enumerate(zip(stored, committed.tenants, strict=True)):
        records = [draft.records[position] for place, position in enumerate(part.positions) if (number, place) not in conflicts]
        tenants.append(TenantOutcome(done.handle, done.ranges, done.leaf_hashes, records))
    return Outcome(
        draft.received_at,
        sum(done.accepted for done in committed.tenants),
        sum(done.duplicates for done in committed.tenants),
        sum(len(gone) for part in parts for gone in part.filtered.values()),
        sorted(bad, key=lambda item: item.line),
        _made_ids(stored),
        tenants,
    )


def _made_ids(parts: list[Part]) -> list[str]:
    """The ids made here, in the order of the request."""
    if len(parts) == 1:
        return parts[0].made_ids
    made: list[tuple[int, str]] = []
    for part in parts:
        names = set(part.made_ids)
        made += [(at, str(event.id)) for at, event in zip(part.positions, part.events, strict=True) if event.id in names]
    return [name for _, name in sorted(made)]


def results_of(draft: Draft, parts: list[Part], stored: list[Part], committed: Committed, bad: list[Bad]) -> list[EventResult]:
    """One entry per event, in the order of the request's lines."""
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
