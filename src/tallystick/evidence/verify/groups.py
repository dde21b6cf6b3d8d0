"""Whose sealed groups a line has, without opening them."""

from __future__ import annotations

import msgspec

SEALED_MARK = b',"sealed":['


class _Group(msgspec.Struct):
    subject: str


class _Ingest(msgspec.Struct):
    class_: str = msgspec.field(name="class", default="")


class _Line(msgspec.Struct):
    received_at: str = ""
    ingest: _Ingest = msgspec.field(default_factory=_Ingest)
    sealed: list[_Group] = []


_decode = msgspec.json.Decoder(_Line).decode


def groups_of(line: bytes) -> list[tuple[str, str, str]]:
    """(person's id, class, month) of each group. A line that is none of ours has none: its leaf is checked elsewhere."""
    try:
        found = _decode(line)
    except msgspec.MsgspecError:
        return []
    return [(group.subject, found.ingest.class_, found.received_at[:7]) for group in found.sealed]
