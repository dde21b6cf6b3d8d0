"""The history of settled cuts: which cut an event went out in, when, and where it lies now.

One SQLite file a destination (``cursors/deliveries-<name>.sqlite``, WAL, FULL), written by the dispatcher *before* the cursor moves, so it
may repeat a cut that the cursor does not know yet (the row is then replaced), but never lacks one. It holds names, numbers and
digests, no content and no replies: those are in the encrypted dead letters.

It serves `explain`; it is the outbox of delivery receipts (``receipt`` = 0: not handed to the intake yet); and it rebuilds cursors
when both generations of the state file are damaged. If it is damaged itself it is set aside as ``….damaged`` and begun anew;
`explain` then says that it does not know for older events. A disk that is full or gives errors is no damage: OSError, and the
caller tries again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tallystick.delivery.account import Account
from tallystick.durable import replace_file, unlink
from tallystick.telemetry import log

_SCHEMA = """
create table if not exists cuts (
    handle text not null, first integer not null, last integer not null, is_replay integer not null, id integer not null,
    tenant text not null, name text not null, sha256 text not null, place text not null, settled_at real not null,
    attempts integer not null, delivered integer not null, filtered text not null, kept blob not null, dead blob not null,
    outcome text not null, receipt integer not null default 0,
    primary key (handle, is_replay, first, id)
) without rowid;
create index if not exists outbox on cuts (settled_at) where receipt = 0;
"""


class Dead(msgspec.Struct, frozen=True, array_like=True):
    """One event of a cut that was dead-lettered; ``letter`` is its number in the dead-letter log."""

    index: int
    reason: str
    letter: int


class SettledCut(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``kept`` is a bitmap of the positions that were let through (empty: all of them); ``filtered`` counts by filter."""

    id: int
    handle: str
    tenant: str
    first: int
    last: int
    is_replay: bool
    name: str
    sha256: str
    place: str
    settled_at: float
    attempts: int
    delivered: int
    filtered: dict[str, int]
    kept: bytes
    dead: tuple[Dead, ...]
    outcome: str = "delivered"

    @property
    def key(self) -> CutKey:
        """Where the row stands among all."""
        return self.handle, self.is_replay, self.first, self.id

    def is_kept(self, index: int) -> bool:
        """Whether the destination's filter let the event through."""
        if not self.kept:
            return True
        position = index - self.first
        return bool(self.kept[position >> 3] >> (position & 7) & 1)


CutKey = tuple[str, bool, int, int]
"""Handle, whether it is a replay, first index, number: the order of the rows."""

_COLUMNS = ", ".join(field for field in SettledCut.__struct_fields__)


class _DamagedError(OSError):
    """The file is no whole SQLite database; the next `add` begins a new one."""


