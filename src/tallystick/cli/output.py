"""Printing: tables and colours for a person at a terminal, JSON lines for a pipe or with ``--json``.

Text that came from events is stripped of control characters before it reaches a terminal (CWE-117).
"""

from __future__ import annotations

import sys
import unicodedata
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

# No markup and no emoji names: what is printed may come from events, where brackets and colons are brackets and colons.
console = Console(markup=False, highlight=False, emoji=False)
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)


def wants_json(is_asked: bool) -> bool:
    """True with ``--json`` or when the output is no terminal."""
    return is_asked or not sys.stdout.isatty()


def safe(text: object) -> str:
    """Text fit for one line of a terminal: controls, line breaks, direction marks and invisible characters become escapes."""
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_visible, plain))


def _visible(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
    errors.print(Text("error: ", style="bold red") + Text(safe(message)), soft_wrap=True)
