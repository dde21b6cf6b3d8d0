"""One rule: how its finding is searched for in JSON text, and how it is found exactly in the text itself.

Two patterns, since they read different things. The *hint* runs over JSON as it came, thousands of events at a time, where a
line break is ``\\n`` and a quote ``\\"``; it may say yes too often, never too seldom. It ends at a fixed length, so that a finding is one
hit. The *pattern* runs over the decoded text of the few strings with a hit and has the last word, together with ``check``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import re2

LEFT = r"(?:^|[^0-9A-Za-z_]|\\[bfnrt])"
"""For hints: no letter or digit before. In JSON text the letter of an escape is none."""


@dataclass(frozen=True)
class Rule:
    """``pattern`` and ``hint`` are RE2 and, the hint, Hyperscan too. What goes is the
    group of the pattern that is named ``secret`` (or ``secret2`` …, whichever matched), without one all of it.

    ``literals``: every match of the hint contains one of them, in lower case; none where no literal says anything. ``tail``:
    at least so many bytes before a hit's end belong to the finding. ``near``: this must stand before the finding, or be in the
    name of the member that holds it. ``visible``: how many of the last characters the action `partial` leaves.
    ``is_bounded``: no part of the pattern takes more than a fixed number of signs, so Python's own `re` is linear in it too, and a call
    of it costs a fifth.
    """

    name: str
    pattern: str
    hint: str
    literals: tuple[bytes, ...] = ()
    check: Callable[[str], bool] | None = None
    near: str | None = None
    tail: int = 8
    visible: int = 4
    is_bounded: bool = False

    @cached_property
    def compiled(self) -> Any:
        """The pattern, for `finditer`."""
        return re.compile(self.pattern) if self.is_bounded else re2.compile(self.pattern)

    @cached_property
    def _groups(self) -> list[int]:
        return sorted(number for name, number in self.compiled.groupindex.items() if name.startswith("secret"))

    def span(self, match: Any) -> tuple[int, int]:
        """What goes of a match of the pattern."""
        for group in self._groups:
            start, end = match.span(group)
            if start >= 0:
                return start, end
        start, end = match.span()
        return start, end

    @cached_property
    def near_compiled(self) -> Any:
        """``near``, for `search`."""
        assert self.near is not None
        return re2.compile(self.near)
