"""An append once dedupe has spoken: what of it becomes frames, and what its caller is told.

- Events: the new lines of a batch become one EVENTS frame; duplicates and repeats are answered with the first position.
- Account entries: stored once per (tenant, id), whatever the entry says: the id alone decides. Their ids share the window of
  the events' ids, under a name that no event can have, so that a repeat after a lost answer adds nothing to the account tree.
  At start they come back from the ACCOUNT frames themselves (`replay`).
- Quarantined records and filter counts have no ids; each tenant's become one frame per type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from tallystick.journal.dedupe import Claim, Dedupe, Digester, dedupe_section
from tallystick.journal.dedupe_digest import DIGEST_BYTES, encode_section
from tallystick.journal.entries import AccountEntry, Append, TenantBatch, TenantCommitted
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.group import Part
from tallystick.journal.packed import HASH_BYTES, PackedBatch
from tallystick.journal.pieces import Pieces

_ID_DECIDES = bytes(DIGEST_BYTES)


@dataclass(slots=True)
class Claimed:
    """What dedupe said of one batch, or of one tenant's account entries, and the frame for what is new (None without any)."""

    claim: Claim
    hashes: Sequence[bytes]
    part: Part | None


@dataclass(slots=True)
class AccountBatch:
    """One tenant's account entries of one append, encoded; the lists are parallel."""

    handle: str
    lines: list[bytes]
    id_digests: list[bytes]

    @property
    def content_digests(self) -> list[bytes]:
        """The same for all: two entries under one id are never told apart."""
        return [_ID_DECIDES] * len(self.lines)


def account_batches(entries: Sequence[AccountEntry], digester: Digester) -> list[AccountBatch]:
    """The entries of each tenant."""
    by_handle: dict[str, list[AccountEntry]] = {}
    for entry in entries:
        by_handle.setdefault(entry.handle, []).append(entry)
    return [
        AccountBatch(handle, [msgspec.json.encode(entry) for entry in found], _account_digests(digester, handle, found))
        for handle, found in by_handle.items()
    ]


def claim_events(dedupe: Dedupe, batch: TenantBatch | PackedBatch) -> Claim:
    """Ask dedupe about a batch. Raises OverloadedError."""
    if isinstance(batch, PackedBatch):
        prefix, ids, contents = batch.ids()
        return dedupe.claim(batch.handle, ids, contents, prefix=prefix)
    return dedupe.claim(batch.handle, batch.id_digests, batch.content_digests, batch.made_prefix)


def prepare_events(batch: TenantBatch | PackedBatch, claim: Claim) -> Claimed:
    """The frame of a batch's new lines, and their leaf hashes."""
    if isinstance(batch, PackedBatch):
        return _prepare_packed(batch, claim)
    new = claim.new
    lines = batch.lines if len(new) == len(batch.lines) else [batch.lines[position] for position in new]
    hashes = [sha256(b"\0" + line).digest() for line in lines]
    part = None
    if lines:
        part = Part(FrameType.EVENTS, batch.handle, lines, len(lines), dedupe_section(claim))
    return Claimed(claim, hashes, part)


def _prepare_packed(batch: PackedBatch, claim: Claim) -> Claimed:
    """As it came when all is new; else what is new of it, packed again with the commit."""
    new = claim.new
    hashes = Pieces(batch.leaf_hashes, HASH_BYTES)
    if len(new) == batch.count:
        return Claimed(claim, hashes, Part(FrameType.EVENTS, batch.handle, [], batch.count, payload=batch.payload))
    if not new:
        return Claimed(claim, [], None)
    lines = batch.lines()
    part = Part(FrameType.EVENTS, batch.handle, [lines[at] for at in new], len(new), dedupe_section(claim))
    return Claimed(claim, [hashes[at] for at in new], part)


def prepare_account(batch: AccountBatch, claim: Claim) -> Claimed:
    """The frame of a tenant's new account entries. They are no leaves of an event tree, so dedupe keeps zeros for their hashes."""
    lines = [batch.lines[position] for position in claim.new]
    part = Part(FrameType.ACCOUNT, batch.handle, lines, len(lines)) if lines else None
    return Claimed(claim, [bytes(32)] * len(lines), part)


def other_parts(request: Append, conflicts: list[tuple[int, int]]) -> list[Part]:
    """One frame per type and tenant for what has no id."""
    if not (conflicts or request.quarantined or request.filtered):
        return []
    quarantined = list(request.quarantined)
    if request.quarantine_conflict is not None:
        quarantined += [request.quarantine_conflict(place, position) for place, position in conflicts]
    frames: dict[tuple[FrameType, str], list[bytes]] = {}
    for kind, entries in ((FrameType.QUARANTINED, quarantined), (FrameType.FILTERED, request.filtered)):
        for entry in entries:
            frames.setdefault((kind, entry.handle), []).append(msgspec.json.encode(entry))
    return [Part(kind, handle, lines, len(lines)) for (kind, handle), lines in frames.items()]


def replay(dedupe: Dedupe, frame: Frame) -> None:
    """Put the ids of a durable EVENTS or ACCOUNT frame back into the window. Raises IntegrityError, msgspec.MsgspecError."""
    lines = frame.lines
    if frame.type == FrameType.EVENTS:
        section = frame.dedupe_section()
    else:
        lines = frame.records
        found = [msgspec.json.decode(record, type=AccountEntry) for record in lines()]
        digests = _account_digests(dedupe.digester, frame.handle, found)
        section = encode_section(b"", len(found), range(len(found)), digests, [_ID_DECIDES] * len(found))
    dedupe.replay(frame.handle, section, frame.first_seq, frame.first_index, frame.count, lines)


def tenant_committed(item: Claimed) -> TenantCommitted:
    """Where the events of a batch are, once its frame has its numbers."""
    claim, part = item.claim, item.part
    if part is not None and not claim.duplicates and not claim.repeats and not claim.conflicts:
        return TenantCommitted(claim.handle, [[part.first_index, part.count]], part.count, 0, item.hashes)
    placed: dict[int, tuple[int, bytes]] = {at: (first.index, first.leaf_hash) for at, first in claim.duplicates.items()}
    if part is not None:
        placed |= {at: (part.first_index + k, item.hashes[k]) for k, at in enumerate(claim.new)}
    placed |= {at: placed[earlier] for at, earlier in claim.repeats.items()}
    order = sorted(placed)
    ranges = ranges_of([placed[at][0] for at in order])
    repeated = sorted([*claim.duplicates, *claim.repeats])
    return TenantCommitted(claim.handle, ranges, len(claim.new), len(repeated), [placed[at][1] for at in order], repeated)


def _account_digests(digester: Digester, handle: str, entries: Sequence[AccountEntry]) -> list[bytes]:
    return digester.ids(f"{handle}/account", [entry.id for entry in entries])


def ranges_of(indexes: list[int]) -> list[list[int]]:
    """[first, count] for each run of consecutive indexes, in order."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and index == ranges[-1][0] + ranges[-1][1]:
            ranges[-1][1] += 1
        else:
            ranges.append([index, 1])
    return ranges
