"""From what arrives to single records: containers are opened, the elements' own bytes are kept.

One step is tried after the other, on the outermost value first, until none fits:

    { list = "Records" }                           an array of records under this key
    { object = "detail" }                          one record under this key
    { text = "CloudTrailEvent" }                   a record as JSON text under this key
    { text = "message", after = "github_audit: " } the same, behind a prefix within the text
    { split = "events" }                           a record that tells of several things in the list under this key: one record for
                                                   each, with all other members

An array is a container always, and so are several lines that each begin like an object. A value that has all keys of `match` is a record and is not opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from tallystick.event.codec import split_lines

_NESTING_MAX = 6
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Unwrapped(NamedTuple):
    """One record's bytes with its top-level members, or (``members`` None) bytes that hold no JSON object."""

    record: bytes
    members: Mapping[str, Raw] | None


def unwrap(record: bytes, steps: Sequence[Mapping[str, str]], keys: Sequence[str], nesting: int = 0) -> Iterator[Unwrapped]:
    """The single records in ``record``, in order. ``keys`` are those that make a value a record."""
    text = record.strip()
    members = _decode(_decode_members, text) if text.startswith(b"{") else None
    inner = _inside(text, members, steps, keys) if nesting <= _NESTING_MAX else None
    if inner is None:
        yield Unwrapped(text, members)
        return
    for one in inner:
        yield from unwrap(one, steps, keys, nesting + 1)


def _inside(
    text: bytes, members: Mapping[str, Raw] | None, steps: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> list[bytes] | None:
    """What ``text`` contains; None when it is no container."""
    if members is not None:
        parts = _split(members, steps)
        if parts is not None:
            return parts
        return None if keys and all(key in members for key in keys) else _open(members, steps)
    elements = _decode(_decode_list, text) if text.startswith(b"[") else None
    if elements is not None:
        return list(map(bytes, elements))
    lines = split_lines(text)[0]
    return lines if len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines) else None


def _split(members: Mapping[str, Raw], steps: Sequence[Mapping[str, str]]) -> list[bytes] | None:
    """One record for each element of a list of several; None when there is none."""
    for key in (step["split"] for step in steps if "split" in step):
        value = members.get(key)
        elements = None if value is None else _decode(_decode_list, bytes(value))
        if elements is not None and len(elements) > 1:
            return [_encode({**members, key: [element]}) for element in elements]
    return None


def _open(members: Mapping[str, Raw], steps: Sequence[Mapping[str, str]]) -> list[bytes] | None:
    """The values inside, by the first step that fits; None when none does."""
    for step in steps:
        kind = next((name for name in ("list", "object", "text") if name in step), None)
        if kind is None:
            continue
        value = members.get(step[kind])
        if value is None:
            continue
        found = _open_as(kind, bytes(value), step.get("after", ""))
        if found is not None:
            return found
    return None


def _open_as(kind: str, value: bytes, after: str) -> list[bytes] | None:
    if kind == "list":
        elements = _decode(_decode_list, value)
        return None if elements is None else list(map(bytes, elements))
    if kind == "object":
        return [value] if value.startswith(b"{") else None
    text: str | None = _decode(_decode_text, value)
    if text is None or after not in text:
        return None
    inner = (text.partition(after)[2] if after else text).strip()
    return [inner.encode()] if inner.startswith("{") else None


def _decode(decode: Any, text: bytes) -> Any:
    try:
        return decode(text)
    except _SYNTAX:
        return None
