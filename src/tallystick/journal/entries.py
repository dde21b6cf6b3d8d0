"""What the intake hands to the journal in one append, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tallystick.journal.tenants import Tenant

if TYPE_CHECKING:
    from tallystick.journal.packed import PackedBatch


@dataclass(slots=True)
class TenantBatch:
    """One tenant's events of one request. All lists are parallel to ``lines``.

    ``id_digests`` and ``content_digests`` hold 16 bytes each, or None where the id was made here (`dedupe.Digester`).
    ``made_prefix`` is what all ids made here share, empty when there are none.
    """

    tenant: Tenant
    lines: list[bytes]
    id_digests: list[bytes | None]
    content_digests: list[bytes | None]
    made_prefix: str = ""

    @property
    def handle(self) -> str:
        return self.tenant.handle

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return sum(map(len, self.lines))


class ProducerRanges(msgspec.Struct, array_like=True):
    """Numbers (`event.model.Producer`) of events that were not stored as such: ``ranges`` are ``[first, last]``, as they came."""

    credential: str
    id: str
    epoch: int
    ranges: list[list[int]]


class QuarantinedRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record that could not become an event; ``data`` is the record as received, ``line`` its 1-based place in the request."""

    handle: str
    source: str
    code: str
    message: str
    received_at: str
    data: bytes
    line: int = 1
    peer: str = ""
    credential: str = ""


class FilterCount(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How many records of one request a named filter held back, and whose numbers they had."""

    handle: str
    source: str
    filter: str
    count: int
    received_at: str = ""
    producers: list[ProducerRanges] = []


class AccountEntry(msgspec.Struct, kw_only=True):
    """An entry for a tenant's account tree, a JSON object. Of all that are handed over under one ``id``, the first is stored."""

    handle: str
    id: str
    entry: dict[str, Any]


@dataclass(slots=True)
class Append:
    """One request: committed as a whole or not at all. ``batches`` holds each tenant at most once.

    ``quarantine_conflict(batch, position)`` makes the record that is kept for an event whose id was used before with other
    content, 0-based; None refuses the whole request with ConflictError instead, and so does a conflict that is not among
    ``foreseen``, when that is given. ``is_own``: what the installation records of itself; it has the whole queue where a tenant
    has a share. ``source`` and ``received_at`` are for the tallies, which the writer keeps for its workers.
    """

    batches: Sequence[TenantBatch | PackedBatch] = field(default_factory=list)
    quarantined: list[QuarantinedRecord] = field(default_factory=list)
    filtered: list[FilterCount] = field(default_factory=list)
    account: list[AccountEntry] = field(default_factory=list)
    quarantine_conflict: Callable[[int, int], QuarantinedRecord] | None = None
    foreseen: Collection[tuple[int, int]] | None = None
    is_own: bool = False
    source: str = ""
    received_at: str = ""

    @property
    def lane(self) -> str:
        """Whose share of the queue this takes: the tenant's that it begins with, or the installation's own (empty)."""
        if self.is_own or self.account:
            return ""
        if self.batches:
            return self.batches[0].handle
        others: list[QuarantinedRecord | FilterCount] = [*self.quarantined[:1], *self.filtered[:1]]
        return others[0].handle if others else ""


@dataclass(slots=True)
class TenantCommitted:
    """Where one batch's events are. ``ranges`` are [first_index, count] in request order, duplicates with their first
    position; ``leaf_hashes`` likewise, one per event that has a position. ``repeated`` are the duplicates' places in the batch."""

    handle: str
    ranges: list[list[int]]
    accepted: int
    duplicates: int
    leaf_hashes: Sequence[bytes]
    repeated: Sequence[int] = ()


@dataclass(slots=True)
class Committed:
    """The durable outcome. ``tenants`` is parallel to ``Append.batches``; ``conflicts`` are (batch, position), 0-based.

    ``seq`` is the highest seq of this append, or of the duplicates it repeats: durable when this is returned.
    """

    tenants: list[TenantCommitted]
    conflicts: list[tuple[int, int]]
    seq: int


class Appender(Protocol):
    """The one verb that sources know: `journal.writer.Journal` in its own process, `journal.remote.RemoteJournal` in a worker."""

    async def append(self, request: Append) -> Committed:
        """Commit one request and say where it is. Returns after fdatasync; see `Journal.append` for what it raises."""
        ...
