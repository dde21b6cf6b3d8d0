"""What a door of the intake hands to the service, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from tallystick.errors import ConflictError, EventInvalidError, TerminalError
from tallystick.event import Event
from tallystick.plugin import Sender as Sender
from tallystick.sources.plan import OnInvalid, SourcePlan


@dataclass(slots=True)
class Bad:
    """One record that is no event, for the answer and for the quarantine. ``handle`` is its tenant's, where that is known."""

    line: int
    error: EventInvalidError
    record: bytes
    handle: str = ""


@dataclass(slots=True)
class Draft:
    """One request on its way through the intake. ``events``, ``contents``, ``records`` and ``lines`` are parallel.

    ``is_large``: it is worked on in turns when others send too; ``is_huge``: always.

    ``records`` are as sent, ``contents`` are them compacted (what duplicates are compared by); ``lines`` count from 1.
    ``said`` is as in `ReadBatch`. ``config`` is the hash of the configuration that the plan is of.
    """

    plan: SourcePlan
    sender: Sender
    on_invalid: OnInvalid
    received_at: str
    config: str = ""
    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    records: Sequence[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    said: Sequence[bytes] = ()
    bad: list[Bad] = field(default_factory=list)
    idempotency_key: str = ""
    peer: str = ""
    is_large: bool = False
    is_huge: bool = False
    waiting: list[Any] | None = None
    """The draft's parts once they are transformed, when sealing may have to be tried again."""

    @property
    def lane(self) -> str:
        """Whose turn this request waits for when it is large."""
        return self.plan.tenant or self.sender.lane


@dataclass(slots=True)
class TenantOutcome:
    """What became of one tenant's part. ``records()``: those of its events as sent, for the input root of a signed receipt."""

    handle: str
    ranges: Sequence[Sequence[int]]
    leaf_hashes: Sequence[bytes]
    records: Callable[[], list[bytes]]


@dataclass(slots=True)
class Outcome:
    """What became of one request, after it is durable. ``bad`` and ``made_ids`` are in the order of the request."""

    received_at: str
    accepted: int
    duplicates: int
    filtered: int
    bad: list[Bad]
    made_ids: list[str]
    tenants: list[TenantOutcome]
    results: list[EventResult] = field(default_factory=list)


class EventResult(msgspec.Struct, omit_defaults=True):
    """One entry of ``?results=true``: what became of one event, or of a record that is none.

    Accepted and duplicate ones have ``id``, ``log`` (the tenant's handle until the answer is encoded) and ``index``; quarantined ones the ``code`` of the reason; filtered ones the
    ``filter``.
    """

    line: int
    outcome: Literal["accepted", "duplicate", "filtered", "quarantined"]
    id: str = ""
    log: str = ""
    index: int | None = None
    code: str = ""
    filter: str = ""


class InvalidBatchError(TerminalError):
    """Reject mode: some records are no events, so nothing was stored."""

    code = "events_invalid"

    def __init__(self, bad: list[Bad], *, is_unreadable: bool) -> None:
        super().__init__(f"{len(bad)} of the records are no events; nothing was stored")
        self.bad = bad
        self.is_unreadable = is_unreadable


class ConflictingLinesError(ConflictError):
    """Reject mode: ids were used before with other content, so nothing was stored. ``lines`` are theirs in the request."""

    def __init__(self, lines: list[int]) -> None:
        super().__init__("an id was used before with other content; nothing was stored")
        self.lines = lines


class ForbiddenTenantError(TerminalError):
    """The credential may not write to the tenant of an event, of a source, or of both."""

    code = "tenant_forbidden"


def problem_lines(bad: Sequence[Bad]) -> list[dict[str, Any]]:
    """The ``errors`` member of a problem document."""
    return [
        {"line": item.line, "pointer": item.error.pointer, "message": item.error.message, "code": item.error.code} for item in bad
    ]
