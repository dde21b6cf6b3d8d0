"""Taking members out of an event, and putting them back: JSON texts by JSON Pointer (docs/formats/sealed.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from tallystick.event import Event

_encode = msgspec.json.Encoder().encode
_PREFIX = "sealed:"
_OBJECTS = ("actor", "context")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_event = msgspec.json.Decoder(Event)


def take_out(event: Event, paths: Sequence[str], instead: str) -> dict[str, bytes]:
    """Remove the members at ``paths`` that are there; their texts by pointer. ``instead`` stands for an ``actor.id``."""
    found: dict[str, bytes] = {}
    for path in paths:
        parts = path.split(".")
        text = _take(event, parts, instead)
        if text is not None:
            found[_pointer(parts)] = text
    return found


def put_back(line: bytes, members: Mapping[str, msgspec.Raw]) -> bytes:
    """The line of an event with the members in their places; ``sealed`` stays, so that it can be checked."""
    tree = _members.decode(line)
    for pointer, value in members.items():
        _put(tree, [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]], value)
    return _encode(_event.decode(_encode(tree)))  # the event's own order of keys


def text_at(event: Event, path: str) -> str:
    """The text at the path that names a person; "" when there is none."""
    first, *rest = path.split(".")
    if first == "target":
        return event.targets[0].id if event.targets else ""
    if first == "actor":
        value = getattr(event.actor, rest[0])
        return "" if value is UNSET else value
    raw: Any = event.metadata
    for name in rest:
        if raw is UNSET or not bytes(raw).startswith(b"{"):
            return ""
        raw = _members.decode(raw).get(name, UNSET)
    if raw is UNSET:
        return ""
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else bytes(raw).decode()


def _take(event: Event, parts: Sequence[str], instead: str) -> bytes | None:
    if parts[0] in _OBJECTS:
        holder: Any = getattr(event, parts[0])
        value = UNSET if holder is UNSET else getattr(holder, parts[1])
        if value is UNSET:
            return None
        setattr(holder, parts[1], instead if parts == ["actor", "id"] else UNSET)
        return _encode(value)
    value = getattr(event, parts[0])
    if value is UNSET:
        return None
    if len(parts) == 1:
        setattr(event, parts[0], UNSET)
        return bytes(value) if isinstance(value, msgspec.Raw) else _encode(value)
    left, taken = _without(bytes(value), parts[1:])
    if taken is not None:
        event.metadata = msgspec.Raw(left)
    return taken


def _without(text: bytes, names: Sequence[str]) -> tuple[bytes, bytes | None]:
    """An object's text without one member, at any depth, and that member's text; all other texts stay as they are."""
    if not text.startswith(b"{"):
        return text, None
    members = _members.decode(text)
    if names[0] not in members:
        return text, None
    if len(names) == 1:
        taken: bytes | None = bytes(members.pop(names[0]))
    else:
        left, taken = _without(bytes(members[names[0]]), names[1:])
        members[names[0]] = msgspec.Raw(left)
    return _encode(members), taken


def _put(tree: dict[str, Any], names: Sequence[str], value: msgspec.Raw) -> None:
    if len(names) == 1:
        tree[names[0]] = value
        return
    inner: dict[str, Any] = _members.decode(tree[names[0]]) if names[0] in tree else {}
    _put(inner, names[1:], value)
    tree[names[0]] = msgspec.Raw(_encode(inner))


def _pointer(parts: Sequence[str]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def subject_text(skid: str) -> str:
    """What a sealed ``actor.id`` reads."""
    return _PREFIX + skid
