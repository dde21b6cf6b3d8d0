"""Tables of answers: what the other side may say, and what is done then, as data. Pure.

A table is read twice: by the destination, which looks up a status or code, and by people, as the published `answers` that the
documentation repeats. Nothing in a table means "drop", and a code in no row is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tallystick.http.outbound import Reply
from tallystick.plugin import Answer, AnswerKind

Codes = Sequence[int | range]
REPLY_CHARACTERS = 64 << 10

NO_ANSWER: dict[str, str] = {
    "no connection, no answer in time, TLS or DNS failure": "retry",
    "a private or metadata address": "park",
}
"""The rows of every destination over HTTP for attempts that no status came of."""


class Row(NamedTuple):
    """One row: the codes, what they lead to, and how both are published. ``reason``: the name that dead letters get."""

    codes: Codes
    kind: AnswerKind
    said: str
    done: str
    reason: str = ""

    def holds(self, code: int) -> bool:
        return any(code == one if isinstance(one, int) else code in one for one in self.codes)


class AnswerTable:
    """Rows in order: the first that holds a code decides."""

    def __init__(self, *rows: Row) -> None:
        self.rows = rows

    @property
    def published(self) -> dict[str, str]:
        """What is said → what is done, for `Destination.answers`."""
        return {row.said: row.done for row in self.rows}

    def find(self, code: int) -> Row | None:
        return next((row for row in self.rows if row.holds(code)), None)

    def kind(self, code: int) -> AnswerKind:
        row = self.find(code)
        return AnswerKind.RETRY if row is None else row.kind

    def answer(self, reply: Reply, where: str) -> Answer:
        """Sort a reply by its status."""
        row, text = self.find(reply.status), reply.body[:REPLY_CHARACTERS].decode("utf-8", "replace")
        if row is not None and row.kind is AnswerKind.DELIVERED:
            return Answer(row.kind, where=where, reply=text)
        kind, name = (AnswerKind.RETRY, "") if row is None else (row.kind, row.reason)
        reason = name or describe(reply.status, text)
        return Answer(kind, reason=reason, where=where, reply=text, retry_after_s=reply.retry_after_s())


def describe(status: int, text: str) -> str:
    """A status with the beginning of what was said, in one line: for the person who looks at a destination that waits."""
    said = " ".join(text.split())[:200]
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"
