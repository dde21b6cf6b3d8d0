"""The rows of a destination `postgresql`, read back and compared with a cut by the server itself.

What should be there goes into a table of this transaction alone; each column is then compared as text, which every type has, and
PostgreSQL writes equal values as equal texts. So only differences travel back.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from tallystick.destinations.postgresql_table import make_row
from tallystick.destinations.row import tab_separated
from tallystick.plugin import Compared, Cut

_EXPECTED = sql.Identifier("tallystick_expected")


def compare_rows(cursor: Any, table: sql.Identifier, columns: Sequence[str], cut: Cut) -> Compared:
    """The events of ``cut`` without a row, and those whose row differs in a filled column. Raises psycopg2.Error."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(_EXPECTED, names, table))
    rows = [make_row(index, line, columns) for index, line in zip(cut.indexes, cut.lines, strict=True)]
    cursor.copy_expert(sql.SQL("COPY {} ({}) FROM STDIN").format(_EXPECTED, names), io.BytesIO(tab_separated(rows)))
    differs = sql.SQL(" OR ").join(
        sql.SQL("t.{0}::text IS DISTINCT FROM e.{0}::text").format(sql.Identifier(name)) for name in columns
    )
    words = 'SELECT e."index", t.tenant IS NULL FROM {} e LEFT JOIN {} t ON t.tenant = e.tenant AND t."index" = e."index" WHERE {} ORDER BY 1'
    cursor.execute(sql.SQL(words).format(_EXPECTED, table, differs))
    found = cursor.fetchall()
    return Compared([index for index, is_missing in found if is_missing], [index for index, is_missing in found if not is_missing])


def list_rows(cursor: Any, table: sql.Identifier, tenant: str, after: int, limit: int) -> list[int]:
    """The next indexes of a tenant's rows. Raises psycopg2.Error."""
    words = 'SELECT "index" FROM {} WHERE tenant = %s AND "index" > %s ORDER BY "index" LIMIT %s'
    cursor.execute(sql.SQL(words).format(table), (tenant, after, limit))
    return [int(index) for (index,) in cursor.fetchall()]
