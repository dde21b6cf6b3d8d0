"""Rows: what was measured, what stands beside it in the same run, and whether DESIGN section 13's bounds are reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound for a row's value: at least or at most."""

    value: float
    text: str
    is_least: bool = True

    def holds(self, value: float) -> bool:
        return value >= self.value if self.is_least else value <= self.value


def least(value: float, text: str = "") -> Bound:
    """``value`` or more."""
    return Bound(value, text or f"≥ {value:,.0f}")


def most(value: float, text: str = "") -> Bound:
    """``value`` or less."""
    return Bound(value, text or f"≤ {value:,g}", is_least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """``key`` names the row for good; ``value`` is what the bounds judge, None where nothing could be measured."""

    key: str
    what: str
    measured: str
    value: float | None = None
    beside: str = ""
    must: Bound | None = None
    aim: Bound | None = None
    conditions: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> str:
        """What the bounds say of the value."""
        if self.must is None:
            return ""
        if self.value is None:
            return "not measured"
        if not self.must.holds(self.value):
            return "NOT MET"
        return "aim met" if self.aim is not None and self.aim.holds(self.value) else "met"

    def as_dict(self) -> dict[str, Any]:
        """For the file of results."""
        return {**asdict(self), "reached": self.reached}


def print_rows(title: str, rows: list[Row]) -> None:
    """A table fit for a terminal; conditions stand below what they are about."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for column, width in (("what", 46), ("measured", 40), ("beside it, same run", 48), ("must", 14), ("aim", 14), ("reached", 8)):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        what = f"{row.what}\n[dim]{row.conditions}[/dim]" if row.conditions else row.what
        must, aim = (bound.text if bound else "" for bound in (row.must, row.aim))
        table.add_row(what, row.measured, row.beside, must, aim, row.reached)
    Console(width=182).print(table)
