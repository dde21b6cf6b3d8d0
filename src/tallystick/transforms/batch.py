"""What a transform of single events needs to work on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.plugin import NOTHING_KNOWN, BatchFacts

Predicate = Callable[[Mapping[str, Any]], bool]
CompileQuery = Callable[[str], Predicate]

_PART_EVENTS = 32
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def plain(event: Event) -> dict[str, Any]:
    """The event as plain values, as queries and functions see it."""
    found: dict[str, Any] = _decode(_encode(event))
    return found


class EachEvent:
    """Base of transforms that look at one event at a time."""

    name: str

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any event may change or go; False, told cheaply for a whole batch, leaves it as it is."""
        return True

    def apply(self, event: Event) -> list[Event]:
        """The events that go on in place of this one. Raises EventInvalidError: its record goes to the quarantine."""
        raise NotImplementedError

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes] = (), about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """What goes on, each with the position it came from; None when the batch stays as it is.

        ``contents`` are the records as sent, for transforms that would rather search those.
        """
        if not self.may_apply(events):
            return None
        found: list[tuple[int, Event | EventInvalidError]] = []
        for start in range(0, len(events), _PART_EVENTS):
            part = events[start : start + _PART_EVENTS]
            if len(part) < len(events) and not self.may_apply(part):  # one event in a batch costs its neighbours, not all
                found += enumerate(part, start)
                continue
            for position, event in enumerate(part, start):
                try:
                    found += [(position, made) for made in self.apply(event)]
                except EventInvalidError as error:
                    found.append((position, error))
        return found


class ChosenEvents(EachEvent):
    """Base of transforms that change those events that a query chooses; all without one."""

    def __init__(self, name: str, where: str | None, compile_query: CompileQuery) -> None:
        self.name = name
        self._chooses = compile_query(where) if where is not None else None

    def apply(self, event: Event) -> list[Event]:
        """The event changed, or as it is when the query does not choose it."""
        if self._chooses is not None and not self._chooses(plain(event)):
            return [event]
        return self.change(event)

    def change(self, event: Event) -> list[Event]:
        """The events that go on in place of a chosen one. Raises EventInvalidError."""
        raise NotImplementedError
