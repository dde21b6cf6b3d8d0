"""Asking the SQL form of a query over lines, as the engine does over chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pyarrow as pa

from tallystick.archive.columns import columns_from_lines
from tallystick.query.database import TABLE, Database
from tallystick.query.nodes import Node
from tallystick.query.sql import to_where


def ask_sql(node: Node, lines: Sequence[bytes]) -> tuple[list[int], bool]:
    """Positions of the lines that the SQL form keeps, and whether it says that these are exactly the matches."""
    where = to_where(node)
    table = columns_from_lines(lines, range(len(lines)), range(len(lines)))
    table = where.prepare(table.select(["index", *sorted(where.columns - {"index"})]))
    sql = f'SELECT "index" FROM {TABLE} WHERE {where.text} ORDER BY ALL'
    rows: pa.Table = _database().ask(table, sql, where.parameters)
    return rows["index"].to_pylist(), where.is_exact


@cache
def _database() -> Database:
    return Database(2**27)
