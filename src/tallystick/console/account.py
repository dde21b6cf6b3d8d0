"""The account of a destination as an equation: accepted = delivered + filtered by name + dead-lettered by reason + pending.

The two sides are counted apart: what was sealed, and what became of it. The page shows whether they are equal; it never makes them so. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallystick.console.text import shorten

_REASONS_SHOWN = 5
_REASON_MAX = 80


@dataclass(frozen=True, slots=True)
class Ledger:
    """``filters`` and ``reasons`` say by what, in words; ``trouble`` why it does not balance, empty when it does."""

    accepted: int
    delivered: int
    filtered: int
    filters: str
    dead_lettered: int
    reasons: str
    pending: int
    trouble: str


def build_ledger(row: Mapping[str, Any]) -> Ledger:
    """From a destination's row of the status."""
    return Ledger(
        accepted=row["accepted"],
        delivered=row["delivered"],
        filtered=sum(row["filtered"].values()),
        filters=_by_name(row["filtered"]),
        dead_lettered=row["dead_lettered"],
        reasons=_by_name(row["dead_letter_reasons"]),
        pending=row["pending"],
        trouble=find_trouble(row),
    )


def find_trouble(row: Mapping[str, Any]) -> str:
    """Why the account does not balance, in words; empty when it does."""
    outcomes = row["delivered"] + sum(row["filtered"].values()) + row["dead_lettered"] + row["pending"]
    missing = row["accepted"] - outcomes
    if missing:
        return f"{abs(missing):,} {'unaccounted for' if missing > 0 else 'too many'}"
    if row["pending"] < 0:
        return f"{-row['pending']:,} more outcomes than events"
    if row["dead_letter_reasons"] and sum(row["dead_letter_reasons"].values()) != row["dead_lettered"]:
        return "the reasons of dead letters do not add up"
    return ""


def _by_name(counts: Mapping[str, int]) -> str:
    """The most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {shorten(name, _REASON_MAX)}" for name, count in ranked[:_REASONS_SHOWN]]
    rest = sum(count for _, count in ranked[_REASONS_SHOWN:])
    return ", ".join([*shown, f"{rest:,} for other reasons"] if rest else shown)
