"""DuckDB has no way out: no files, no network, no extensions, no objects of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tallystick.errors import QueryError
from tallystick.query.database import Database

TABLE = pa.table({"n": pa.array(range(1000), pa.int64())})


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database(2**24)
    yield made
    made.close()


def test_it_counts(database: Database) -> None:
    """A SELECT with parameters over an Arrow table gives an Arrow table."""
    assert database.ask(TABLE, "SELECT count(*) AS c FROM events WHERE n < $p", {"p": 10}).to_pylist() == [{"c": 10}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "COPY events TO '{path}/out.csv'",
        "EXPORT DATABASE '{path}/out'",
        "ATTACH '{path}/other.db'",
        "INSTALL httpfs",
        "LOAD inet",
        "SET enable_external_access = true",
        "SET temp_directory = '{path}'",
        "SET memory_limit = '10GB'",
    ],
)
def test_every_way_out_is_shut(database: Database, tmp_path: Path, sql: str) -> None:
    """Statements that reach outside, or loosen the settings, fail and leave nothing behind."""
    with pytest.raises(duckdb.Error):
        database.ask(TABLE, sql.format(path=tmp_path), {})
    assert list(tmp_path.iterdir()) == []


def test_memory_is_bounded(database: Database) -> None:
    """A query past the memory limit ends with an error that says so; it is not spilled to disk."""
    with pytest.raises(QueryError, match="more memory"):
        database.ask(TABLE, "SELECT list(a.n ORDER BY a.n + b.n) AS l FROM events a, events b, events c WHERE c.n < 40", {})
