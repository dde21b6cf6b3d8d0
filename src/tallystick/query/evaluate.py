"""The streaming form of a query: one decoded event in, yes or no out.

This form defines what a query means; the SQL form (`sql`) must agree with it on every event. It is compiled once into
nested functions, so that an event costs a few dictionary look-ups a term. A `Matcher` can also judge a line that nobody
has decoded yet: texts that every match must contain are looked for in the bytes first, which spares most lines a decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
import re2

from tallystick.query.fields import DEFAULTS, Leaf, Path, shape_of
from tallystick.query.grammar import BYTES_MAX, parse
from tallystick.query.nodes import And, Equal, Field, Node, Not, Or, Present, Text, Wildcard
from tallystick.query.values import Predicate, literal_run, predicate, to_number, to_regex

Check: TypeAlias = Callable[[dict[str, Any]], bool]

SEPARATOR = "\0"  # between string values; no event and no query contains it
NOT_SEARCHED = frozenset({"ingest", "sealed"})  # random or encrypted bytes: a hit in them would mean nothing

_decode = msgspec.json.Decoder().decode


class Matcher:
    """A compiled query. Call it with a decoded event, or give `matches_line` the canonical line."""

    __slots__ = ("_check", "_needles", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._check = _compile(node)
        self._needles = tuple(needle for needle in (_needle(item) for item in _required(node)) if needle is not None)

    def __call__(self, event: dict[str, Any]) -> bool:
        return self._check(event)

    def matches_line(self, line: bytes) -> bool:
        """True when the event in this canonical line matches; a line that is no JSON object matches nothing."""
        for needle in self._needles:
            if needle not in line:
                return False
        try:
            event = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return isinstance(event, dict) and self._check(event)


def compile_query(text: str, *, bytes_max: int = BYTES_MAX) -> Matcher:
    """The query as a function of a decoded line. Raises QueryError."""
    return Matcher(parse(text, bytes_max=bytes_max))


def strings_of(event: dict[str, Any]) -> str:
    """All that free text looks at: every string value, outside `NOT_SEARCHED`, joined by `SEPARATOR`."""
    found: list[str] = []
    waiting: list[Any] = [value for key, value in event.items() if key not in NOT_SEARCHED]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return SEPARATOR.join(found)


def _compile(node: Node) -> Check:
    match node:
        case And(items):
            checks = [_compile(item) for item in items]
            return lambda event: all(check(event) for check in checks)
        case Or(items):
            checks = [_compile(item) for item in items]
            return lambda event: any(check(event) for check in checks)
        case Not(item):
            check = _compile(item)
            return lambda event: not check(event)
        case Text(pieces):
            search = re2.compile(f"(?is){to_regex(pieces, one=_NO_BREAK, many=_NO_BREAK + '*')}").search
            return lambda event: search(strings_of(event)) is not None
        case Field(path, test):
            return _field(path, predicate(test))


_NO_BREAK = r"[^\x00]"


def _field(path: Path, holds: Predicate) -> Check:
    if len(path) == 1 and shape_of(path) is not Leaf.FREE:
        name, default = path[0], DEFAULTS.get(path)

        def check_member(event: dict[str, Any]) -> bool:
            value = event.get(name, default)
            return value is not None and (any(map(holds, value)) if isinstance(value, list) else holds(value))

        return check_member
    return lambda event: any(map(holds, _values(event, path, 0)))


def _values(value: Any, path: Path, depth: int) -> Iterator[Any]:
    """Every value at a path, through lists, null left out. Keys that contain dots take up several parts of the path."""
    if isinstance(value, list):
        for item in value:
            yield from _values(item, path, depth)
    elif depth == len(path):
        if value is not None:
            yield value
    elif isinstance(value, dict):
        for end in range(depth + 1, len(path) + 1):
            key = path[depth] if end == depth + 1 else ".".join(path[depth:end])
            if key in value:
                yield from _values(value[key], path, end)


def _required(node: Node) -> Iterator[Field]:
    """The field leaves without which nothing matches."""
    match node:
        case And(items):
            for item in items:
                yield from _required(item)
        case Field():
            yield node


def _needle(leaf: Field) -> bytes | None:
    """Bytes that the line of every match contains, or None.

    Only for values that our own encoder wrote: it has one spelling for each text. A sender's JSON may spell it otherwise.
    """
    if shape_of(leaf.path) is not Leaf.SCALAR or leaf.path in DEFAULTS:
        return None
    match leaf.test:
        case Equal(text) if to_number(text) is None and text not in {"true", "false"}:
            return msgspec.json.encode(text)
        case Wildcard(pieces):
            return literal_run(pieces).encode() or None
        case Present():
            return f'"{leaf.path[-1]}":'.encode()
    return None
