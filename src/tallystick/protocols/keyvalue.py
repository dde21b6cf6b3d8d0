"""Lines of ``key=value`` pairs, as many programs and appliances write them. Pure; linear time; never fails.

    level=info user="Ann \"A\" B" status=200 done           logfmt
    date=2026-03-04,action='deny',msg="two words"           with commas

A key is a run of letters, digits and ``_ . - [ ] @ /`` with ``=`` behind it; a value is quoted (a backslash escapes) or ends at a
blank, a comma or the next line. Words between pairs are no members. A key that comes again gets a number behind its name.
"""

from __future__ import annotations

import re
from typing import Any

_PAIR = re.compile(
    r"([A-Za-z0-9_.@/\[\]-]++)=(?:\"([^\"\\]*+(?:\\.[^\"\\]*+)*+)\"|'([^'\\]*+(?:\\.[^'\\]*+)*+)'|([^\s,;]*+))",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


def parse_pairs(text: str) -> dict[str, Any] | None:
    """The pairs in ``text`` in their order; None when there is none."""
    members: dict[str, Any] = {}
    for key, double, single, plain in _PAIR.findall(text):
        value = double or single or plain
        put(members, key, unescape(value) if "\\" in value and not plain else value)
    return members or None


def unescape(text: str) -> str:
    """``text`` without its backslashes; ``\\n``, ``\\r`` and ``\\t`` are the characters they stand for."""
    return _ESCAPE.sub(lambda match: _CONTROLS.get(match[1], match[1]), text)


def put(members: dict[str, Any], key: str, value: Any) -> None:
    """Set a member; one of a name that is there already gets ``_2``, ``_3``, … behind it: nothing that was said is lost."""
    if key in members:
        number = 2
        while f"{key}_{number}" in members:
            number += 1
        key = f"{key}_{number}"
    members[key] = value
