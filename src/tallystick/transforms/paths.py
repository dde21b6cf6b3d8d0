"""Places in an event that a transform reads, writes or removes, compiled once.

A path is dotted, as in queries (``metadata.user.team``, ``targets.0.name``), or a JSON Pointer (RFC 6901:
``/metadata/user.team``), which also reaches keys with dots in them. A number is the place in a list, from 0.

What the event's own rules forbid is seen when the path is compiled: unknown members, members that the server sets, required
members that would be removed, values of the wrong type. So of what is left, only two things depend on the single event:
a value moved from elsewhere may have the wrong type, and something that is no object may stand in the way below ``metadata``.
Both are an EventInvalidError. An element that a list does not have is nothing to change.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, strict
from tallystick.event.stamp import add_flag
from tallystick.event.times import parse_time

Use = Literal["read", "write", "remove"]

FAILED = "transform_failed"
FREE_ROOTS = frozenset({"metadata", "enrichment"})
_LATE = frozenset({"v", "tenant", "received_at", "source", "ingest", "sealed"})
"""Members that are set when the transforms are through."""
_SENDERS = frozenset({"id", "producer", "raw", "changes"})
"""What the sender said, for duplicates and as evidence: never written; `raw` and `changes` may be removed."""
_KEPT = frozenset({"id", "producer"})
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError)

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder().encode


def split_path(text: str) -> tuple[str, ...]:
    """The parts of a dotted path or a JSON Pointer. Raises ConfigError."""
    if text.startswith("/"):
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    else:
        parts = tuple(text.split("."))
    if "" in parts:
        raise ConfigError(f"the path {text!r} has an empty part", hint="As in metadata.user.team or /metadata/user.team")
    return parts


class EventPath:
    """One place. ``read`` gives JSON text, ``write`` takes it."""

    def __init__(self, text: str, parts: tuple[str, ...]) -> None:
        self.text = text
        self.parts = parts
        self.pointer = "".join("/" + strict.escape(part) for part in parts)

    def may_be_in(self, events: Sequence[Event]) -> bool:
        """Whether any of the events may have something there; cheap, for a whole batch."""
        raise NotImplementedError

    def read(self, event: Event) -> bytes | None:
        """The value there; None without one."""
        raise NotImplementedError

    def write(self, event: Event, value: bytes) -> None:
        """Put JSON ``value`` there, members on the way made where they are missing. Raises EventInvalidError."""
        raise NotImplementedError

    def remove(self, event: Event) -> None:
        """Take away what is there, if anything."""
        raise NotImplementedError

    def fault(self, message: str) -> EventInvalidError:
        """An error at this place."""
        return EventInvalidError(message, pointer=self.pointer, code=FAILED)


def event_path(text: str, use: Use) -> EventPath:
    """The place that ``text`` names, for this use. Raises ConfigError when no event could take it."""
    parts = split_path(text)
    root = parts[0]
    hints = _members(Event)
    if root not in hints:
        raise ConfigError(f"an event has no member {root!r}", hint="Own fields are below metadata, as in metadata.team")
    if root in _LATE:
        raise ConfigError(f"{root!r} is set when the transforms are through")
    if use == "write" and root in _SENDERS:
        raise ConfigError(f"{root!r} is what the sender said; no transform writes it")
    if use == "remove" and root in _KEPT:
        raise ConfigError(f"{root!r} tells duplicates apart; it stays")
    if root in FREE_ROOTS:
        if root == "enrichment" and len(parts) == 1 and use == "write":
            raise ConfigError("'enrichment' as a whole belongs to all transforms", hint="Name a member, as in enrichment.team")
        return _FreePath(text, parts)
    return _TypedPath(text, parts, use)


class _FreePath(EventPath):
    """Below ``metadata`` or ``enrichment``: any JSON, kept as text but for what is on the way."""

    def __init__(self, text: str, parts: tuple[str, ...]) -> None:
        super().__init__(text, parts)
        self._root, self._keys = parts[0], parts[1:]
        self._needle = _encode(self._keys[-1]) if self._keys and not _is_place(self._keys[-1]) else b""

    def may_be_in(self, events: Sequence[Event]) -> bool:
        root = self._root
        texts = [value for event in events if (value := getattr(event, root)) is not UNSET]
        if not texts:
            return False
        joined = _encode(texts)
        return self._needle in joined or b"\\" in joined  # a key may be written with escapes

    def read(self, event: Event) -> bytes | None:
        value = getattr(event, self._root)
        if value is UNSET:
            return None
        text: bytes | None = bytes(value)
        for key in self._keys:
            if text is None:
                return None
            text = _child(text, key)
        return text

    def write(self, event: Event, value: bytes) -> None:
        before = getattr(event, self._root)
        if not self._keys and value[:1] != b"{":
            raise self.fault(f"`{self._root}` must be a JSON object")
        put = self._put(None if before is UNSET else bytes(before), self._keys, value)
        setattr(event, self._root, Raw(put))

    def _put(self, text: bytes | None, keys: Sequence[str], value: bytes) -> bytes:
        if not keys:
            return value
        key, below = keys[0], keys[1:]
        first = b"{" if text is None or text == b"null" else text[:1]
        if first == b"[":
            elements = _decode_list(text or b"")
            if not _is_place(key) or int(key) >= len(elements):
                return text or b""
            elements[int(key)] = Raw(self._put(bytes(elements[int(key)]), below, value))
            return _encode(elements)
        if first != b"{":
            raise self.fault(f"nothing can be put at {self.text}: a value that is no object stands in the way")
        members = {} if text is None or text == b"null" else _decode_members(text)
        inner = members.get(key)
        members[key] = Raw(self._put(None if inner is None else bytes(inner), below, value))
        return _encode(members)

    def remove(self, event: Event) -> None:
        value = getattr(event, self._root)
        if value is UNSET:
            return
        if not self._keys:
            setattr(event, self._root, UNSET)
            return
        left = _without(bytes(value), self._keys)
        if left is not None:
            setattr(event, self._root, Raw(left))


class _TypedPath(EventPath):
    """Members with a type of their own."""

    def __init__(self, text: str, parts: tuple[str, ...], use: Use) -> None:
        super().__init__(text, parts)
        self._steps: list[type | None] = []
        """For each part, the struct to make where it is missing; None: it cannot be made."""
        hint: Any = Event
        is_required = False
        for depth, part in enumerate(parts):
            hint, is_required = _step(hint, part, parts[:depth])
            plain = _plain(hint)
            self._steps.append(plain if _can_be_made(plain) else None)
        if use == "remove" and is_required:
            raise ConfigError(f"{text!r} is required: no event can do without it")
        if use == "write" and isinstance(_plain(hint), type) and issubclass(_plain(hint), Raw):
            raise ConfigError(f"{text!r} is what the sender said; no transform writes it")
        self._decode = msgspec.json.Decoder(_plain(hint)).decode
        self._is_time = parts == ("occurred_at",)

    def may_be_in(self, events: Sequence[Event]) -> bool:
        root = self.parts[0]
        return any(getattr(event, root) is not UNSET for event in events)

    def read(self, event: Event) -> bytes | None:
        value: Any = event
        for part in self.parts:
            value = _member(value, part)
            if value is UNSET:
                return None
        return _encode(value)

    def write(self, event: Event, value: bytes) -> None:
        try:
            decoded = self._decode(value)
        except _SYNTAX as error:
            raise self.fault(f"a value cannot be put at {self.text}: {_words(error)}") from None
        if self._is_time:
            decoded = self._time(event, decoded)
        holder: Any = event
        for part, make in zip(self.parts[:-1], self._steps, strict=False):
            inner = _member(holder, part)
            if inner is UNSET:
                if make is None:
                    return
                inner = make()
                setattr(holder, part, inner)
            holder = inner
        last = self.parts[-1]
        if not isinstance(holder, list):
            setattr(holder, last, decoded)
        elif int(last) < len(holder):
            holder[int(last)] = decoded

    def remove(self, event: Event) -> None:
        holder: Any = event
        for part in self.parts[:-1]:
            holder = _member(holder, part)
            if holder is UNSET:
                return
        last = self.parts[-1]
        if not isinstance(holder, list):
            setattr(holder, last, UNSET)
        elif int(last) < len(holder):
            del holder[int(last)]

    def _time(self, event: Event, text: str) -> str:
        parsed = parse_time(text)
        if parsed is None or parsed.text is None:
            raise self.fault("`occurred_at` must be an RFC 3339 time, as in 2026-03-04T10:00:00Z")
        for flag in parsed.flags:
            add_flag(event, flag)
        return parsed.text


def _is_place(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _members(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _plain(hint: Any) -> Any:
    """A hint without the possibility that nothing is there."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(one for one in get_args(hint) if one is not UnsetType)
    return hint


