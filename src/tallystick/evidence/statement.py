"""Signed statements: what became of a range of events at one destination. A note by the key ``<server name>/statement``:

    tallystick.statement/v1
    <origin of the event tree>
    destination <name>
    range <first index>-<last index>
    as_of <size of the root log>
    revision <number of replays before it>
    issued <RFC 3339, UTC>
    accepted <count>
    delivered <count>
    filtered <count> <name of the filter>            one line each, by name
    dead_lettered <count> <reason>                   one line each, by reason
    pending <count>

accepted = delivered + filtered + dead-lettered + pending, and accepted is the length of the range; a note whose numbers do not say
so is refused. It is final when pending is 0; a later one of the same range and destination has a higher revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError
from tallystick.evidence.note import VerifierKey, open_note, sign_note

_N = "(0|[1-9][0-9]{0,18})"
_TEXT = re.compile(
    r"tallystick\.statement/v1\n(?P<origin>[^\n]+)\n"
    rf"destination (?P<destination>[a-z0-9][a-z0-9_-]{{0,62}})\nrange (?P<first>{_N})-(?P<last>{_N})\n"
    rf"as_of (?P<as_of>{_N})\nrevision (?P<revision>{_N})\nissued (?P<issued>[0-9TZ:.+-]+)\n"
    rf"accepted (?P<accepted>{_N})\ndelivered (?P<delivered>{_N})\n"
    rf"(?P<filtered>(?:filtered {_N} [a-z0-9_-]+\n)*)(?P<dead>(?:dead_lettered {_N} [a-z0-9_]+\n)*)"
    rf"pending (?P<pending>{_N})\n"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """The numbers of events ``first..last``. ``as_of`` is the root log's size when it was issued."""

    origin: str
    destination: str
    first: int
    last: int
    as_of: int
    revision: int
    issued: str
    delivered: int
    pending: int
    filtered: Mapping[str, int] = field(default_factory=dict)
    dead_lettered: Mapping[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        return self.last - self.first + 1

    @property
    def is_final(self) -> bool:
        return self.pending == 0

    @property
    def is_balanced(self) -> bool:
        """Whether every event of the range has exactly one outcome."""
        counts = [self.delivered, self.pending, *self.filtered.values(), *self.dead_lettered.values()]
        return min(counts) >= 0 and sum(counts) == self.accepted

    def text(self) -> str:
        """The text that is signed."""
        lines = [
            "tallystick.statement/v1",
            self.origin,
            f"destination {self.destination}",
            f"range {self.first}-{self.last}",
            f"as_of {self.as_of}",
            f"revision {self.revision}",
            f"issued {self.issued}",
            f"accepted {self.accepted}",
            f"delivered {self.delivered}",
            *(f"filtered {count} {name}" for name, count in sorted(self.filtered.items())),
            *(f"dead_lettered {count} {reason}" for reason, count in sorted(self.dead_lettered.items())),
            f"pending {self.pending}",
            "",
        ]
        return "\n".join(lines)


def statement_key_name(server_name: str) -> str:
    """The name of the key that signs statements."""
    return f"{server_name}/statement"


def sign_statement(statement: Statement, key_name: str, key: Ed25519PrivateKey) -> str:
    """The signed note. Raises CheckpointError for numbers that do not add up: such a statement is never signed."""
    if not statement.is_balanced:
        raise CheckpointError("the numbers of a statement do not add up", place=f"{statement.destination}, {statement.origin}")
    return sign_note(statement.text(), [(key_name, key)])


def open_statement(note: str, vkeys: Iterable[str | VerifierKey]) -> Statement:
    """The statement of a note that one of ``vkeys`` signed. Raises CheckpointError."""
    match = _TEXT.fullmatch(open_note(note, vkeys))
    if match is None:
        raise CheckpointError("this note is no statement", hint="Its first line is tallystick.statement/v1")
    statement = Statement(
        origin=match["origin"],
        destination=match["destination"],
        first=int(match["first"]),
        last=int(match["last"]),
        as_of=int(match["as_of"]),
        revision=int(match["revision"]),
        issued=match["issued"],
        delivered=int(match["delivered"]),
        pending=int(match["pending"]),
        filtered=_counts(match["filtered"]),
        dead_lettered=_counts(match["dead"]),
    )
    if not statement.is_balanced or statement.accepted != int(match["accepted"]):
        raise CheckpointError("the numbers of a statement do not add up", place=statement.origin)
    return statement


def _counts(text: str) -> dict[str, int]:
    rows = (line.split(" ") for line in text.splitlines())
    return {name: int(count) for _, count, name in rows}
