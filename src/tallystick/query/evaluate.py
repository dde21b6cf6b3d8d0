"""The streaming form of a query: one decoded event in, yes or no out.

This form defines what a query means; the SQL form (`sql`) must agree with it on every event. It is compiled once into
nested functions, so that an event costs a few dictionary look-ups a term. A `Matcher` can also judge a line that nobody
has decoded yet: texts that every match must contain are looked for in the bytes first, which spares most lines a decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import re2
from msgspec.structs import asdict

from tallystick.query.fields import DEFAULTS, Leaf, Path, shape_of
from tallystick.query.grammar import BYTES_MAX, parse
from tallystick.query.nodes import And, Equal, Field, Node, Not, Or, Present, Text, Wildcard, leaves
from tallystick.query.values import Predicate, literal_run, predicate, to_number, to_regex

Check: TypeAlias = Callable[[dict[str, Any]], bool]

SEPARATOR = "\0"  # between string values; no event and no query contains it
NOT_SEARCHED = frozenset({"ingest", "sealed"})  # random or encrypted bytes: a hit in them would mean nothing

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


class Matcher:
    """A compiled query. Call it with a decoded event, or give `matches_line` or `matching` canonical lines."""

    __slots__ = ("_check", "_decode_many", "_decode_one", "_needles", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._check = _compile(node)
        self._needles = tuple(needle for needle in (_needle(item) for item in _required(node)) if needle is not None)
        members = _members(node)
        self._decode_one: Callable[[bytes], Any] = msgspec.json.Decoder(members).decode
        self._decode_many: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[members]).decode  # type: ignore[valid-type]

    def __call__(self, event: dict[str, Any]) -> bool:
        return self._check(event)

    def matches_line(self, line: bytes) -> bool:
        """True when the event in this canonical line matches; a line that is no JSON object matches nothing."""
        for needle in self._needles:
            if needle not in line:
                return False
        try:
            event = self._decode_one(line)
        except _UNREADABLE:
            return False
        return self._check(event if isinstance(event, dict) else asdict(event))

    def matching(self, lines: Sequence[bytes]) -> list[int]:
        """Positions of the lines that match. Decoding them together, and only what the query names, halves the cost."""
        places = [place for place, line in enumerate(lines) if all(needle in line for needle in self._needles)]
        try:
            events = self._decode_many(b"[" + b",".join([lines[place] for place in places]) + b"]")
        except _UNREADABLE:
            events = []
        if len(events) != len(places):
            return [place for place in places if self.matches_line(lines[place])]
        check = self._check
        if events and not isinstance(events[0], dict):
            events = map(asdict, events)  # type: ignore[assignment]
        return [place for place, event in zip(places, events, strict=True) if check(event)]


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
            value = event.get(name)
            if value is None:
                value = default
            return value is not None and (any(map(holds, value)) if isinstance(value, list) else holds(value))

        return check_member
    steps = _steps(path)

    def check_path(event: dict[str, Any]) -> bool:
        found: list[Any] = []
        _collect(event, steps, 0, found)
        return any(map(holds, found))

    return check_path


def values_at(path: Path) -> Callable[[dict[str, Any]], list[Any]]:
    """A reader of every value at a path that `fields.resolve_path` gave, through lists; a member with a default has one always."""
    steps, default = _steps(path), DEFAULTS.get(path)

    def read(event: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        _collect(event, steps, 0, found)
        return found if found or default is None else [default]

    return read


Steps: TypeAlias = list[list[tuple[str, int]]]


def _steps(path: Path) -> Steps:
    """For each depth the keys to try, with the depth that each leads to: a key with dots takes up several parts."""
    steps: Steps = [[(path[0], 1)]]
    for depth in range(1, len(path)):
        steps.append([(".".join(path[depth:end]), end) for end in range(depth + 1, len(path) + 1)])
    return steps


def _collect(value: Any, steps: Steps, depth: int, found: list[Any]) -> None:
    """Every value at the end of the steps, through lists; null counts as absent."""
    if isinstance(value, list):
        for item in value:
            _collect(item, steps, depth, found)
    elif depth == len(steps):
        if value is not None:
            found.append(value)
    elif isinstance(value, dict):
        for key, following in steps[depth]:
            inner = value.get(key)
            if inner is not None:
                _collect(inner, steps, following, found)


def _members(node: Node) -> Any:
    """What of a line has to be decoded: a struct of the members that the query names, or everything for free text."""
    names: set[str] = set()
    for leaf in leaves(node):
        if isinstance(leaf, Text):
            return dict[str, Any]
        names.add(leaf.path[0])
    return msgspec.defstruct("Members", [(name, Any, None) for name in sorted(names)], gc=False)


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
