"""Text of strangers, made fit to be shown: shortened, and with nothing in it that hides or reorders what stands beside it.

Markup is the template's business (autoescape). Here go the characters that HTML lets through: bidirectional controls, zero-width
and control characters are shown as the escapes that JSON would use.
"""

from __future__ import annotations

import re
from typing import Any

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with hidden characters as ``\\uXXXX``."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shorten(value: Any, limit: int) -> str:
    """At most ``limit`` visible characters, with an ellipsis for the rest."""
    text = str(value)
    return visible(text) if len(text) <= limit else f"{visible(text[: limit - 1])}…"


def shorten_counted(value: Any, limit: int) -> str:
    """As `shorten`, and says how long the whole is."""
    text = str(value)
    return visible(text) if len(text) <= limit else f"{visible(text[:limit])}… ({len(text):,} characters)"