class History:
    """Opened by one thread at a time; the dispatcher's lane writes it. All methods raise OSError when the disk does not do its part."""

    def __init__(self, data_dir: Path, destination: str) -> None:
        self.path = data_dir / "cursors" / f"deliveries-{destination}.sqlite"
        try:
            with self._translating():
                self._db = self._open()
        except _DamagedError as error:
            self._begin_anew(error)

    def _begin_anew(self, error: _DamagedError) -> None:
        """Set the damaged file aside. A crash on the way leaves it, or no file: the next start comes here or begins one."""
        log.error("the delivery history is damaged and begun anew", path=str(self.path), error=str(error))
        replace_file(self.path.with_name(self.path.name + ".damaged"), self.path.read_bytes())
        for suffix in ("-wal", "-shm", ""):
            unlink(self.path.with_name(self.path.name + suffix))
        with self._translating():
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            db.executescript(_SCHEMA)
            self.path.chmod(0o600)
        except BaseException:
            db.close()
            raise
        return db

    def add(self, cuts: Iterable[SettledCut]) -> None:
        """Store settled cuts durably; one stored before is replaced. Raises OSError when the disk does not take it."""
        rows = [_encode(cut) for cut in cuts]
        marks = ", ".join("?" * len(SettledCut.__struct_fields__))
        insert = f"insert or replace into cuts ({_COLUMNS}) values ({marks})"  # noqa: S608
        try:
            # A crash before the commit: the cuts are open in the state file, and are sent again under the same names.
            self._write(insert, rows)
        except _DamagedError as error:
            self._db.close()
            self._begin_anew(error)
            self._write(insert, rows)

    def find(self, handle: str, index: int) -> list[SettledCut]:
        """The cuts that hold the event, newest first: its replays, then the one it first went out in."""
        rows = self._read(
            f"select {_COLUMNS} from cuts where handle = ? and is_replay = 1 and first <= ? and last >= ? order by id desc",  # noqa: S608
            (handle, index, index),
        )
        rows += self._read(
            f"select {_COLUMNS} from cuts where handle = ? and is_replay = 0 and first <= ? order by first desc, id desc limit 1",  # noqa: S608
            (handle, index),
        )
        return [cut for cut in map(_decode, rows) if cut.last >= index]

    def page(self, after: CutKey | None, limit: int, handle: str | None = None) -> list[SettledCut]:
        """The next cuts in the order of their keys, of all tenants or one; for walks over all of it."""
        rows = self._read(
            f"select {_COLUMNS} from cuts where (handle, is_replay, first, id) > (?, ?, ?, ?) and (? is null or handle = ?) "  # noqa: S608
            "order by handle, is_replay, first, id limit ?",
            (*(after or ("", 0, -1, -1)), handle, handle, limit),
        )
        return [_decode(row) for row in rows]

    def has_place(self, handle: str, first: int, place: str) -> bool:
        """Whether a cut from that index on went to ``place``."""
        return bool(self._read("select 1 from cuts where handle = ? and first = ? and place = ? limit 1", (handle, first, place)))

    def unreceipted(self, limit: int) -> list[SettledCut]:
        """The oldest cuts whose delivery receipt was not handed over yet."""
        query = f"select {_COLUMNS} from cuts where receipt = 0 order by settled_at limit ?"  # noqa: S608
        return [_decode(row) for row in self._read(query, (limit,))]

    def mark_receipted(self, cuts: Iterable[SettledCut]) -> None:
        """Take cuts out of the outbox. A crash before this hands them over again, with the same ids."""
        keys = [(cut.handle, cut.is_replay, cut.first, cut.id) for cut in cuts]
        self._write("update cuts set receipt = 1 where handle = ? and is_replay = ? and first = ? and id = ?", keys)

    def rebuild(self) -> dict[str, Account]:
        """Accounts up to the first index without a settled cut, for when the state file is lost."""
        accounts: dict[str, Account] = {}
        query = f"select {_COLUMNS} from cuts order by handle, is_replay, first, id"  # noqa: S608
        for cut in map(_decode, self._read(query)):
            account = accounts.setdefault(cut.handle, Account(cut.tenant))
            if cut.outcome == "voided":
                continue
            if cut.is_replay:
                account.revision += 1
            elif cut.first == account.next:
                dead: dict[str, int] = {}
                for letter in cut.dead:
                    dead[letter.reason] = dead.get(letter.reason, 0) + 1
                account.settle(cut.delivered, cut.filtered, dead)
                account.next = cut.last + 1
        return accounts

    def next_id(self) -> int:
        """A cut number above all used ones."""
        ((highest,),) = self._read("select max(id) from cuts")
        return 0 if highest is None else int(highest) + 1

    def close(self) -> None:
        self._db.close()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._translating(), self._db:
            self._db.execute("begin immediate")
            self._db.executemany(statement, rows)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._translating():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise _DamagedError(str(error)) from error
            raise OSError(f"the delivery history cannot be used now: {error}") from error


def pack_kept(first: int, last: int, indexes: Iterable[int]) -> bytes:
    """The bitmap of ``indexes`` within ``first..last``, lowest bit first."""
    bits = bytearray((last - first + 8) // 8)
    for index in indexes:
        position = index - first
        bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def now() -> float:
    """Wall-clock time of a settlement, Unix seconds: data only, nothing is ordered by it but the outbox."""
    return time.time()


def _encode(cut: SettledCut) -> tuple[Any, ...]:
    values = {field: getattr(cut, field) for field in SettledCut.__struct_fields__}
    values["filtered"] = msgspec.json.encode(cut.filtered).decode()
    values["dead"] = msgspec.msgpack.encode(cut.dead)
    return tuple(values.values())


def _decode(row: tuple[Any, ...]) -> SettledCut:
    values = dict(zip(SettledCut.__struct_fields__, row, strict=True))
    values["filtered"] = msgspec.json.decode(str(values["filtered"]))
    values["dead"] = msgspec.msgpack.decode(values["dead"])
    return msgspec.convert(values, SettledCut, strict=False)
