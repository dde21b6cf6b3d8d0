"""Destination `postgresql`: rows and cursor in one transaction; exactly once.

    lock this tenant's cursor row ──► COPY the rows ──► note the cut in the cursor row ──► COMMIT

How exactly-once works: the cut's name is written into the cursor row by the transaction that inserts its rows, so both are there
or neither is: `find` asks for the name. When a commit's answer was lost, or the process ended before it was settled, the same cut comes
again: COPY meets the key (tenant, index), its savepoint is undone, and rows are inserted where they are missing. Those that are not:

1. the row under (tenant, index) has the same event: it arrived before.
2. it has another event: somebody else writes here. Nothing is written, the destination parks and says so.
3. no such row, but the id is taken under another index: the log accepted that id again, past its dedupe window. The event is
   dead-lettered as `id_taken`; a table without that unique key takes it.

A transaction of a process that was killed is rolled back by the server, and until then holds the cursor row: nobody overtakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import psycopg2
from msgspec import Meta, field
from psycopg2 import sql
from psycopg2.extras import execute_values

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import make_encoder
from tallystick.destinations.postgresql_rows import compare_rows, list_rows
from tallystick.destinations.postgresql_table import RECENT_MAX, TableUnfitError, identifier, make_row, prepare_tables
from tallystick.destinations.row import tab_separated
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Compared, Cut
from tallystick.sources.postgresql_login import login_of
from tallystick.sources.remote import RemoteTlsSettings, check_tls, require_safe, rooted_tls

T = TypeVar("T")

_TABLE = r"\A[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?\Z"
_SPLITTING = ("22", "23", "54", "P0")
"""Classes of SQLSTATE: data exception, constraint, limit of the server, raised by a trigger."""
_PARKING = ("0A", "28", "3D", "3F", "42")
"""Unsupported feature, login, no such database, no such schema, syntax or access (no table, no column, no privilege)."""
_PARKING_WORDS = re.compile(
    r"authentication failed|no pg_hba\.conf entry|does not exist|not permitted to log in|certificate verify failed"
    r"|does not support SSL|no password supplied|permission denied"
)
"""A refused connection has no SQLSTATE for its client, only words. In another language it is a retry, which loses nothing either."""


class PostgresqlSettings(DestinationSettings, frozen=True, kw_only=True):
    """`type = "postgresql"`"""

    database: Annotated[str, Meta(description="Database.", min_length=1)]
    user: Annotated[str, Meta(description="User.", min_length=1)]
    password: Annotated[str | None, Meta(description="Password of `user`.")] = None
    host: Annotated[str, Meta(description="Host, address, or directory of the Unix socket.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port.", ge=1, le=65_535)] = 5432
    table: Annotated[str, Meta(description="Table of the events, `table` or `schema.table`.", pattern=_TABLE)] = "tallystick_events"
    cursor_table: Annotated[str, Meta(description="Table of the cursors.", pattern=_TABLE)] = "tallystick_cursor"
    create: Annotated[bool, Meta(description="Make the tables when they are missing.")] = True
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    timeout: Annotated[Duration, Meta(description="Longest time for one statement, and for a silent connection.")] = field(
        default_factory=lambda: Duration("30s")
    )

    def rooted(self, base_dir: Path) -> PostgresqlSettings:
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir))

    def check(self) -> None:
        require_safe(self.host, is_encrypted=self.tls is not None, insecure=self.insecure, place="host")
        check_tls(self.tls, Path())
        if self.timeout.seconds < 0.1:
            raise ConfigError("no statement ends in so short a time", hint='As in timeout = "30s"')


class _OtherEventError(Exception):
    """A row holds another event than the cut has under that index."""


class PostgresqlDestination:
    """One connection, used by one thread; cuts one after the other."""

    settings: ClassVar[type[DestinationSettings]] = PostgresqlSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=10_000, max_bytes=16 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = {
        "committed": "delivered",
        "rows that are there already, the same events": "delivered: an earlier attempt took effect; what is missing is inserted",
        "a row under (tenant, index) with another event": "park, with an alarm; nothing is written",
        "an event's id is in the table under another index": "that event is dead-lettered as id_taken, the others are delivered",
        "22, 23, 54, P0 (data, constraint, limit, trigger)": "split the cut in halves; a single event is dead-lettered",
        "0A, 28, 3D, 3F, 42, login or certificate refused, table unfit": "park",
        "40, 53, 55, 57, 25006 and all others, no connection, connection lost": "retry",
    }

    def __init__(self, name: str, settings: PostgresqlSettings) -> None:
        self.name = name
        self.encoder = make_encoder("json")
        self._settings = settings
        milliseconds = int(settings.timeout.seconds * 1000)
        alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": milliseconds}
        self._login = {**login_of(settings, name, Path()), **alive, "connect_timeout": max(2, int(settings.timeout.seconds))}
        self._table, self._cursors = identifier(settings.table), identifier(settings.cursor_table)
        self._connection: Any = None
        self._columns: list[str] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"postgresql-{name}")

    def place(self, cut: Cut) -> str:
        return f"postgresql:{self._settings.database}/{self._settings.table}#{cut.origin}#{cut.tenant}#{cut.name}"

    async def find(self, place: str, sha256: str) -> bool | None:
        """Raises DestinationUnavailableError when the database cannot be asked."""
        if place.count("#") < 3:
            return None
        _, origin, tenant, name = place.rsplit("#", 3)
        return await self._in_thread(lambda: self._find(origin, tenant, name))

    async def send(self, cut: Cut) -> Answer:
        return await self._in_thread(lambda: self._answering(lambda: self._send(cut)))

    async def probe(self) -> Answer:
        return await self._in_thread(lambda: self._answering(self._probe))

    async def close(self) -> None:
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _answering(self, work: Callable[[], Answer]) -> Answer:
        """An error ends the connection, and with it the transaction; what was committed by then is found by the next attempt."""
        try:
            return work()
        except (psycopg2.Error, TableUnfitError, _OtherEventError) as error:
            self._drop()
            return answer_error(error)

    def _send(self, cut: Cut) -> Answer:
        connection = self._connect()
        refused: dict[int, str] = {}
        with connection.cursor() as cursor:
            self._lock(cursor, cut)
            rows = [make_row(index, line, self._columns) for index, line in zip(cut.indexes, cut.lines, strict=True)]
            if not self._copy(cursor, rows):
                refused = self._insert(cursor, cut, rows)
            self._move(cursor, cut)
        self._commit()
        return Answer(AnswerKind.DELIVERED, reason="id_taken" if refused else "", where=self.place(cut), refused=refused)

    def _commit(self) -> None:
        """A crash in here: both rows and cursor are there, or neither is; the cut is open, and looks."""
        self._connection.commit()

    def _connect(self) -> Any:
        if self._connection is not None:
            return self._connection
        connection = psycopg2.connect(**self._login)
        try:
            with connection.cursor() as cursor:
                limit = str(int(self._settings.timeout.seconds * 1000))
                cursor.execute(
                    "SELECT set_config(name, %s, false) FROM unnest(%s) name", (limit, ["statement_timeout", "lock_timeout"])
                )
                # A commit that is answered before it is on disk would be no delivery.
                cursor.execute(
                    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
                )
                settings = self._settings
                self._columns = prepare_tables(cursor, settings.table, settings.cursor_table, create=settings.create)
            connection.commit()
        except psycopg2.IntegrityError as error:  # two processes made the tables at once: the next attempt finds them
            connection.close()
            raise psycopg2.OperationalError(str(error)) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def _lock(self, cursor: Any, cut: Cut) -> None:
        """Nobody else inserts rows of this tenant and destination until this transaction ends."""
        key = (cut.origin, self.name, cut.tenant)
        ask = sql.SQL("SELECT FROM {} WHERE (log, destination, tenant) = (%s, %s, %s) FOR UPDATE").format(self._cursors)
        cursor.execute(ask, key)
        if not cursor.rowcount:
            make = "INSERT INTO {} (log, destination, tenant) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            cursor.execute(sql.SQL(make).format(self._cursors), key)
            cursor.execute(ask, key)

    async def compare(self, cut: Cut) -> Compared:
        """Every column that is filled, by the server. Raises DestinationUnavailableError."""
        return await self._in_thread(lambda: self._reading(lambda cursor: compare_rows(cursor, self._table, self._columns, cut)))

    async def restore(self, cut: Cut, indexes: Sequence[int]) -> Answer:
        return await self._in_thread(lambda: self._answering(lambda: self._restore(cut, set(indexes))))

    async def list_indexes(self, tenant: str, after: int, limit: int) -> list[int]:
        """Raises DestinationUnavailableError."""
        return await self._in_thread(lambda: self._reading(lambda cursor: list_rows(cursor, self._table, tenant, after, limit)))

    def _reading(self, read: Callable[[Any], T]) -> T:
        """In a transaction that is undone."""
        try:
            connection = self._connect()
            with connection.cursor() as cursor:
                found = read(cursor)
            connection.rollback()
        except (psycopg2.Error, TableUnfitError) as error:
            self._drop()
            raise DestinationUnavailableError(_text(error)) from error
        return found

    def _restore(self, cut: Cut, indexes: Collection[int]) -> Answer:
        """A crash in here: the rows are there, or none of them is, and the next comparison says which."""
        connection = self._connect()
        pairs = [(index, line) for index, line in zip(cut.indexes, cut.lines, strict=True) if index in indexes]
        part = replace(cut, indexes=[index for index, _ in pairs], lines=[line for _, line in pairs])
        with connection.cursor() as cursor:
            self._lock(cursor, cut)
            refused = self._insert(cursor, part, [make_row(index, line, self._columns) for index, line in pairs])
        self._commit()
        return Answer(AnswerKind.DELIVERED, reason=next(iter(refused.values()), ""), where=self.place(cut), refused=refused)

    def _copy(self, cursor: Any, rows: Sequence[Sequence[str | None]]) -> bool:
        """False when one of the rows, or its id, is there already; then none was inserted."""
        words = sql.SQL("COPY {} ({}) FROM STDIN").format(self._table, self._names())
        cursor.execute("SAVEPOINT before_rows")
        try:
            cursor.copy_expert(words, io.BytesIO(tab_separated(rows)))
        except psycopg2.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT before_rows")
            return False
        return True

    def _insert(self, cursor: Any, cut: Cut, rows: Sequence[Sequence[str | None]]) -> dict[int, str]:
        """Insert the rows that are missing; what is refused for its id, by position. Raises _OtherEventError."""
        words = sql.SQL('INSERT INTO {} ({}) VALUES %s ON CONFLICT DO NOTHING RETURNING "index"').format(self._table, self._names())
        inserted = {index for (index,) in execute_values(cursor, words.as_string(cursor), rows, page_size=500, fetch=True)}
        left = {index: at for at, index in enumerate(cut.indexes) if index not in inserted}
        known = [name for name in ("id", "line") if name in self._columns]
        ask = sql.SQL('SELECT "index", {} FROM {} WHERE tenant = %s AND "index" = ANY(%s)')
        cursor.execute(ask.format(sql.SQL(", ").join(map(sql.Identifier, known)), self._table), (cut.tenant, list(left)))
        there = {index: values for index, *values in cursor.fetchall()}
        for index, values in there.items():
            row = rows[left[index]]
            if values != [row[self._columns.index(name)] for name in known]:
                raise _OtherEventError(f"the row of {cut.tenant} under index {index} holds another event; nothing was written")
        return {at: "the id is in the table under another index" for index, at in left.items() if index not in there}

    def _move(self, cursor: Any, cut: Cut) -> None:
        words = (
            "UPDATE {} SET next = greatest(next, %s), recent = (%s || recent)[1:%s], checkpoint = %s, updated_at = now()"
            " WHERE (log, destination, tenant) = (%s, %s, %s)"
        )
        values = (cut.last_index + 1, [cut.name], RECENT_MAX, cut.checkpoint, cut.origin, self.name, cut.tenant)
        cursor.execute(sql.SQL(words).format(self._cursors), values)

    def _names(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self._columns))

    def _find(self, origin: str, tenant: str, name: str) -> bool:
        def ask(cursor: Any) -> bool:
            words = "SELECT %s = ANY(recent) FROM {} WHERE (log, destination, tenant) = (%s, %s, %s)"
            cursor.execute(sql.SQL(words).format(self._cursors), (name, origin, self.name, tenant))
            found = cursor.fetchone()
            return found is not None and bool(found[0])

        return self._reading(ask)

    def _probe(self) -> Answer:
        """Everything that a cut does, with no rows, and undone."""
        self._drop()
        connection = self._connect()
        with connection.cursor() as cursor:
            nothing = sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {0} WHERE false").format(self._table, self._names())
            cursor.execute(nothing)
            cursor.execute(sql.SQL("UPDATE {} SET next = next WHERE false").format(self._cursors))
        connection.rollback()
        return Answer(AnswerKind.DELIVERED, where=f"postgresql:{self._settings.database}/{self._settings.table}")


def answer_error(error: Exception) -> Answer:
    """Sort an error by the table above."""
    text = _text(error)
    if isinstance(error, TableUnfitError | _OtherEventError):
        return Answer(AnswerKind.PARK, reason=text)
    code = getattr(error, "pgcode", None) or ""
    if code.startswith(_SPLITTING):
        return Answer(AnswerKind.SPLIT, reason="refused", reply=f"{code}: {text}")
    if code.startswith(_PARKING) or (not code and _PARKING_WORDS.search(text)):
        return Answer(AnswerKind.PARK, reason=f"{code or 'login'}: {text}")
    return Answer(AnswerKind.RETRY, reason=f"{code or 'connection'}: {text}")


def _text(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:1000]
