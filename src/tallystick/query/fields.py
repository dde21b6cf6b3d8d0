"""Which paths a query may name: those of the event (DESIGN section 4), read off its model, and three short names.

Below ``metadata``, ``enrichment`` and the values in ``changes`` any path is allowed, and a dotted path also finds keys
that contain dots themselves: ``metadata.http.method`` matches ``{"http":{"method":…}}`` and ``{"http.method":…}``.
"""

from __future__ import annotations

import difflib
import enum
from typing import TypeAlias

import msgspec
from msgspec.inspect import ListType, RawType, StructType, UnionType, type_info

from tallystick.errors import QueryError
from tallystick.event import Event

Path: TypeAlias = tuple[str, ...]

SHORT_NAMES: dict[str, Path] = {"ip": ("context", "ip"), "actor": ("actor", "id"), "target": ("targets", "id")}
TIME_PATHS: frozenset[Path] = frozenset({("occurred_at",), ("received_at",)})
DEFAULTS: dict[Path, str] = {("outcome",): "unknown"}  # what an absent member means
IP_PATH: Path = ("context", "ip")


class Leaf(enum.Enum):
    """What a member holds if it is no object of ours."""

    SCALAR = "a single value, or a list of them, written by our own encoder"
    FREE = "any JSON, kept in the sender's own spelling"


Shape: TypeAlias = "Leaf | dict[str, Shape]"


def _shape(kind: msgspec.inspect.Type) -> Shape:
    match kind:
        case UnionType(types):
            return _shape(types[0])
        case ListType(item_type):
            return _shape(item_type)
        case StructType():
            return {field.encode_name: _shape(field.type) for field in kind.fields}
        case RawType():
            return Leaf.FREE
    return Leaf.SCALAR


EVENT_SHAPE: dict[str, Shape] = {field.encode_name: _shape(field.type) for field in type_info(Event).fields}  # type: ignore[attr-defined]


def resolve_path(name: str, place: str, quoted: str) -> Path:
    """The event path that a field name means. ``quoted`` is the hint for a text that was no field at all.

    Raises QueryError when the name is none of the event's paths.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    path = tuple(name.split("."))
    if path[0] == "target" and len(path) > 1:
        path = ("targets", *path[1:])
    shape: Shape = EVENT_SHAPE
    for depth, part in enumerate(path):
        if shape is Leaf.FREE:
            break
        if not isinstance(shape, dict) or part not in shape:
            raise _unknown(name, path[:depth], part, shape, place, quoted)
        shape = shape[part]
    if "" in path:
        raise QueryError(
            f"field {name!r} has an empty part", place=place, hint=f"If it is a text to search for, quote it: {quoted}"
        )
    return path


def shape_of(path: Path) -> Shape:
    """What lies at a path that `resolve_path` gave."""
    shape: Shape = EVENT_SHAPE
    for part in path:
        if not isinstance(shape, dict):
            return shape
        shape = shape[part]
    return shape


def _unknown(name: str, parent: Path, part: str, shape: Shape, place: str, quoted: str) -> QueryError:
    known = list(shape) if isinstance(shape, dict) else []
    if not parent:
        known += SHORT_NAMES
    close = difflib.get_close_matches(part, known, n=1)
    if close:
        hint = f"Did you mean {'.'.join((*parent, close[0]))}?"
    elif parent:
        hint = f"Below {'.'.join(parent)} there is {', '.join(known)}." if known else f"{'.'.join(parent)} has no members."
    else:
        hint = "Own fields are found under metadata, as in metadata.plan."
    return QueryError(f"unknown field {name!r}", place=place, hint=f"{hint} If it is a text to search for, quote it: {quoted}")
