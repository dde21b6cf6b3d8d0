"""What the intake hands to the journal in one append, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tallystick.journal.tenants import Tenant


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


class QuarantinedRecord(msgspec.Struct, kw_only=True):
    """A record that could not become an event; ``data`` is the record as received, ``line`` its 1-based place in the request."""

    handle: str
    source: str
    code: str
    message: str
    received_at: str
    data: bytes
    line: int = 1
    peer: str = ""


class FilterCount(msgspec.Struct, kw_only=True):
    """How many records of one request a named filter held back."""

    handle: str
    source: str
    filter: str
    count: int
    received_at: str = ""


class AccountEntry(msgspec.Struct, kw_only=True):
    """An entry for a tenant's account tree, a JSON object. Of all that are handed over under one ``id``, the first is stored."""

    handle: str
    id: str
    entry: dict[str, Any]


@dataclass(slots=True)
class Append:
    """One request: committed as a whole or not at all. ``batches`` holds each tenant at most once.

    ``quarantine_conflict(batch, position)`` makes the record that is kept for an event whose id was used before with other
    content, 0-based; None refuses the whole request with ConflictError instead. ``is_own``: what the installation records of
    itself; it has the whole queue where a tenant has a share.
    """

    batches: list[TenantBatch] = field(default_factory=list)
    quarantined: list[QuarantinedRecord] = field(default_factory=list)
    filtered: list[FilterCount] = field(default_factory=list)
    account: list[AccountEntry] = field(default_factory=list)
    quarantine_conflict: Callable[[int, int], QuarantinedRecord] | None = None
    is_own: bool = False

    @property
    def lane(self) -> str:
        """Whose share of the queue this takes: the tenant's that it begins with, or the installation's own (empty)."""
        if self.is_own or self.account:
            return ""
        if self.batches:
            return self.batches[0].tenant.handle
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
    leaf_hashes: list[bytes]
    repeated: Sequence[int] = ()


@dataclass(slots=True)
class Committed:
    """The durable outcome. ``tenants`` is parallel to ``Append.batches``; ``conflicts`` are (batch, position), 0-based.

    ``seq`` is the highest seq of this append, or of the duplicates it repeats: durable when this is returned.
    """

    tenants: list[TenantCommitted]
    conflicts: list[tuple[int, int]]
    seq: int
