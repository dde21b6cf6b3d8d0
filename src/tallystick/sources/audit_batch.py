"""Audit records on their way to being events: read as OTLP log records, held to the draft, their proofs and chains checked.

What a record becomes is what the `otlp` mapping makes of it, and in addition

    raw          the canonical form: its SHA-256 is the `integrity_hash` that the producer is told
    producer     stream and number of the producer's own sequence
    enrichment   `{"audit":{"integrity_hash","verify_status","reason"}}`: what was found out here

A chain that does not fit is no reason to refuse a record (it is evidence, of a loss or of worse): the event is flagged.

    audit_sequence_gap       numbers are missing before this one
    audit_sequence_repeat    a number that the stream has passed
    audit_chain_broken       `previous_hash` is not that of the record before
    audit_after_end          the stream had said that it was at its end
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw
from prometheus_client import Counter

from tallystick.errors import EventInvalidError
from tallystick.event import Event, Producer
from tallystick.event.stamp import add_flag
from tallystick.plugin import Decoded, Fault
from tallystick.protocols.audit_integrity import TrustedKey, Verdict, verify
from tallystick.protocols.audit_record import AuditRecord, integrity_hash
from tallystick.protocols.audit_record import Sequence as Place
from tallystick.transforms.map_record import RAW_BYTES_MAX
from tallystick.transforms.otlp import OtlpDecoded

VERIFY_FAILED = "verify_failed"
Demand = Literal["when_possible", "required", "off"]
_CHAIN = Counter("tallystick_audit_chain_breaks", "Audit records that do not fit their producer's sequence.", ["reason"])

_encode = msgspec.json.Encoder().encode


class _Last(NamedTuple):
    number: int
    hash: str
    has_ended: bool


class Chains:
    """The last record of each stream, of the last ``streams_max`` streams, since the start of this process.

    With several intake processes none sees all of a stream, so none can tell; then ``streams_max`` is 0.
    """

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()

    def check(self, owner: str, records: Iterable[tuple[Place | None, str]]) -> Iterator[list[str]]:
        """The flags of each record, given its place and its hash, in their order. ``owner``: whose streams they are."""
        ahead: dict[tuple[str, str], _Last] = {}
        for place, digest in records:
            if place is None or not self._streams_max:
                yield []
                continue
            stream = (owner, place.stream)
            last = ahead.get(stream) or self._last.get(stream)
            yield [] if last is None else _flags(last, place)
            if last is None or place.number > last.number or not place.number:
                ahead[stream] = _Last(place.number or (last.number if last else 0), digest, place.is_end)

    def note(self, owner: str, records: Iterable[tuple[Place | None, str]]) -> None:
        """These are durable."""
        for place, digest in records:
            if place is None or not self._streams_max:
                continue
            stream = (owner, place.stream)
            last = self._last.get(stream)
            if last is None or place.number > last.number or not place.number:
                self._last[stream] = _Last(place.number or (last.number if last else 0), digest, place.is_end)
                self._last.move_to_end(stream)
                if len(self._last) > self._streams_max:
                    self._last.popitem(last=False)


def _flags(last: _Last, place: Place) -> list[str]:
    flags = []
    if place.number and place.number <= last.number:
        return ["audit_sequence_repeat"]
    if last.has_ended:
        flags.append("audit_after_end")
    if place.number and last.number and place.number > last.number + 1:
        flags.append("audit_sequence_gap")
    elif place.previous_hash and place.previous_hash != last.hash:
        flags.append("audit_chain_broken")
    return flags


@dataclass(slots=True)
class AuditBatch(Decoded):
    """A request's records as events. Parallel to ``events``: ``audits``, ``hashes``, ``verdicts`` and ``chain_flags``.

    ``ids``: those of all records, by their place from 1, as far as they have one.
    """

    audits: list[AuditRecord] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    chain_flags: list[list[str]] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)

    @property
    def places(self) -> Iterator[tuple[Place | None, str]]:
        """Each record's place in its chain, and its hash."""
        return ((Place.of(audit), digest) for audit, digest in zip(self.audits, self.hashes, strict=True))


@dataclass(frozen=True, slots=True)
class AuditReader:
    """How one source reads audit records. ``keys``: whose proofs are trusted."""

    keys: Sequence[TrustedKey]
    demand: Demand
    keeps_raw: bool
    chains: Chains

    def read(self, found: OtlpDecoded, owner: str) -> AuditBatch:
        """Hold what the mapping ``found`` to the draft. Raises nothing: faults are in the batch."""
        batch = AuditBatch(faults=found.faults)
        for event, line, request in zip(found.events, found.lines, found.records, strict=True):
            audit = AuditRecord.of(request)
            batch.ids[line] = audit.id
            try:
                audit.require()
                verdict = self._verify(audit)
            except EventInvalidError as error:
                batch.faults.append(Fault(line, error.code, error.message, request))
                continue
            batch.events.append(event)
            batch.lines.append(line)
            batch.audits.append(audit)
            batch.contents.append(audit.canonical())
            batch.hashes.append(integrity_hash(batch.contents[-1]))
            batch.verdicts.append(verdict)
        batch.chain_flags = list(self.chains.check(owner, batch.places))
        for number, event in enumerate(batch.events):
            self._complete(event, batch, number)
        return batch

    def _verify(self, audit: AuditRecord) -> Verdict:
        if self.demand == "off":
            return Verdict("deferred", "proofs are not checked here")
        verdict = verify(audit, self.keys)
        if verdict.status == "failed" or (self.demand == "required" and verdict.status != "passed"):
            raise EventInvalidError(verdict.reason, code=VERIFY_FAILED)
        return verdict

    def _complete(self, event: Event, batch: AuditBatch, number: int) -> None:
        verdict, canonical = batch.verdicts[number], batch.contents[number]
        facts = {"integrity_hash": batch.hashes[number], "verify_status": verdict.status}
        if verdict.reason:
            facts["reason"] = verdict.reason
        event.enrichment = Raw(_encode({"audit": facts}))
        place = Place.of(batch.audits[number])
        if place is not None and place.number > 0:
            event.producer = Producer(id=place.stream, epoch=0, seq=place.number)
        if self.keeps_raw and len(canonical) <= RAW_BYTES_MAX:
            event.raw = canonical.decode()
        elif self.keeps_raw:
            add_flag(event, "raw_omitted")
        for flag in batch.chain_flags[number]:
            add_flag(event, flag)
            _CHAIN.labels(flag).inc()
