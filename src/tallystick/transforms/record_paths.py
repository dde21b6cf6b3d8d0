"""Places in a record, what is known of a record's members, and the shortest way to the text at a place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Path = tuple[str, ...]
"""Names of members; `[]` stands for the elements of a list, a `Pick` for one of them."""
_SEGMENT = re.compile(r'(?:"([^"]+)"|([^."\[]+))(?:(\[\])|\[([^=\]]+)=([^\]]*)\])?')


class Pick(str):
    """A step of a path: the first element of a list whose member ``name`` has the text ``wanted``."""

    __slots__ = ("name", "wanted")

    name: str
    wanted: str

    def __new__(cls, name: str, wanted: str) -> Pick:
        """The step, whose own text is how it is written."""
        made = super().__new__(cls, f"[{name}={wanted}]")
        made.name, made.wanted = name, wanted
        return made

    def of(self, elements: list[Any]) -> Any:
        """That element, or None."""
        return next((one for one in elements if type(one) is dict and one.get(self.name) == self.wanted), None)


class Roots:
    """What is known of the members of the records: which they have on top (None: any), which of these hold other values, and which
    texts; and which members the objects among them have (``inner``, as (top-level name, name); None: any).

    ``asked`` are the members that were asked for, ``asked_inner`` those within them.
    """

    def __init__(
        self,
        known: frozenset[str] | None = None,
        nested: frozenset[str] = frozenset(),
        texts: frozenset[str] = frozenset(),
        inner: frozenset[tuple[str, str]] | None = None,
    ) -> None:
        self.is_known = known is not None
        self._known = known
        self._nested = nested
        self._texts = texts
        self._inner = inner
        self.asked: set[str] = set()
        self.asked_inner: set[tuple[str, str]] = set()

    def may_have(self, path: Path) -> bool:
        """Whether there may be something at ``path``."""
        root = path[0]
        self.asked.add(root)
        is_inner = _is_inner(path)
        if is_inner:
            self.asked_inner.add((root, path[1]))
        if self._known is None:
            return True
        if len(path) < 2:
            return root in self._known
        return root in self._nested and (not is_inner or self._inner is None or (root, path[1]) in self._inner)

    def has_inner(self, path: Path) -> bool:
        """Whether the records surely have the first two members of ``path``, the one in the other."""
        return self._inner is not None and _is_inner(path) and (path[0], path[1]) in self._inner

    def is_text(self, name: str) -> bool:
        """Whether that member is a text in all the records."""
        return name in self._texts


def _is_inner(path: Path) -> bool:
    return len(path) > 1 and type(path[1]) is str and path[1] != "[]"


def split_path(path: str) -> Path:
    """``a.b[]."c.d"`` as ``("a", "b", "[]", "c.d")``."""
    parts: list[str] = []
    for quoted, plain, brackets, name, wanted in _SEGMENT.findall(path):
        parts.append(quoted or plain)
        if brackets:
            parts.append("[]")
        elif name:
            parts.append(Pick(name, wanted))
    return tuple(parts)


def value_at(value: Any, path: Path) -> Any:
    """What lies at ``path``, or None. ``[]`` takes the first element in which the rest of the path gives something."""
    for place, name in enumerate(path):
        if type(value) is dict:
            value = value.get(name)
        elif name == "[]" and type(value) is list:
            found = (value_at(element, path[place + 1 :]) for element in value)
            return next((one for one in found if one not in (None, "")), None)
        elif type(name) is Pick and type(value) is list:
            value = name.of(value)
        else:
            return None
    return value


def as_text(value: Any) -> str | None:
    """Text, or the JSON text of a number or boolean; None for everything else and for empty text."""
    kind = type(value)
    if kind is str:
        return value or None
    if kind is bool:
        return "true" if value else "false"
    return str(value) if kind is int or kind is float else None


def text_at(record: Any, path: Path) -> str | None:
    """The text at ``path``, or None."""
    if len(path) == 1 and type(record) is dict:
        return as_text(record.get(path[0]))
    return as_text(value_at(record, path))


def reader(path: Path, roots: Roots) -> Callable[[Any], str | None]:
    """`text_at` for one path, in the shortest form for what is known of the records."""
    if roots.has_inner(path):
        return _inner_reader(path)
    if not roots.is_known or len(path) > 1:
        return lambda record: text_at(record, path)
    name = path[0]

    def read(record: Any) -> str | None:
        value = record.get(name)
        return (value or None) if type(value) is str else as_text(value)

    return read


def _inner_reader(path: Path) -> Callable[[Any], str | None]:
    """The same where the first two members are there for sure."""
    outer, inner, rest = path[0], path[1], path[2:]
    if rest:
        return lambda record: as_text(value_at(record[outer][inner], rest))

    def read(record: Any) -> str | None:
        value = record[outer][inner]
        return (value or None) if type(value) is str else as_text(value)

    return read
