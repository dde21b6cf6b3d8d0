"""Quarantine: records that could not become events, kept encrypted until somebody replays them.

    DIR/quarantine/records      EncryptedLog, written by the archiver: ``seq u64 big-endian | the record's JSON of the journal``
    DIR/quarantine/replayed     EncryptedLog, written by the api process: ``seq u64 big-endian`` for each replayed record

The catalog has an index of the first (seq, ordinal, source, code …), so that lists and counts open nothing. The archiver
stores records before its cursor moves past them, indexes them afterwards, and passes over seqs that are indexed: a crash
between the two is repaired by `QuarantineWriter.reindex`, which reads on where the index ends.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tallystick.archive.catalog import Catalog, CatalogWriter, QuarantineRow
from tallystick.errors import NotFoundError
from tallystick.journal.entries import QuarantinedRecord
from tallystick.privacy.encrypted_log import EncryptedLog
from tallystick.privacy.keys import KeyStore

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One record: its number, why it is here, and whether it was replayed since."""

    seq: int
    record: QuarantinedRecord
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class QuarantineCount:
    """How many records one source has here for one reason, and how many of them were not replayed.

    ``sample``: the seq of the newest of those that wait, or of them all when none does.
    """

    handle: str
    source: str
    code: str
    count: int
    waiting: int
    sample: int


class Quarantine:
    """Reads the quarantine; thread-safe. ``handles`` limits every answer to these tenants ("" is: of no tenant)."""

    def __init__(self, data_dir: Path, keys: KeyStore) -> None:
        self._catalog = Catalog(data_dir / "catalog.sqlite")
        self._records = _records_log(data_dir, keys)
        self._replayed_log = EncryptedLog(data_dir / "quarantine" / "replayed", keys, "quarantine-replayed")
        self._lock = threading.Lock()
        self._replayed: set[int] = set()
        self._replayed_end = 0

    def list(
        self, handles: Sequence[str] | None = None, *, after_seq: int = -1, limit: int = 100, is_waiting: bool | None = None
    ) -> list[tuple[QuarantineRow, bool]]:
        """(row, replayed) in journal order after ``after_seq``; ``is_waiting`` True keeps those not replayed, False the others."""
        replayed = self._replayed_seqs()
        found: list[tuple[QuarantineRow, bool]] = []
        for row in self._rows(handles, after_seq):
            if is_waiting is None or is_waiting != (row.seq in replayed):
                found.append((row, row.seq in replayed))
            if len(found) == limit:
                break
        return found

    def counts(self, handles: Sequence[str] | None = None) -> Sequence[QuarantineCount]:
        """Counts by tenant, source and reason."""
        replayed = self._replayed_seqs()
        every: Counter[tuple[str, str, str]] = Counter()
        waiting: Counter[tuple[str, str, str]] = Counter()
        sample: dict[tuple[str, str, str], int] = {}
        for row in self._rows(handles, -1):
            key, is_waiting = (row.handle, row.source, row.code), row.seq not in replayed
            every[key] += 1
            waiting[key] += is_waiting
            if is_waiting or not waiting[key]:
                sample[key] = row.seq
        return [QuarantineCount(*key, count, waiting[key], sample[key]) for key, count in sorted(every.items())]

    def get(self, seq: int, handles: Sequence[str] | None = None) -> Quarantined:
        """One record with its bytes. Raises NotFoundError."""
        return next(iter(self.read([seq], handles)))

    def read(self, seqs: Sequence[int], handles: Sequence[str] | None = None) -> Sequence[Quarantined]:
        """Records by seq, in that order. Raises NotFoundError when one is not there for these tenants."""
        replayed = self._replayed_seqs()
        ordinals: dict[int, int] = {}
        for seq in seqs:
            rows = self._catalog.quarantined(seq - 1, handles, 1)
            if not rows or rows[0].seq != seq:
                raise NotFoundError(f"no record {seq} in quarantine")
            ordinals[rows[0].ordinal] = seq
        found: dict[int, QuarantinedRecord] = {}
        for ordinal, stored in self._records.read(min(ordinals, default=0)):
            if ordinal in ordinals:
                found[ordinals[ordinal]] = _decode(stored)[1]
            if len(found) == len(ordinals):
                break
        missing = [seq for seq in seqs if seq not in found]
        if missing:
            raise NotFoundError(f"record {missing[0]} of the quarantine is damaged", place=str(self._records.path))
        return [Quarantined(seq, found[seq], seq in replayed) for seq in seqs]

    def mark_replayed(self, seqs: Iterable[int]) -> None:
        """Note durably that these were replayed. The api process alone calls this, after the replay was committed: a crash
        between the two replays them again, and dedupe knows them."""
        self._replayed_log.append([seq.to_bytes(8, "big") for seq in seqs])

    def _rows(self, handles: Sequence[str] | None, after_seq: int) -> Iterator[QuarantineRow]:
        while rows := self._catalog.quarantined(after_seq, handles, _PAGE):
            yield from rows
            after_seq = rows[-1].seq

    def _replayed_seqs(self) -> set[int]:
        with self._lock:
            for ordinal, stored in self._replayed_log.read(self._replayed_end):
                self._replayed.add(int.from_bytes(stored, "big"))
                self._replayed_end = ordinal + 1
            return set(self._replayed)


class QuarantineWriter:
    """The archiver's side."""

    def __init__(self, data_dir: Path, keys: KeyStore, catalog: CatalogWriter) -> None:
        self._catalog = catalog
        self._records = _records_log(data_dir, keys)
        self._last_seq = -1
        self.reindex()

    def reindex(self) -> None:
        """Index what the log has and the catalog has not: after a crash, or for a rebuilt catalog."""
        self._last_seq, last_ordinal = self._catalog.quarantine_end()
        page: list[QuarantineRow] = []
        for ordinal, stored in self._records.read(last_ordinal + 1):
            page.append(_index_row(ordinal, *_decode(stored)))
            if len(page) == _PAGE:
                self._index(page)
                page = []
        self._index(page)

    def store(self, records: Sequence[tuple[int, bytes]]) -> int:
        """Keep (seq, record's JSON) pairs, in order; durable when it returns. Returns how many were new."""
        new = [(seq, data) for seq, data in records if seq > self._last_seq]
        if new:
            ordinals = self._records.append([seq.to_bytes(8, "big") + data for seq, data in new])
            # A crash here: kept but not indexed. `reindex` at the next start, before the journal brings them again.
            rows = zip(ordinals, new, strict=True)
            self._index([_index_row(ordinal, seq, _record(data)) for ordinal, (seq, data) in rows])
        return len(new)

    def _index(self, rows: list[QuarantineRow]) -> None:
        if rows:
            self._catalog.add_quarantined(rows)
            self._last_seq = max(self._last_seq, rows[-1].seq)


def _records_log(data_dir: Path, keys: KeyStore) -> EncryptedLog:
    return EncryptedLog(data_dir / "quarantine" / "records", keys, "quarantine")


def _decode(stored: bytes) -> tuple[int, QuarantinedRecord]:
    return int.from_bytes(stored[:8], "big"), _record(stored[8:])


def _record(data: bytes) -> QuarantinedRecord:
    return msgspec.json.decode(data, type=QuarantinedRecord)


def _index_row(ordinal: int, seq: int, record: QuarantinedRecord) -> QuarantineRow:
    return QuarantineRow(seq, ordinal, record.handle, record.source, record.code, record.received_at)
