"""Objects that can be worked on as plain values: what an encoder writes of the decoded text is the text again.

No encoder writes a key twice, half of a surrogate pair or bad UTF-8, so such a text has none of these, and any part of the value
gives the sender's own number texts when it is encoded. Blanks and escapes that were not needed may differ: the value is the same.
What that does not settle (NUL, depth, numbers of more than 64 digits) is looked for in the text (`event.strict` is the last word).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from tallystick.event import strict

T = TypeVar("T", bound=tuple[Any, ...])

BYTES_MAX = 64 * 1024
"""Values take up to thirty times their text; longer texts are worked on member by member."""

_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Plain(NamedTuple):
    """An object as values, and its text without blanks."""

    value: dict[str, Any]
    content: bytes


def tuples(kind: type[T], *columns: Iterable[Any]) -> list[T]:
    """Named tuples of ``kind`` out of their columns: a third of the time of calling the class for each."""
    return list(map(partial(tuple.__new__, kind), zip(*columns, strict=True)))


def read_plain(text: bytes, depth_max: int) -> Plain | None:
    """The object in ``text``, which begins and ends without blanks; None when it is none, or not surely a plain one."""
    if text[:1] != b"{" or len(text) > BYTES_MAX:
        return None
    try:
        value = _decode(text)
        encoded = _encode(value)
        content = text
        if encoded != text:
            content = strict.compact(text)
            if encoded != content and encoded != strict.unescape(content):
                return None
    except _SYNTAX:
        return None
    return Plain(value, content) if is_settled(text) and strict.openings(text) <= depth_max else None


def read_run(joined: bytes, records: list[bytes]) -> list[Any] | None:
    """The values of ``records``, when they are plain values and ``joined`` is an array of them; else None. Depth is not looked at.

    Each record is proven by itself, so nothing wrong comes of a wrong guess at where they end.
    """
    try:
        values = _decode(joined)
        texts = list(map(_encode, values))
        if texts != records and texts != list(map(strict.compact, records)):
            return None
    except _SYNTAX:
        return None
    return values if is_settled(joined) else None


def is_settled(text: bytes) -> bool:
    """Whether a text has no NUL escape and no number of too many digits for sure."""
    # Few texts have a backslash, and looking for one byte is quicker than looking for six.
    has_nul = b"\\" in text and b"\\u0000" in text
    return not has_nul and not strict.has_long_run(text)
