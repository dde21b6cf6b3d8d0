"""One row of the table, and how the table is printed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured, the machine's or a peer's figure from the same run beside it, and DESIGN section 13's "must"."""

    what: str
    measured: str
    beside: str
    must: str
    conditions: str


def print_rows(title: str, rows: list[Row]) -> None:
    """A table fit for a terminal and for pasting."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("what", "measured", "beside it, same run", "must", "conditions"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.what, row.measured, row.beside, row.must, row.conditions)
    Console(width=170).print(table)
