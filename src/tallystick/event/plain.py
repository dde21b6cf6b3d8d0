"""Objects that can be worked on as plain values: what an encoder writes of the decoded text is the text again.

No encoder writes a key twice, half of a surrogate pair or bad UTF-8, so such a text has none of these, and any part of the value
gives the sender's own number texts when it is encoded. Blanks and escapes that were not needed may differ: the value is the same.
What that does not settle (NUL, depth, numbers of more than 64 digits) is looked for in the text (`event.strict` is the last word).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from tallystick.event import strict

BYTES_MAX = 64 * 1024
"""Values take up to thirty times their text; longer texts are worked on member by member."""

_SAMPLE_STEP = 16
_FOUR_DIGITS = re.compile(rb"[0-9]{4}")
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Plain(NamedTuple):
    """An object as values, and its text without blanks."""

    value: dict[str, Any]
    content: bytes


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


def read_run(text: bytes, joined: bytes, separator: bytes) -> tuple[list[Any], list[bytes]] | None:
    """The values of ``text`` and their texts, when it is plain values with just ``separator`` between them; else None.

    ``joined`` is the guess: an array of them. The texts are compared in the end, so nothing wrong comes of a wrong guess. Depth is
    not looked at.
    """
    try:
        values = _decode(joined)
        texts = list(map(_encode, values))
    except _SYNTAX:
        return None
    return (values, texts) if separator.join(texts) == text and is_settled(text) else None


def is_settled(text: bytes) -> bool:
    """Whether a text has no NUL escape and no number of too many digits for sure."""
    if b"\\u0000" in text:
        return False
    return not (_FOUR_DIGITS.search(text[::_SAMPLE_STEP]) and strict.LONG_NUMBER.search(text))
