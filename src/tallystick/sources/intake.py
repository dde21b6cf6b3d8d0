"""The way in: decode, map, transform, stamp, encode, commit. One request is one commit: all of it or nothing.

1. Records become events: read strictly (`event.codec`) or mapped (`transforms.mapping`). What fails is *bad*: in reject mode
   the request ends here with every bad line named; in quarantine mode it goes on, and the bad records go into the same commit.
2. Each event gets its tenant, from the source or the credential; the event may only repeat it.
3. Events that break their schema contract become bad; then transforms run, and an event that one of them takes away is counted
   under that transform's name.
4. Events get ids, server fields and their canonical line, per tenant.
5. The journal dedupes, numbers, encrypts, writes and syncs. Only after that is there an outcome to answer with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from tallystick.errors import (
    ConflictError,
    DiskFullError,
    EventInvalidError,
    EventTooLargeError,
    NotAcceptingError,
    NotFoundError,
)
from tallystick.event import Source
from tallystick.event.codec import EventReader, ReadBatch, Shape, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.event.times import format_utc
from tallystick.http.turns import Turns
from tallystick.journal.dedupe_digest import Digester
from tallystick.journal.entries import Append, Appender, Committed, FilterCount, TenantBatch
from tallystick.journal.space import FULL_ERRNOS
from tallystick.journal.tenants import SERVER_TENANT, Tenant, TenantRegistry, UnknownTenantError, is_tenant_name
from tallystick.plugin import Carrier, Decoded, Record
from tallystick.sources.naming import name_by_place
from tallystick.sources.part import Part, Shares, conflict_of, outcome_of, producer_ranges, quarantined_record, results_of
from tallystick.sources.plan import INNER, OnInvalid, SourcePlan
from tallystick.sources.quota import Quotas, TenantCharge
from tallystick.sources.refusal import TOO_MANY_EVENTS
from tallystick.sources.retention import ClassRules
from tallystick.sources.sealing import Sealing, Taken
from tallystick.sources.submission import (
    Bad,
    ConflictingLinesError,
    Draft,
    ForbiddenTenantError,
    InvalidBatchError,
    Outcome,
    Sender,
)
from tallystick.sources.tally import SourceTallies
from tallystick.sources.transformed import hold_to_contracts, transform_part
from tallystick.transforms import MapOptions, RecordMapping

T = TypeVar("T")

DEFAULT_TENANT = "default"
_SMALL_BYTES_MAX = 64 * 2**10
_ORDINARY_BYTES_MAX = 2 * 2**20
_MAPPING_WEIGHT = 4
_MAP_RECORDS = 256
"""Records that are mapped before the events are counted: one record can hold very many."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft before step 5: its share of each tenant, those with events, and what the journal gets."""

    draft: Draft
    parts: list[Part]
    stored: list[Part]
    append: Append


