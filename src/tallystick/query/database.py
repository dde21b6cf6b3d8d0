"""DuckDB as a calculator: in memory, with no way to files, network, extensions or the process's own objects.

Chunks reach it as Arrow tables that pyarrow has read and decrypted; nothing is ever spilled to disk, so nothing readable
comes to rest there. Sorting and grouping past the memory limit fail instead, and the engine answers with an error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from tallystick.errors import QueryError

TABLE = "events"

_OPTIONS = {
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
}
_THREADS = 2
_IDLE_MAX = 1


class Database:
    """One query's DuckDB. Not for several threads at once."""

    def __init__(self, memory_bytes: int) -> None:
        self._connection = duckdb.connect(
            ":memory:", config={**_OPTIONS, "memory_limit": f"{max(memory_bytes, 2**24)}B", "threads": str(_THREADS)}
        )
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def ask(self, table: pa.Table, sql: str, parameters: dict[str, Any]) -> pa.Table:
        """The answer to one SELECT over ``table``, which the SQL names `TABLE`."""
        self._connection.register(TABLE, table)
        try:
            return self._connection.sql(sql, params=parameters or None).to_arrow_table()
        except duckdb.OutOfMemoryException as error:
            raise QueryError(
                "the query needs more memory than one query may use", hint="Narrow it, or raise query.memory"
            ) from error
        finally:
            self._connection.unregister(TABLE)

    def close(self) -> None:
        self._connection.close()


class Databases:
    """Lends databases, and keeps a few for the next query: making one costs more than a small query."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._idle: list[Database] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[Database]:
        """A database for one query. After an error it is not used again."""
        with self._lock:
            database = self._idle.pop() if self._idle else None
        if database is None:
            database = Database(self._memory_bytes)
        try:
            yield database
        except BaseException:
            database.close()
            raise
        with self._lock:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(database)
                return
        database.close()

    def close(self) -> None:
        with self._lock:
            for database in self._idle:
                database.close()
            self._idle.clear()
