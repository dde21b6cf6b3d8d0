"""What a mapping is told beside the records, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tallystick.event import Event


class Problem(NamedTuple):
    """A record that does not map: a code, the reason for people, and the record's bytes for the quarantine.

    ``position``: which of the received records it was in.
    """

    code: str
    message: str
    record: bytes
    position: int = 0


@dataclass(slots=True)
class MapResult:
    """What received records became. ``contents`` (what dedupe compares) and ``positions`` are parallel to ``events``.

    ``positions`` tell which of the received records an event comes from.
    """

    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How records are mapped besides the file: the source's type, raw kept or not.

    ``names_by_digest``: a record without an id of its own is named by its digest when it has a time, so that a repeat is stored
    once; False where two equal records may well be two events. ``now``: the time of receipt, aware, for times without a year;
    without it the clock is asked.
    """

    source_type: str = ""
    keep_raw: bool = True
    names_by_digest: bool = True
    now: datetime | None = None