def _step(hint: Any, part: str, parents: tuple[str, ...]) -> tuple[Any, bool]:
    """The hint of the member ``part``, and whether it is required. Raises ConfigError."""
    plain, where = _plain(hint), ".".join(parents)
    if get_origin(plain) is list:
        if not _is_place(part):
            raise ConfigError(f"{where!r} is a list: {part!r} is no place in it", hint=f"As in {where}.0")
        return get_args(plain)[0], False
    if not (isinstance(plain, type) and issubclass(plain, msgspec.Struct)):
        raise ConfigError(f"{where!r} has no members")
    hints = _members(plain)
    if part not in hints:
        raise ConfigError(f"{where!r} has no member {part!r}", hint="It has " + ", ".join(hints))
    required = {field.name for field in msgspec.structs.fields(plain) if field.required}
    return hints[part], part in required


def _can_be_made(plain: Any) -> bool:
    is_struct = isinstance(plain, type) and issubclass(plain, msgspec.Struct)
    return is_struct and not any(field.required for field in msgspec.structs.fields(plain))


def _member(holder: Any, part: str) -> Any:
    if isinstance(holder, list):
        return holder[int(part)] if int(part) < len(holder) else UNSET
    return getattr(holder, part)


def _child(text: bytes, key: str) -> bytes | None:
    if text[:1] == b"{":
        found = _decode_members(text).get(key)
        return None if found is None else bytes(found)
    if text[:1] == b"[" and _is_place(key):
        elements = _decode_list(text)
        return bytes(elements[int(key)]) if int(key) < len(elements) else None
    return None


def _without(text: bytes, keys: Sequence[str]) -> bytes | None:
    """``text`` without what is there under ``keys``; None when nothing is."""
    inner = _child(text, keys[0])
    if inner is None:
        return None
    left = _without(inner, keys[1:]) if len(keys) > 1 else None
    if left is None and len(keys) > 1:
        return None
    if text[:1] == b"[":
        elements = _decode_list(text)
        elements[int(keys[0]) : int(keys[0]) + 1] = [] if left is None else [Raw(left)]
        return _encode(elements)
    members = _decode_members(text)
    if left is None:
        del members[keys[0]]
    else:
        members[keys[0]] = Raw(left)
    return _encode(members)


def _words(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
