"""What of an event is walked through, and what it means when a value of it has to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.event import Event, Redaction
from tallystick.transforms.redact.walk import KEY_RULE, Walk, encode

_ACTOR_TEXTS = ("id", "name", "email", "credential")


def redact_event(event: Event, walk: Walk) -> None:
    """Take out of ``event`` what ``walk`` finds in it."""
    texts = (event.reason, event.actor, event.on_behalf_of, event.targets, event.context)
    if walk.may_hold(encode([one for one in texts if one is not UNSET])):
        _redact_texts(event, walk)
    if event.metadata is not UNSET:
        made = walk.value(bytes(event.metadata), "/metadata")
        event.metadata = UNSET if made is None else Raw(made)
    if event.raw is not UNSET:
        event.raw = _redact_raw(event.raw, walk)
    if event.changes is not UNSET:
        _redact_changes(event, walk)


def _redact_texts(event: Event, walk: Walk) -> None:
    """Every free text of the event that is no JSON value. An id cannot go: it is masked where others are dropped."""
    for owner, place, names in _owners(event):
        for name in names:
            text = getattr(owner, name)
            if text is not UNSET and walk.may_be_in(text):
                kept = walk.text(text, f"{place}/{name}", name)
                setattr(owner, name, kept if kept is not None else "[REDACTED]" if name == "id" else UNSET)


def _owners(event: Event) -> Iterator[tuple[Any, str, tuple[str, ...]]]:
    """What has such texts, where it is, and their names."""
    yield event, "", ("reason",)
    yield event.actor, "/actor", _ACTOR_TEXTS
    for number, one in enumerate(event.on_behalf_of or ()):
        yield one, f"/on_behalf_of/{number}", _ACTOR_TEXTS
    for number, target in enumerate(event.targets or ()):
        yield target, f"/targets/{number}", ("id", "name", "owner")
    if event.context is not UNSET:
        yield event.context, "/context", ("user_agent", "session_id", "request_id", "location")


def _redact_raw(raw: str, walk: Walk) -> str | UnsetType:
    text = raw.strip()
    if text.startswith(("{", "[")):
        try:
            made = walk.value(text.encode(), "/raw")
        except (msgspec.MsgspecError, RecursionError):
            pass  # only looks like JSON: a text like any other
        else:
            return UNSET if made is None else raw if made == text.encode() else made.decode()
    if any(one.rule == KEY_RULE for one in walk.done):
        walk.done.append(Redaction(path="/raw", rule=KEY_RULE, action="drop"))
        return UNSET
    kept = walk.searched(raw, "/raw")
    return UNSET if kept is None else kept


def _redact_changes(event: Event, walk: Walk) -> None:
    for number, change in enumerate(event.changes or ()):
        key = change.path.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        is_secret = walk.keys.names_secret(key)
        count = len(walk.done)
        for side in ("before", "after"):
            value = getattr(change, side)
            if value is not UNSET:
                made = walk.value(bytes(value), f"/changes/{number}/{side}", is_secret=is_secret, key=key)
                setattr(change, side, UNSET if made is None else Raw(made))
        if len(walk.done) > count:
            change.masked = True
