"""What msgspec leaves to us of the rules for single fields, for whole batches and for one event with its error.

`Incoming` is the event as a sender may write it: server fields have a type that nothing can fill, an actor may be plain
text, and patterns are left out, because one regular expression over all ids of a batch costs a tenth of one for each.

| code | meaning |
|---|---|
| ``event_not_object`` | the record is JSON, but no object |
| ``field_missing`` | `action`, `actor` or a member of a nested object is not there |
| ``key_unknown`` | a key that the event does not have, or that only the server sets |
| ``field_invalid`` | a value of the wrong type or form |
| ``event_too_large`` | more bytes than a canonical line may have |
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from msgspec import UNSET, Raw, UnsetType

from tallystick.errors import EventInvalidError
from tallystick.event import times
from tallystick.event.model import Actor, Change, Event, Ingest
from tallystick.event.strict import escape

ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}", re.ASCII)
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*+)*+")
_IDS = re.compile(r"(?:[A-Za-z0-9._:-]{1,128}\n)*+", re.ASCII)

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$(.*)`)?")
_AT = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


class Incoming(Event, kw_only=True):
    """An event as sent. Field order is that of `Event`."""

    v: UnsetType = UNSET
    id: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    received_at: UnsetType = UNSET
    action: str
    actor: Actor | str  # type: ignore[assignment]
    enrichment: UnsetType = UNSET
    source: UnsetType = UNSET
    raw: UnsetType = UNSET
    ingest: UnsetType = UNSET
    sealed: UnsetType = UNSET


class Settled(enum.Enum):
    """What `settle_fields` found: an event at fault, events that had to be changed, or all as they were said."""

    FAULT = enum.auto()
    CHANGED = enum.auto()
    AS_SAID = enum.auto()


def settle_fields(events: Sequence[Incoming]) -> Settled:
    """Check and normalise the fields of a batch in place. At a FAULT `check_fields` says which event's, and what."""
    ids = [event.id for event in events if event.id is not UNSET]
    if ids:
        joined = "\n".join(ids) + "\n"
        if joined.count("\n") != len(ids) or _IDS.fullmatch(joined) is None:
            return Settled.FAULT
    if not all(map(ACTION.fullmatch, {event.action for event in events})):
        return Settled.FAULT
    if not all(tenant is UNSET or TENANT.fullmatch(tenant) for tenant in {event.tenant for event in events}):
        return Settled.FAULT
    if any(not change.path.startswith("/") or "~" in change.path for change in _changes(events)):
        return Settled.FAULT
    named = [event for event in events if type(event.actor) is str]
    for event in named:
        if not event.actor:
            return Settled.FAULT
        event.actor = Actor(type="user", id=str(event.actor))
    times_settled = _settle_times([event for event in events if event.occurred_at is not UNSET])
    return Settled.CHANGED if named and times_settled is Settled.AS_SAID else times_settled


def check_fields(event: Incoming) -> None:
    """The same for one event. Raises EventInvalidError."""
    if event.id is not UNSET and not ID.fullmatch(event.id):
        raise _invalid("/id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    if event.tenant is not UNSET and not TENANT.fullmatch(event.tenant):
        raise _invalid("/tenant", "must be 1 to 63 characters of a-z 0-9 _ -, beginning with a letter or digit")
    if not ACTION.fullmatch(event.action):
        raise _invalid("/action", "must be 1 to 128 characters of A-Z a-z 0-9 _ . / : -, as in user.login")
    if event.metadata is not UNSET and not bytes(event.metadata).startswith(b"{"):
        raise _invalid("/metadata", "must be a JSON object")
    for number, change in enumerate(_changes([event])):
        if not POINTER.fullmatch(change.path):
            raise _invalid(f"/changes/{number}/path", f"must be a JSON Pointer, as in /{change.path or 'role'}")
    if type(event.actor) is str:
        if not event.actor:
            raise _invalid("/actor", "must not be empty")
        event.actor = Actor(type="user", id=event.actor)
    if event.occurred_at is not UNSET and _settle_times([event]) is Settled.FAULT:
        raise _invalid("/occurred_at", "must be an RFC 3339 time, as in 2026-03-04T10:00:00Z")


def explain(error: Exception) -> EventInvalidError:
    """What msgspec said of one record that is strict JSON, in our words: with code and JSON Pointer."""
    text = str(error)
    if unknown := _UNKNOWN.fullmatch(text):
        pointer = f"{_pointer(unknown[2])}/{escape(unknown[1])}"
        return EventInvalidError(
            f"the key `{unknown[1]}` is not known here; free data goes into `metadata`", pointer=pointer, code="key_unknown"
        )
    if missing := _MISSING.fullmatch(text):
        return EventInvalidError(f"`{missing[1]}` is missing", pointer=f"{_pointer(missing[2])}/{missing[1]}", code="field_missing")
    at = _AT.fullmatch(text)
    if at is None:
        return EventInvalidError("an event is a JSON object", code="event_not_object")
    pointer = _pointer(at[2])
    if "UnsetType" in at[1]:
        return EventInvalidError(f"`{pointer[1:]}` is set by the server; leave it out", pointer=pointer, code="key_unknown")
    return EventInvalidError(at[1][0].lower() + at[1][1:], pointer=pointer, code="field_invalid")


def change_values(event: Event) -> list[Raw]:
    """The values before and after, of all changes of one event."""
    values = [change.before for change in _changes([event]) if change.before is not UNSET]
    return values + [change.after for change in _changes([event]) if change.after is not UNSET]


def _changes(events: Sequence[Event]) -> list[Change]:
    return [change for event in events if event.changes is not UNSET for change in event.changes]


def _settle_times(events: Sequence[Event]) -> Settled:
    """Bring ``occurred_at`` of events that have one to the canonical form; odd ones get flags."""
    if not events:
        return Settled.AS_SAID
    claimed: list[str] = [event.occurred_at for event in events]  # type: ignore[misc]
    settled = times.normalize(claimed)
    if settled is claimed:
        return Settled.AS_SAID
    if settled is not None:
        for event, text in zip(events, settled, strict=True):
            event.occurred_at = text
        return Settled.CHANGED
    for event, text in zip(events, claimed, strict=True):
        parsed = times.parse_time(text)
        if parsed is None:
            return Settled.FAULT
        event.occurred_at = UNSET if parsed.text is None else parsed.text
        if parsed.flags:
            event.ingest = Ingest(flags=list(parsed.flags))
    return Settled.CHANGED


def _pointer(path: str | None) -> str:
    """``.targets[0].id`` as ``/targets/0/id``."""
    return "".join(f"/{name or number}" for name, number in _STEP.findall(path or ""))


def _invalid(pointer: str, rule: str) -> EventInvalidError:
    return EventInvalidError(f"`{pointer[1:]}` {rule}", pointer=pointer, code="field_invalid")
