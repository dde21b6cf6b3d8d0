"""The search for hints over many texts at once: Hyperscan where it can be imported, RE2 else.

Hyperscan reads the joined texts once, whatever the number of rules, and calls back for each hit alone (3 GB/s when there is none). RE2
tells with one search whether there is any, then looks for each rule in the texts that have one. Both have no bad case.

Thread-safe: Hyperscan's scratch space belongs to one thread, so each thread has its own.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import re2

hyperscan: Any
try:
    import hyperscan
except ImportError:  # the extra is not installed, or there is no build for this machine
    hyperscan = None


ESCAPES = r"\\(?:u00[2-7]|/)"
"""A hint for texts that have such escapes."""
_ESCAPE = re.compile(rb"\\+(?:u00([2-7][0-9a-fA-F])|/)")  # in a JSON text inside another the backslash is written twice


Hit = tuple[int, int]
"""A hint that matched: its number, and where in the text it ends."""


def without_escapes(text: bytes) -> bytes:
    """JSON text with slashes and ASCII signs as themselves where they are written as escapes, for searching alone: it is JSON no longer."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    return b"/" if digits is None else bytes([int(digits, 16)])


class Scanner:
    """Searches for ``hints`` (patterns in the common part of RE2 and Hyperscan)."""

    def __init__(self, hints: Sequence[str], *, uses_hyperscan: bool | None = None) -> None:
        self.uses_hyperscan = hyperscan is not None if uses_hyperscan is None else uses_hyperscan
        self._find: _Hyperscan | _Re2 = _Hyperscan(tuple(hints)) if self.uses_hyperscan else _Re2(tuple(hints))

    def scan(self, texts: Sequence[bytes]) -> dict[int, list[Hit]]:
        """The hits by the place of the text that has them; ends are offsets in that text. No hit reaches over a line break."""
        return self._find.scan(texts)


class _Hyperscan:
    def __init__(self, hints: tuple[str, ...]) -> None:
        self._hints = hints
        self._local = threading.local()

    def scan(self, texts: Sequence[bytes]) -> dict[int, list[Hit]]:
        hits: list[tuple[int, int]] = []

        def take(hint: int, start: int, end: int, flags: int, context: object) -> None:
            hits.append((hint, end))

        database = _database(self._hints)
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(database)
        database.scan(b"\n".join(texts), match_event_handler=take, scratch=scratch)
        if not hits:
            return {}
        starts = [0, *accumulate(len(text) + 1 for text in texts)]
        found: dict[int, list[Hit]] = {}
        for hint, end in hits:
            place = bisect_right(starts, end - 1) - 1
            found.setdefault(place, []).append((hint, end - starts[place]))
        return found


class _Re2:
    def __init__(self, hints: tuple[str, ...]) -> None:
        self._any, self._each = _compiled(hints)

    def scan(self, texts: Sequence[bytes]) -> dict[int, list[Hit]]:
        if self._any.search(b"\n".join(texts)) is None:
            return {}
        found: dict[int, list[Hit]] = {}
        for place, text in enumerate(texts):
            if self._any.search(text) is not None:
                found[place] = [(hint, match.end()) for hint, one in enumerate(self._each) for match in one.finditer(text)]
        return found


@cache
def _database(hints: tuple[str, ...]) -> Any:
    """Built once for all transforms and threads with the same hints: some hundredths of a second."""
    database = hyperscan.Database()
    database.compile(
        expressions=[hint.encode() for hint in hints], ids=list(range(len(hints))), elements=len(hints), flags=[0] * len(hints)
    )
    return database


@cache
def _compiled(hints: tuple[str, ...]) -> tuple[Any, list[Any]]:
    return re2.compile("|".join(f"(?:{hint})" for hint in hints).encode()), [re2.compile(hint.encode()) for hint in hints]
