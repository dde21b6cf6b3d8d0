"""What would become of a record: it goes through the real intake of a configuration, up to the journal, and nothing is stored.

Each record goes alone, as one that comes back out of the quarantine does. What a transport adds to a record (an address, headers, a
place in a file that gives it an id) is not there, and neither is what the installation holds: duplicates are found among the records
of one rehearsal only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from tallystick.config import Config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.event.codec import EventReader, Limits
from tallystick.journal.dedupe_digest import Digester
from tallystick.journal.entries import Appender, TenantBatch
from tallystick.journal.tenants import Tenant, TenantRegistry
from tallystick.plugin import NOTHING_KNOWN, BatchFacts, Record, Transform
from tallystick.query.evaluate import Matcher, compile_query
from tallystick.sources.intake import IntakeService
from tallystick.sources.kind import load_kind
from tallystick.sources.part import Part
from tallystick.sources.plan import INNER, SourcePlan, build_plans
from tallystick.sources.retention import ClassRules
from tallystick.sources.submission import Bad, Draft, ForbiddenTenantError, InvalidBatchError, Sender
from tallystick.sources.tally import SourceTallies
from tallystick.transforms.report import read_records

Outcome = Literal["accepted", "duplicate", "filtered", "quarantined", "refused", "nothing"]
_HANDLE = "rehearsal"


class Fate(msgspec.Struct, omit_defaults=True):
    """What would become of one event, or of a record that is none.

    ``by``: who took it away or found it bad; ``changed_by``: transforms that changed something of the record; ``destinations``: by name, whether it would get it.
    """

    record: int
    outcome: Outcome
    tenant: str = ""
    event: dict[str, Any] | None = None
    by: str = ""
    code: str = ""
    message: str = ""
    pointer: str = ""
    changed_by: list[str] = []
    destinations: dict[str, str] = {}


class Watched:
    """A transform that remembers whether it did anything, and whether it changed an event of the last batch."""

    def __init__(self, transform: Transform) -> None:
        self.name = transform.name
        self.has_acted = False
        self.has_changed = False
        self._transform = transform

    def apply(self, event: Event) -> list[Event]:
        """As the transform."""
        return self._transform.apply(event)

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes], about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """As the transform."""
        before = list(map(msgspec.json.encode, events))
        kept = self._transform.apply_batch(events, contents, about)
        if kept is not None:
            going = [(place, msgspec.json.encode(made)) for place, made in kept if isinstance(made, Event)]
            self.has_changed |= any(text != before[place] for place, text in going)
            self.has_acted |= self.has_changed or {place for place, _ in going} != set(range(len(before)))
        return kept


class _Tenants(TenantRegistry):
    """Any tenant is there."""

    def __init__(self) -> None:
        self._made: dict[str, Tenant] = {}

    def create(self, name: str) -> Tenant:
        return self._made.setdefault(name, Tenant(name, f"{_HANDLE}-{len(self._made)}", 0.0))


class Rehearsal:
    """The sources of one configuration, without sockets and journal. Raises ConfigError as a start would."""

    def __init__(self, config: Config) -> None:
        plans = build_plans(config, compile_query)
        self.watched: dict[str, Watched] = {}
        self.mapped: set[str] = set()
        """Mappings that made an event of a record."""
        self.held_back: set[str] = set()
        """Destinations whose `where` held an event back."""
        self.plans: Mapping[str, SourcePlan] = {name: self._watch(plan) for name, plan in plans.items() if name != INNER}
        wheres = {name: table.get("where") for name, table in config.destinations.items()}
        self.wheres: dict[str, Matcher | None] = {name: compile_query(text) if text else None for name, text in wheres.items()}
        reader = EventReader(Limits(config.limits.event.bytes, config.limits.depth, config.limits.events))
        digester = Digester(_HANDLE.encode())
        self._service = IntakeService(
            cast("Appender", None),
            _Tenants(),
            self.plans,
            reader,
            digester,
            config.hash,
            SourceTallies([]),
            rules=ClassRules(config),
            clock=time.time,
        )
        self._seen: dict[tuple[str, bytes], bytes | None] = {}

    def _watch(self, plan: SourcePlan) -> SourcePlan:
        watched = [self.watched.setdefault(one.name, Watched(one)) for one in plan.transforms]
        return replace(plan, transforms=watched)

    def forget(self) -> None:
        """Begin anew: what comes now is no duplicate of what came before."""
        self._seen.clear()

    def plan(self, source: str, place: str | None = None) -> SourcePlan:
        """The source of that name. Raises ConfigError."""
        if source not in self.plans:
            raise ConfigError(f"there is no source `{source}`", place=place, hint="There are " + ", ".join(sorted(self.plans)))
        return self.plans[source]

    async def run(self, source: str, record: bytes, number: int = 1) -> list[Fate]:
        """What would become of one record; ``number`` is only told again."""
        plan = self.plan(source)
        for watched in self.watched.values():
            watched.has_changed = False
        draft = self._service.draft(plan, Sender("", ()), on_invalid="quarantine")
        try:
            await self._read(plan, draft, record)
            unread = len(draft.bad)
            prepared = await self._service.prepare(draft)
        except InvalidBatchError as error:
            return [self._bad(plan, bad, number, "refused", "") for bad in error.bad]
        except ForbiddenTenantError as error:
            return [Fate(number, "refused", code=error.code, message=error.message)]
        if plan.mapping is not None and draft.events:
            self.mapped.add(plan.mapping.name)
        told = [pair for part in prepared.parts for pair in self._fates(part, number)]
        fates = [fate for _, fate in sorted(told, key=lambda pair: pair[0])]
        outcome: Outcome = "refused" if plan.on_invalid == "reject" else "quarantined"
        reader = f"mapping {plan.mapping.name}" if plan.mapping is not None else "the reader of events"
        fates += [self._bad(plan, bad, number, outcome, reader if at < unread else "") for at, bad in enumerate(draft.bad)]
        return fates or [Fate(number, "nothing", message="the record holds no event")]

    async def _read(self, plan: SourcePlan, draft: Draft, record: bytes) -> None:
        kind = load_kind(plan.type) if plan.settings is not None else None
        if kind is not None and kind.reread is not None:
            kind.reread(self._service, draft, [record])
        elif plan.mapping is None:
            self._service.read_records(draft, [record])
        else:
            await self._service.map_records(draft, [Record(record)])

    def _fates(self, part: Part, number: int) -> Iterator[tuple[int, Fate]]:
        """Those of the events of one tenant, each with its place in the draft."""
        for name, gone in part.filtered.items():
            yield from ((position, Fate(number, "filtered", part.tenant.name, by=name)) for position in gone)
        if part.batch is None:
            return
        for place, (position, event, line) in enumerate(zip(part.positions, part.events, part.batch.lines, strict=True)):
            fate = Fate(number, "accepted", part.tenant.name, _shown(line, event, part.made_ids))
            fate.changed_by = [one.name for one in self.watched.values() if one.has_changed]
            self._dedupe(fate, part.tenant.handle, part.batch, place)
            if fate.outcome == "accepted":
                fate.destinations = {name: self._judge(name, where, line) for name, where in self.wheres.items()}
            yield position, fate

    def _dedupe(self, fate: Fate, handle: str, batch: TenantBatch, place: int) -> None:
        name, content = batch.id_digests[place], batch.content_digests[place]
        if name is None:
            return
        if (handle, name) not in self._seen:
            self._seen[handle, name] = content
        elif self._seen[handle, name] == content:
            fate.outcome = "duplicate"
        else:
            fate.outcome, fate.code, fate.pointer = "quarantined", "id_conflict", "/id"
            fate.message = "this id was used before with other content"

    def _judge(self, name: str, where: Matcher | None, line: bytes) -> str:
        if where is None or where.matches_line(line):
            return "would get it"
        self.held_back.add(name)
        return "filtered by its where"

    def _bad(self, plan: SourcePlan, bad: Bad, number: int, outcome: Outcome, by: str) -> Fate:
        error = bad.error
        return Fate(number, outcome, plan.tenant or "", by=by, code=error.code, message=error.message, pointer=error.pointer)


def cut_records(plan: SourcePlan, path: Path) -> list[bytes]:
    """The records of a file, for a source. Raises ConfigError when it cannot be read."""
    records = read_records(path)
    if plan.mapping is None and len(records) == 1 and records[0].lstrip()[:1] == b"[":
        try:
            return list(map(bytes, msgspec.json.decode(records[0], type=list[msgspec.Raw])))
        except msgspec.DecodeError:
            return records
    return records


def _shown(line: bytes, event: Event, made_ids: Sequence[str]) -> dict[str, Any]:
    """The event as it would be stored, without what is made up anew each time."""
    found: dict[str, Any] = msgspec.json.decode(line)
    found["ingest"].pop("salt", None)
    if event.id in made_ids:
        found.pop("id")
    return found
