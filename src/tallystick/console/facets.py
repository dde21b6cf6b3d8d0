"""Facets as the page shows them: counts, and links that include or exclude a value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tallystick.console.state import ViewState
from tallystick.console.text import shorten
from tallystick.query.request import Facets

FACETS = ("outcome", "actor", "action", "target.type", "source.name", "ip")
_NAMES = {"target.type": "target type", "source.name": "source", "ip": "address"}
_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True)
class FacetValue:
    """``name`` is what people call an actor, where the events of the page say so."""

    value: str
    shown: str
    name: str
    count: str
    is_on: bool
    include: str
    exclude: str


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    facet_values: list[FacetValue]


def view_facets(facets: Facets, state: ViewState, actor_names: Mapping[str, str]) -> list[Facet]:
    """Those that have values. ``actor_names`` by the actor's id."""
    return [
        Facet(
            _NAMES.get(field, field),
            [
                FacetValue(
                    value=value,
                    shown=shorten(value, _SHOWN_MAX),
                    name=shorten(actor_names.get(value, ""), _SHOWN_MAX) if field == "actor" else "",
                    count=short_count(count),
                    is_on=state.has_term(field, value),
                    include=state.including(field, value),
                    exclude=state.excluding(field, value),
                )
                for value, count in rows
            ],
        )
        for field, rows in facets.values.items()
        if rows
    ]


def actor_names(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Name by id of the actors of ``events`` (newest first) that have one of their own; the newest counts."""
    names: dict[str, str] = {}
    for event in events:
        actor = event["actor"]
        if actor.get("name") and actor["name"] != actor["id"]:
            names.setdefault(actor["id"], actor["name"])
    return names


def short_count(count: int) -> str:
    """``11204`` as ``11.2k``: three digits are enough beside a list."""
    if count < 1_000:
        return str(count)
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            number = count / size
            return f"{number:.1f}{unit}" if number < 100 else f"{number:.0f}{unit}"
    return str(count)
