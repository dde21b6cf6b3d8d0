"""One logical replication slot: made, found, looked at, and read without blocking.

Two connections: one is the stream, one asks. Everything that may wait for the server is for a thread; `next` and `confirm` are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extras

from tallystick.errors import TallystickError

_STATUS_S = 10
_KEYS = """
SELECT i.indrelid::bigint, array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum))
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_publication_tables t ON t.schemaname = n.nspname AND t.tablename = c.relname
WHERE i.indisprimary AND t.pubname = %s GROUP BY i.indrelid
"""
_SLOT = """
SELECT active, wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""


class SlotError(TallystickError):
    """The database, the publication or the slot cannot be used as they are."""

    code = "slot_unavailable"


class SlotFacts(NamedTuple):
    """``lag``: bytes of write-ahead log that we have not confirmed; ``retained``: bytes that the server keeps for the slot."""

    is_active: bool
    wal_status: str
    lag: int
    retained: int


class Slot:
    """``login`` are libpq's connection parameters. Raises SlotError throughout."""

    def __init__(self, login: Mapping[str, Any], slot: str, publication: str) -> None:
        self._login, self._slot, self._publication = dict(login), slot, publication
        self._asking: Any = None
        self._stream: Any = None
        self._cursor: Any = None

    def open(self) -> str:
        """Connect; the database system's own identifier. Blocking."""
        try:
            self._asking = psycopg2.connect(**self._login)
            self._asking.autocommit = True
            self._stream = psycopg2.connect(**self._login, connection_factory=psycopg2.extras.LogicalReplicationConnection)
            self._cursor = self._stream.cursor()
            system = str(self._ask("SELECT system_identifier FROM pg_control_system()")[0][0])
            if int(self._ask("SHOW server_version_num")[0][0]) < 140000:
                raise SlotError("PostgreSQL 14 or newer is needed")
            if not self._ask("SELECT 1 FROM pg_publication WHERE pubname = %s", self._publication):
                raise SlotError(f"there is no publication {self._publication!r}", hint="CREATE PUBLICATION … FOR TABLE …")
        except psycopg2.Error as error:
            raise _slot_error(error) from error
        return system

    def facts(self) -> SlotFacts | None:
        """The slot as the server sees it; None when there is none. Blocking."""
        rows = self._ask(_SLOT, self._slot)
        if not rows:
            return None
        is_active, wal_status, lag, retained = rows[0]
        return SlotFacts(bool(is_active), str(wal_status or "unknown"), int(lag or 0), int(retained or 0))

    def create(self) -> None:
        """Make the slot: what is committed from now on is kept for it. Blocking."""
        try:
            self._cursor.create_replication_slot(self._slot, output_plugin="pgoutput")
        except psycopg2.Error as error:
            raise _slot_error(error) from error

    def keys(self) -> dict[int, list[str]]:
        """The primary keys of the published tables, by oid. Blocking."""
        return {int(oid): list(names) for oid, names in self._ask(_KEYS, self._publication)}

    def start(self) -> int:
        """Begin to stream from what was confirmed last; the file descriptor to wait on. Blocking."""
        options = {"proto_version": "1", "publication_names": _quoted(self._publication), "messages": "true"}
        try:
            self._cursor.start_replication(self._slot, options=options, decode=False, status_interval=_STATUS_S)
        except psycopg2.Error as error:
            raise _slot_error(error) from error
        return int(self._stream.fileno())

    def next(self) -> bytes | None:
        """The next message, None when none is there yet."""
        try:
            message = self._cursor.read_message()
        except psycopg2.Error as error:
            raise _slot_error(error) from error
        return None if message is None else bytes(message.payload)

    @property
    def seen(self) -> int:
        """How far the server has read its log for us, as of its last word."""
        return int(self._cursor.wal_end)

    def confirm(self, lsn: int) -> None:
        """Tell the server that everything before ``lsn`` is durable here (0: nothing new), and that we live."""
        try:
            self._cursor.send_feedback(write_lsn=lsn, flush_lsn=lsn, apply_lsn=lsn, force=True)
        except psycopg2.Error as error:
            raise _slot_error(error) from error

    def close(self) -> None:
        """Both connections; the slot stays."""
        for connection in (self._stream, self._asking):
            if connection is not None:
                connection.close()

    def _ask(self, query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        try:
            with self._asking.cursor() as cursor:
                cursor.execute(query, values)
                rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
                return rows
        except psycopg2.Error as error:
            raise _slot_error(error) from error


def _slot_error(error: psycopg2.Error) -> SlotError:
    return SlotError(" ".join(str(error).split()) or type(error).__name__)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
