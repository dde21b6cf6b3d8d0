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
    if b"\\u0000" in text or strict.openings(text) > depth_max:
        return None
    if _FOUR_DIGITS.search(text[::_SAMPLE_STEP]) and strict.LONG_NUMBER.search(text):
        return None
    return Plain(value, content)
