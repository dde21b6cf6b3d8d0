"""The query as a tree of our own, so that nothing but `grammar` knows which parser made it.

A query is a boolean combination of two kinds of leaves: `Field` asks one test of the values at one path of the event,
`Text` looks for a substring in all its string values. A leaf over a path with several values (lists) holds when any of
them passes; over a path with none it does not hold, so a missing field matches only under `Not`.

Depth and number of leaves are bounded by `grammar`, so every walk over a tree may recurse.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


class Gap(enum.Enum):
    """A wildcard inside a pattern: any run of characters, also none (``*``), or exactly one (``?``)."""

    MANY = "*"
    ONE = "?"


Pieces: TypeAlias = tuple["str | Gap", ...]


@dataclass(frozen=True, slots=True)
class Equal:
    """The value is this text: a string exactly, a number or boolean by value (``1``, ``1.0`` and ``1e0`` are equal)."""

    text: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The value is a string of this shape, from its first to its last character, case counting."""

    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Range:
    """The value lies between two bounds; None is open. ``kind`` says what is compared.

    ``number``: JSON numbers by value. ``time``: RFC 3339 instants. ``text``: strings by code point.
    """

    kind: str
    low: str | None
    high: str | None
    low_inclusive: bool
    high_inclusive: bool


@dataclass(frozen=True, slots=True)
class Cidr:
    """The value is an IP address inside this network (RFC 4632, RFC 4291); ``::ffff:a.b.c.d`` counts as IPv4."""

    network: str


@dataclass(frozen=True, slots=True)
class Present:
    """The path leads to a value other than null."""


Test: TypeAlias = Equal | Wildcard | Range | Cidr | Present


@dataclass(frozen=True, slots=True)
class Field:
    """Any value at ``path`` passes ``test``."""

    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class Text:
    """Any string value contains this shape, upper and lower case being equal."""

    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Not:
    item: Node


@dataclass(frozen=True, slots=True)
class And:
    """All items hold; without items: every event."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one item holds."""

    items: tuple[Node, ...]


Node: TypeAlias = Field | Text | Not | And | Or

EVERYTHING = And(())


def leaves(node: Node) -> Iterator[Field | Text]:
    """All leaves, left to right."""
    match node:
        case And(items) | Or(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case _:
            yield node