@dataclass(slots=True)
class IntakeService:
    """Everything between a source and the journal. Runs on the event loop of the intake process."""

    journal: Appender
    tenants: TenantRegistry
    plans: Mapping[str, SourcePlan]
    reader: EventReader
    digester: Digester
    config_hash: str
    tallies: SourceTallies
    quotas: Quotas = field(default_factory=Quotas)
    turns: Turns = field(default_factory=Turns)
    rules: ClassRules = field(default_factory=ClassRules)
    sealing: Sealing = field(default_factory=Sealing)
    clock: Callable[[], float] = time.time

    async def record(self, event: dict[str, Any]) -> None:
        """Append one event of this server about itself to the server's own log. Raises PushbackError."""
        draft = self.draft(self.plan(INNER), Sender("", (SERVER_TENANT,), is_own=True))
        self.read_records(draft, [msgspec.json.encode(event)])
        await self.commit(draft)

    def plan(self, name: str) -> SourcePlan:
        """The source of that name. Raises NotFoundError."""
        try:
            return self.plans[name]
        except KeyError as error:
            raise NotFoundError(f"there is no source named {name!r}") from error

    def draft(
        self,
        plan: SourcePlan,
        sender: Sender,
        *,
        on_invalid: OnInvalid | None = None,
        idempotency_key: str = "",
        peer: str = "",
    ) -> Draft:
        """An empty draft with this request's one clock reading."""
        received_at = format_utc(datetime.fromtimestamp(self.clock(), UTC))
        return Draft(
            plan,
            sender,
            on_invalid or plan.on_invalid,
            received_at,
            self.config_hash,
            idempotency_key=idempotency_key,
            peer=peer,
        )

    async def work(self, draft: Draft, work: Callable[..., T], *arguments: Any) -> T:
        """One stretch of a request's work: here, or, when it is large, in its turn (`http.turns`)."""
        self.turns.note(draft.lane)
        if draft.is_huge or (draft.is_large and self.turns.is_shared):
            return await self.turns.work(draft.lane, work, *arguments)
        return work(*arguments)

    def size(self, draft: Draft, size: int) -> None:
        """Say how many bytes the draft's work is about, for `work`."""
        draft.is_large, draft.is_huge = size > _SMALL_BYTES_MAX, size > _ORDINARY_BYTES_MAX

    async def read(self, draft: Draft, body: bytes, shape: Shape) -> None:
        """Step 1 for records that are events already."""
        self.size(draft, len(body))
        self.take(draft, await self.work(draft, self.reader.read, body, shape))

    def read_records(self, draft: Draft, records: list[bytes], received: Sequence[bytes] | None = None) -> None:
        """Step 1 for events that were taken out of another protocol: out of ``received``, record by record, when that is given."""
        batch = self.reader.read_records(records)
        if received is not None:
            batch.records = [received[line - 1] for line in batch.lines]
        self.take(draft, batch)

    def take(self, draft: Draft, batch: ReadBatch) -> None:
        """Put what was read into the draft. Raises InvalidBatchError when the mode or the number of events refuses it."""
        draft.events, draft.contents, draft.records, draft.lines = batch.events, batch.contents, batch.records, batch.lines
        draft.said = batch.said
        draft.bad += [Bad(error.line, error, record) for error, record in zip(batch.errors, batch.rejected, strict=True)]
        # A body of too many events is no record to keep: whoever sent it can send it in parts.
        if draft.bad and (draft.on_invalid == "reject" or draft.bad[0].error.code == TOO_MANY_EVENTS):
            raise InvalidBatchError(draft.bad, is_unreadable=batch.is_unreadable)

    async def map_records(self, draft: Draft, records: Sequence[Record]) -> None:
        """Step 1 for records of a product: one record may become several events. Raises InvalidBatchError, NotFoundError."""
        mapping = draft.plan.mapping
        if mapping is None:
            raise NotFoundError(f"the source {draft.plan.name!r} has no mapping")
        # A mapping takes four times as long as reading.
        size = _MAPPING_WEIGHT * sum(len(record.data) for record in records)
        draft.is_large = draft.is_huge = size > _SMALL_BYTES_MAX
        await self.work(draft, self._map, draft, mapping, records)
        if draft.bad and draft.on_invalid == "reject":
            raise InvalidBatchError(draft.bad, is_unreadable=False)

    async def decode(self, draft: Draft, size: int, decode: Callable[[], Decoded]) -> None:
        """Step 1 for ``size`` bytes of a protocol of which ``decode`` makes events. Raises InvalidBatchError, and what it raises."""
        self.size(draft, size)
        found = await self.work(draft, decode)
        draft.events, draft.contents, draft.records, draft.lines = found.events, found.contents, found.records, found.lines
        draft.said = found.said
        for fault in found.faults:
            error = EventInvalidError(fault.message, line=fault.line, code=fault.code)
            draft.bad.append(Bad(fault.line, error, fault.record))
        if draft.bad and draft.on_invalid == "reject":
            raise InvalidBatchError(draft.bad, is_unreadable=False)

    def _map(self, draft: Draft, mapping: RecordMapping, records: Sequence[Record]) -> None:
        has_places = any(record.id for record in records)
        options = MapOptions(draft.plan.name, draft.plan.keep_raw, names_by_digest=not has_places)
        for start in range(0, len(records), _MAP_RECORDS):
            part = records[start : start + _MAP_RECORDS]
            result = mapping.map_batch(
                [record.data for record in part], [Carrier(record.peer, None, record.more or {}) for record in part], options
            )
            if has_places:
                name_by_place(result.events, [part[position].id for position in result.positions])
            draft.events += result.events
            draft.contents += result.contents
            draft.records = draft.contents
            draft.lines += [part[position].line for position in result.positions]
            for problem in result.problems:
                line = part[problem.position].line
                draft.bad.append(Bad(line, EventInvalidError(problem.message, line=line, code=problem.code), problem.record))
            self.check_count(draft)

    def check_count(self, draft: Draft) -> None:
        """Raises InvalidBatchError when the draft holds more events than one request may."""
        limit = self.reader.limits.events
        if len(draft.events) + len(draft.bad) > limit:
            message = f"more than {limit} events in one request; send smaller ones"
            error = EventInvalidError(message, line=draft.lines[-1] if draft.lines else 1, code=TOO_MANY_EVENTS)
            raise InvalidBatchError([Bad(error.line, error, b"")], is_unreadable=False)

    async def commit(self, draft: Draft, *, wants_results: bool = False) -> Outcome:
        """Steps 2 to 5; then it is durable. Whatever is raised, nothing was stored.

        Raises ForbiddenTenantError, InvalidBatchError, ConflictingLinesError or PushbackError (QuotaExceededError among them).
        """
        return await self.append(await self.prepare(draft), wants_results=wants_results)

    async def prepare(self, draft: Draft) -> Prepared:
        """Steps 2 to 4. After a PushbackError the same draft may be tried again: what was done to it is not done twice."""
        parts = draft.waiting
        if parts is None:
            parts = await self._shares(draft)
            if self.quotas.is_limited and not draft.sender.is_own:
                self.quotas.charge(draft.sender.credential, self._charges(draft, parts))
        if self.sealing and any(self.sealing.covers(draft, part) for part in parts):
            draft.is_large = draft.is_huge = True  # keys may have to be synced: not on the event loop
        await self.work(draft, self._prepare, draft, parts)
        if draft.bad and draft.on_invalid == "reject":
            raise InvalidBatchError(draft.bad, is_unreadable=False)
        stored = [part for part in parts if part.events]
        return Prepared(draft, parts, stored, self._append(draft, parts, stored))

    async def append(self, prepared: Prepared, *, wants_results: bool = False) -> Outcome:
        """Step 5. After a PushbackError the same may be tried again."""
        shares = await self.store(prepared)
        outcome = outcome_of(prepared.draft, shares)
        if wants_results:
            outcome.results = results_of(prepared.draft, shares, outcome.bad)
        self.tallies.count(prepared.draft.plan.name, outcome)
        return outcome

    async def store(self, prepared: Prepared) -> Shares:
        """As `append`, without an outcome: for drafts that hold the events of several requests (`sources.together`)."""
        draft, parts, stored, append = prepared.draft, prepared.parts, prepared.stored, prepared.append
        if not append.batches and not append.quarantined and not append.filtered:
            return Shares(parts, stored, Committed([], [], 0))
        try:
            committed = await self.journal.append(append)
        except ConflictError as error:
            lines = [draft.lines[stored[number].positions[place]] for number, place in error.positions]
            raise ConflictingLinesError(sorted(lines)) from None
        return Shares(parts, stored, committed)

    async def _shares(self, draft: Draft) -> list[Part]:
        """Step 2. A worker has the writer make the tenants that are new; nothing was done to the draft before."""
        while True:
            try:
                parts = self._split_by_tenant(draft)
                if draft.bad:
                    self.tenant(self._home_tenant(draft))
                return parts
            except UnknownTenantError as error:
                await self.tenants.fetch(error.name)

    def _split_by_tenant(self, draft: Draft) -> list[Part]:
        default = self._default_tenant(draft)
        names = [default if event.tenant is UNSET else event.tenant for event in draft.events]
        distinct = set(names)
        for name in sorted(distinct) or [default]:
            self._check_tenant(draft, name)
        if len(distinct) == 1:
            tenant = self.tenant(names[0])
            return [Part(tenant, range(len(names)), draft.events, draft.contents, draft.said)]
        places: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            places.setdefault(name, []).append(position)
        return [
            Part(self.tenant(name), where, [draft.events[n] for n in where], [draft.contents[n] for n in where])
            for name, where in places.items()
        ]

    def _charges(self, draft: Draft, parts: list[Part]) -> list[TenantCharge]:
        """What the request costs each tenant; bad records are charged to the tenant whose quarantine they go to."""
        charges = [TenantCharge(part.tenant.name, len(part.events), sum(map(len, part.contents))) for part in parts if part.events]
        if draft.bad:
            charges.append(TenantCharge(self._home_tenant(draft), len(draft.bad), sum(len(item.record) for item in draft.bad)))
        return charges

    def tenant(self, name: str) -> Tenant:
        """The tenant of that name, made when it is new. Raises PushbackError when the disk does not take it."""
        try:
            return self.tenants.create(name)
        except OSError as error:
            kind = DiskFullError if error.errno in FULL_ERRNOS else NotAcceptingError
            raise kind(f"the register of tenants cannot be written: {error.strerror}", retry_after_s=5) from error

    def _default_tenant(self, draft: Draft) -> str:
        if draft.plan.tenant is not None:
            return draft.plan.tenant
        return draft.sender.only_tenant or DEFAULT_TENANT

    def _check_tenant(self, draft: Draft, name: str) -> None:
        if draft.plan.tenant is not None and name != draft.plan.tenant:
            raise ForbiddenTenantError(f"this source writes to the tenant {draft.plan.tenant!r} only")
        if not draft.sender.may_write(name):
            raise ForbiddenTenantError(
                f"the credential may not write to the tenant {name!r}",
                hint="It is bound to " + ", ".join(draft.sender.tenants) + "; with several, every event names its own",
            )
        if not is_tenant_name(name) and not draft.sender.is_own:
            raise ForbiddenTenantError(f"{name[:80]!r} is no tenant that a sender can write to")

    def _prepare(self, draft: Draft, parts: list[Part]) -> None:
        """Steps 3 and 4."""
        for part in parts if draft.waiting is None else ():
            if draft.idempotency_key:
                self._name(draft, part)
            if part.events:
                hold_to_contracts(draft, part)
                transform_part(draft, part)
        if not self.sealing:
            for part in parts:
                self._encode(draft, part)
            return
        draft.waiting = parts
        subjects = [self.sealing.ready(draft, part) if self.sealing.covers(draft, part) else None for part in parts]
        for part, known in zip(parts, subjects, strict=True):
            taken = self.sealing.take_out(part, known) if known is not None else None
            self._encode(draft, part, taken)

    def _encode(self, draft: Draft, part: Part, taken: Taken | None = None) -> None:
        """Step 4 for one tenant. Events whose line is too long become bad."""
        has_sent_ids = any(event.id is not UNSET for event in part.events)
        stamp = Stamp(
            tenant=part.tenant.name,
            received_at=draft.received_at,
            source=Source(name=draft.plan.name, type=draft.plan.type, credential=draft.sender.credential or UNSET),
            mapping=draft.plan.mapping.name if draft.plan.mapping else None,
            config=draft.config,
            classify=self.rules.apply if self.rules else None,
        )
        try:
            lines = encode_lines(part.events, stamp, self.reader.limits, part.said)
        except EventTooLargeError as error:
            part.refuse(dict.fromkeys(error.positions, error), draft)
            lines = encode_lines(part.events, stamp, self.reader.limits)
        if taken is not None:
            lines = self.sealing.put_in(draft, part, lines, taken, self.reader.limits.event_bytes)
        prefix = stamp.ids.prefix
        if has_sent_ids:
            self._digest(part, lines, prefix)
        else:
            nothing: list[bytes | None] = [None] * len(lines)
            part.batch = TenantBatch(part.tenant, lines, nothing, nothing, prefix)
            part.made_ids = [str(event.id) for event in part.events]

    def _name(self, draft: Draft, part: Part) -> None:
        """Give ids by the sender's key: the number of the line, or of the event where one record may become several.

        Before the transforms: one that splits an event derives ids from its id.
        """
        is_mapped = draft.plan.mapping is not None
        for position, event in zip(part.positions, part.events, strict=True):
            if event.id is UNSET:
                event.id = f"{draft.idempotency_key}:{position + 1 if is_mapped else draft.lines[position]}"

    def _digest(self, part: Part, lines: list[bytes], prefix: str) -> None:
        """The batch of a part in which the sender named some or all ids."""
        ids = [str(event.id) for event in part.events]
        made = [place for place, name in enumerate(ids) if name.startswith(prefix)]
        id_digests: list[bytes | None] = list(self.digester.ids(part.tenant.handle, ids))
        content_digests: list[bytes | None] = list(self.digester.contents(part.contents))
        for place in made:
            id_digests[place] = content_digests[place] = None
        part.batch = TenantBatch(part.tenant, lines, id_digests, content_digests, prefix if made else "")
        part.made_ids = [ids[place] for place in made]

    def _append(self, draft: Draft, parts: list[Part], stored: list[Part]) -> Append:
        append = Append(
            [part.batch for part in stored if part.batch is not None],
            is_own=draft.sender.is_own,
            source=draft.plan.name,
            received_at=draft.received_at,
        )
        if draft.on_invalid == "quarantine":
            append.quarantine_conflict = lambda number, place: quarantined_record(draft, conflict_of(draft, stored[number], place))
        if draft.bad:
            home = "" if all(item.handle for item in draft.bad) else self.tenant(self._home_tenant(draft)).handle
            append.quarantined = [quarantined_record(draft, item, home) for item in draft.bad]
        append.filtered = [
            FilterCount(
                handle=part.tenant.handle,
                source=draft.plan.name,
                filter=name,
                count=len(gone),
                received_at=draft.received_at,
                producers=producer_ranges(draft.sender.credential, part.filtered_numbers.get(name, ())),
            )
            for part in parts
            for name, gone in part.filtered.items()
        ]
        return append

    def _home_tenant(self, draft: Draft) -> str:
        """Whose quarantine a record goes to that names no tenant: one that the sender may write to."""
        name = self._default_tenant(draft)
        return name if draft.sender.may_write(name) else min(draft.sender.tenants)
