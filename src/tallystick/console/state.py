"""The URL is the state: what the events page shows, and links that change one thing of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tallystick.console.sentence import quote_value

DEFAULT_START = "-24h"
RANGES = (
    ("-15m", "last 15 min"),
    ("-1h", "last hour"),
    ("-24h", "last 24 h"),
    ("-7d", "last 7 days"),
    ("-30d", "last 30 days"),
    ("-52w", "last year"),
)
TABS = (
    ("summary", "Summary"),
    ("changes", "Changes"),
    ("context", "Context"),
    ("raw", "Raw"),
    ("delivery", "Delivery"),
    ("proof", "Proof"),
)
_TOP_LEVEL_OR = re.compile(r"\bOR\b")


@dataclass(frozen=True, slots=True)
class ViewState:
    """``start`` and ``end`` are as typed: RFC 3339 or ``-24h``; ``cursor`` is a page; ``open`` an event's id."""

    q: str = ""
    tenant: str = ""
    start: str = DEFAULT_START
    end: str = ""
    cursor: str = ""
    open: str = ""
    tab: str = ""

    def href(self, path: str = "/", **changes: Any) -> str:
        """A link to this state with ``changes``; defaults stay out of the URL."""
        state = replace(self, **changes)
        pairs = [
            ("q", state.q),
            ("tenant", state.tenant),
            ("from", "" if state.start == DEFAULT_START else state.start),
            ("to", state.end),
            ("cursor", state.cursor),
            ("open", state.open),
            ("tab", "" if state.tab == "summary" else state.tab),
        ]
        query = urlencode([(name, value) for name, value in pairs if value])
        return f"{path}?{query}" if query else path

    def only(self, query: str) -> str:
        """A link to the events that ``query`` alone finds, in the same time range."""
        return self.href(q=query, cursor="", open="", tab="")

    def including(self, field: str, value: str) -> str:
        """A link that adds the term, or takes it away when it is there."""
        return self._toggled(f"{field}:{quote_value(value)}")

    def excluding(self, field: str, value: str) -> str:
        """A link that adds the term's negation, or takes it away."""
        return self._toggled(f"NOT {field}:{quote_value(value)}")

    def without_readers(self) -> str:
        """A link that leaves out what was done with this log itself (searches, tails, exports …)."""
        return self._toggled("NOT action:tallystick.*")

    def has_term(self, field: str, value: str) -> bool:
        """The term stands in the query as a word of its own, not negated."""
        return f"{field}:{quote_value(value)}" in _without_negations(self.q)

    def _toggled(self, term: str) -> str:
        words = f" {self.q} "
        is_negation = term.startswith("NOT ")
        present = f" {term} " in words and (is_negation or f" NOT {term} " not in words)
        if present:
            q = words.replace(f" {term} ", " ", 1).strip()
        else:
            base = f"({self.q})" if _TOP_LEVEL_OR.search(self.q) and not self.q.startswith("(") else self.q
            q = f"{base} {term}".strip()
        return self.href(q=q, cursor="", open="", tab="")


def _without_negations(query: str) -> list[str]:
    words = query.split(" ")
    return [word for place, word in enumerate(words) if place == 0 or words[place - 1] != "NOT"]
