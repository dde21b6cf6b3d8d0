"""Legal holds: what expiry must leave alone, and how held lines outlive their chunk.

A hold names tenants and a query (empty: all of their events). While it stands, the lines that it matches survive the expiry of their
chunk: they are copied into a chunk of the class ``hold.<hold id>.<class>``, whose key is the hold's own (of the tenant and month). So the
key of their month can go on schedule, and lifting the hold lets its chunks expire and destroys its keys. Nothing is copied before a
chunk expires; a line that several holds match lies under the oldest, and under the next one when that is lifted.

Holds are in the state file `cursors/holds`, written by the api process under a lock that expiry takes while it lets go of a chunk:
when the answer to a placing is out, no later release overlooks it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError

PREFIX = "hold."
NOBODY = "none"
"""In place of a hold's id: of lines that a certificate left out, and no hold matches any more; they expire with the next one."""


class Matcher(Protocol):
    """A compiled query."""

    def matching(self, lines: Sequence[bytes]) -> list[int]: ...


CompileQuery = Callable[[str], Matcher]


class Review(msgspec.Struct, frozen=True):
    """Who looked at a hold again, when (RFC 3339), what for, and when the next time is (yyyy-mm-dd)."""

    by: str
    at: str
    note: str
    review: str


class Hold(msgspec.Struct):
    """``tenants``: names by handle. ``review``: the day (yyyy-mm-dd) on which somebody has to look again."""

    id: str
    tenants: dict[str, str]
    query: str
    reason: str
    owner: str
    review: str
    placed_by: str
    placed_at: str
    reviews: list[Review] = []
    lifted_by: str = ""
    lifted_at: str = ""
    lift_reason: str = ""

    @property
    def is_active(self) -> bool:
        return not self.lifted_at


def hold_class(hold_id: str, retention_class: str) -> str:
    """The class of chunks with lines of ``retention_class`` under a hold."""
    return f"{PREFIX}{hold_id}.{retention_class}"


def split_class(name: str) -> tuple[str, str]:
    """(hold id, the lines' own class) of a chunk's class; the id is "" for an ordinary one."""
    if not name.startswith(PREFIX):
        return "", name
    _, hold_id, retention_class = name.split(".", 2)
    return hold_id, retention_class


class Holds:
    """The register. ``load`` without the lock gives what stood a moment ago."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir

    def load(self) -> list[Hold]:
        """All holds, lifted ones included, the oldest first. Raises IntegrityError: then nothing may expire."""
        state = self._state()
        payload = state.load()
        if payload is None and state.is_damaged():
            raise IntegrityError("the register of holds is damaged", place=str(state.path), hint="Restore it from a copy")
        return msgspec.json.decode(payload, type=list[Hold]) if payload else []

    def save(self, holds: Sequence[Hold]) -> None:
        """For who has the lock."""
        make_dir(self._dir / "cursors")
        # A crash before it returns: the holds are as they were, and the caller had no answer.
        self._state().save(msgspec.json.encode(holds))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One at a time, over all processes; blocks."""
        make_dir(self._dir / "locks")
        fd = os.open(self._dir / "locks" / "holds", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _state(self) -> StateFile:
        return StateFile(self._dir / "cursors" / "holds")


def held_places(holds: Sequence[Hold], handle: str, lines: Sequence[bytes], compile_query: CompileQuery) -> dict[int, str]:
    """Place → id of the oldest active hold that matches, of a tenant's lines."""
    found: dict[int, str] = {}
    for hold in holds:
        if hold.is_active and handle in hold.tenants and len(found) < len(lines):
            places = compile_query(hold.query).matching(lines) if hold.query else range(len(lines))
            for place in places:
                found.setdefault(place, hold.id)
    return found
