"""Printing: tables and colours for a person at a terminal, JSON lines for a pipe or with ``--json``.

Text that came from events is stripped of control characters before it reaches a terminal (CWE-117).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line (the default when piped).")]
UrlOption = Annotated[str | None, typer.Option("--url", envvar="TALLYSTICK_URL", help="Server, as in http://127.0.0.1:8420")]
KeyOption = Annotated[str | None, typer.Option("--key", envvar="TALLYSTICK_KEY", help="API key.", show_envvar=True)]

console = Console()
errors = Console(stderr=True)
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def wants_json(is_asked: bool) -> bool:
    """True with ``--json`` or when the output is no terminal."""
    return is_asked or not sys.stdout.isatty()


def safe(text: object) -> str:
    """Text fit for a terminal: control, direction and zero-width characters become visible escapes."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def print_json(document: Any) -> None:
    """One JSON document on one line."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A plain table; numbers to the right."""
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell), justify="right" if isinstance(cell, int) else "left") for cell in row))
    console.print(table)


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, is_json: bool, empty: str) -> None:
    """A list of documents, as JSON lines or as a table of ``columns``."""
    if wants_json(is_json):
        for row in rows:
            print_json(row)
        return
    if not rows:
        console.print(empty)
        return
    print_table(columns, ([_cell(row.get(column, "")) for column in columns] for row in rows))


def _cell(value: Any) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else value


def fail(message: str) -> None:
    """One red line on stderr."""
    errors.print(Text("error: ", style="bold red") + Text(safe(message)))
