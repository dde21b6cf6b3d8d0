"""Dedupe: each (tenant, id) is stored once, exactly, for at least the last N events (DESIGN 7.11, P3).

What an id can be

    new         never seen in the window: claimed for this append, then committed or released
    in flight   claimed by an append whose commit is still on its way: wait for it, then claim again
    duplicate   stored, with the same content: answered with its first position
    repeat      twice in this batch, with the same content: answered with the other's position
    conflict    stored, or earlier in this batch, with other content; or made here, where the content was never compared

How it is kept: the newest ids in memory (`dedupe_memory`), older ones in sorted immutable files (`dedupe_run`), flushed and
merged by a background thread (`dedupe_store`). Of ids made here only the prefix that a batch shares is kept: no sender can
have used one before, and a sender that uses one now is in conflict.

What the journal's writer does, in this order, all on one thread:

1. `claim` each batch before it is queued. When ``in_flight`` is not empty nothing was claimed: wait for a commit, claim again.
2. `dedupe_section` goes into the frame of the new lines.
3. After the sync, in the order of seqs: `commit`. Or `release`, when the append failed or is refused.
4. At start: `replay` every EVENTS frame after ``durable_seq``, oldest first. Segments beyond ``durable_seq`` are kept.
5. When a segment is full: `flush`, so that a quiet journal can be retired too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tallystick.errors import OverloadedError
from tallystick.journal.dedupe_claim import Claim, First, dedupe_section
from tallystick.journal.dedupe_digest import Digester, decode_section
from tallystick.journal.dedupe_memory import MemoryTable
from tallystick.journal.dedupe_probe import probe_for
from tallystick.journal.dedupe_run import Entry
from tallystick.journal.dedupe_store import DedupeStore

__all__ = ["Claim", "Dedupe", "Digester", "First", "dedupe_section"]

_TABLE_ROWS = 32_768
_TABLE_EVENTS = 1_048_576
_FROZEN_MAX = 5


class Keys(Protocol):
    """The part of the key store that dedupe needs."""

    def derive(self, purpose: str) -> bytes: ...

    def wrap(self, key: bytes, aad: bytes) -> bytes: ...

    def unwrap(self, blob: bytes, aad: bytes) -> bytes: ...


class Dedupe:
    """Used by the journal's writer alone, on one thread; see the module's text for the order of calls."""

    def __init__(self, store: DedupeStore, digester: Digester, table_rows: int) -> None:
        self._store = store
        self.digester = digester
        self._table_rows = table_rows
        self._active = MemoryTable()
        self._claimed: set[bytes] = set()

    @classmethod
    def open(cls, data_dir: Path, keys: Keys, events: int, *, table_rows: int = _TABLE_ROWS) -> Dedupe:
        """``events``: how many of the last events to remember, at least. About 2 bytes of memory each, and at most 50 MB."""
        return cls(DedupeStore(data_dir, keys, events, table_rows), Digester(keys.derive("dedupe")), table_rows)

    @property
    def durable_seq(self) -> int:
        """All entries up to this seq are in dedupe's own files."""
        return self._store.durable_seq

    def claim(
        self,
        handle: str,
        id_digests: Sequence[bytes | None],
        content_digests: Sequence[bytes | None],
        made_prefix: str = "",
        *,
        prefix: bytes = b"",
    ) -> Claim:
        """Tell a batch's ids apart and claim the new ones. ``None`` as id digest: made here, from ``made_prefix``, or from what
        has the digest ``prefix``.

        Raises OverloadedError, with nothing claimed, while the files cannot take what memory holds.
        """
        if len(self._store.view.frozen) >= _FROZEN_MAX:
            raise OverloadedError(self._store.failure or "the dedupe index is being written", retry_after_s=2)
        if made_prefix:
            prefix = self.digester.prefix(handle, made_prefix)
        ids = [digest for digest in id_digests if digest is not None]
        claim = Claim(handle, id_digests, content_digests, prefix, len(ids))
        distinct = set(ids)
        if not self._claimed.isdisjoint(distinct):
            claim.in_flight = [position for position, digest in enumerate(id_digests) if digest in self._claimed]
            return claim
        known = self._find(ids) if ids else {}
        if known or len(distinct) < len(ids):
            _tell_apart(claim, known)
            self._claimed.update(digest for digest in map(id_digests.__getitem__, claim.new) if digest is not None)
        else:
            claim.new = list(range(len(id_digests)))
            self._claimed |= distinct
        return claim

    def release(self, claim: Claim) -> None:
        """The new events of the claim were not stored."""
        _places, ids, _contents = claim.columns()
        self._claimed.difference_update(ids)

    def commit(self, claim: Claim, first_seq: int, first_index: int, leaf_hashes: Sequence[bytes]) -> None:
        """The new events are durable, under consecutive seqs and indexes; ``leaf_hashes`` are theirs, in order."""
        places, ids, contents = claim.columns()
        self._add(claim.prefix, places, ids, contents, first_seq, first_index, leaf_hashes)
        self._count(first_seq, len(claim.new))
        self._claimed.difference_update(ids)

    def replay(
        self, handle: str, section: bytes, first_seq: int, first_index: int, count: int, lines: Callable[[], list[bytes]]
    ) -> None:
        """Put back what a frame stored; ``lines`` is called only when leaf hashes are needed. Raises IntegrityError."""
        if first_seq + count - 1 <= self.durable_seq:
            return
        found = decode_section(section, count)
        places = [at for at, digest in enumerate(found.ids) if digest not in self._active.rows]
        stored = lines() if places else []
        positions = [found.positions[at] for at in places]
        leaf_hashes = {position: hashlib.sha256(b"\x00" + stored[position]).digest() for position in positions}
        ids, contents = [found.ids[at] for at in places], [found.contents[at] for at in places]
        self._add(found.prefix, positions, ids, contents, first_seq, first_index, leaf_hashes)
        self._count(first_seq, count)

    def flush(self) -> None:
        """Write what is in memory to the files, in the background, however little it is."""
        if self._active.events:
            self._store.freeze(self._active)
            self._active = MemoryTable()

    def close(self) -> None:
        """Flush and wait; what the disk does not take in time comes again from the journal."""
        self.flush()
        self._store.close()

    def status(self) -> dict[str, Any]:
        """For the status page: ``failure`` and ``damaged`` are reasons to be red."""
        view = self._store.view
        return {
            "durable_seq": self.durable_seq,
            "in_memory": self._active.entries + sum(table.entries for table in view.frozen),
            "runs": len(view.small) + len(view.large),
            "claimed": len(self._claimed),
            "failure": self._store.failure,
            "damaged": self._store.damaged,
        }

    def _find(self, ids: list[bytes]) -> dict[bytes, Entry | None]:
        """All that is known of these ids; None as entry: made here."""
        known: dict[bytes, Entry | None] = {}
        view = self._store.view
        for table in (self._active, *reversed(view.frozen)):
            if not table.rows.keys().isdisjoint(ids):
                known.update((digest, table.get(digest)) for digest in ids if digest in table.rows)
            if table.made:
                known.update((digest, None) for digest in _made_among(ids, table.made, self.digester.spread))
        # After the tables in memory: what the background thread moves from one to the other is then seen at least once.
        for digest, entry in self._store.find(ids, self.digester.spread).items():
            known.setdefault(digest, entry)
        return known

    def _add(
        self,
        prefix: bytes,
        places: Sequence[int],
        ids: Sequence[bytes],
        contents: Sequence[bytes],
        first_seq: int,
        first_index: int,
        leaf_hashes: Sequence[bytes] | dict[int, bytes],
    ) -> None:
        if prefix:
            self._active.made.add(prefix)
        if isinstance(places, range):
            seqs: Any = range(first_seq, first_seq + len(places))
            indexes: Any = range(first_index, first_index + len(places))
            leaves: Any = leaf_hashes
        else:
            seqs = [first_seq + place for place in places]
            indexes = [first_index + place for place in places]
            leaves = [leaf_hashes[place] for place in places]
        self._active.add(ids, contents, seqs, indexes, leaves)

    def _count(self, first_seq: int, events: int) -> None:
        if events:
            self._active.count(first_seq, events)
        if self._active.entries >= self._table_rows or self._active.events >= _TABLE_EVENTS:
            self.flush()


def _tell_apart(claim: Claim, known: dict[bytes, Entry | None]) -> None:
    """The slow way, for batches in which some id is known or comes twice."""
    first_of: dict[bytes, int] = {}
    for position, (digest, content) in enumerate(zip(claim.id_digests, claim.content_digests, strict=True)):
        if digest is None:
            claim.new.append(position)
        elif digest in known:
            entry = known[digest]
            if entry is not None and entry.content == content:
                claim.duplicates[position] = First(entry.seq, entry.index, entry.leaf_hash)
            else:
                claim.conflicts.append(position)
        elif digest not in first_of:
            first_of[digest] = position
            claim.new.append(position)
        elif claim.content_digests[first_of[digest]] == content:
            claim.repeats[position] = first_of[digest]
        else:
            claim.conflicts.append(position)


def _made_among(ids: list[bytes], made: set[bytes], spread: int) -> list[bytes]:
    probe = probe_for(ids).prefixes(spread)
    return [digest for place, digest in enumerate(ids) if _join(*probe.halves(place)) in made]


def _join(high: int, low: int) -> bytes:
    return (high << 64 | low).to_bytes(16, "big")
