"""What a transform of single events needs to work on batches."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.event import Event

_PART_EVENTS = 32


class EachEvent:
    """Base of transforms that look at one event at a time."""

    name: str

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any event may change or go; False, told cheaply for a whole batch, leaves it as it is."""
        return True

    def apply(self, event: Event) -> list[Event]:
        """The events that go on in place of this one."""
        raise NotImplementedError

    def apply_batch(self, events: Sequence[Event], contents: Sequence[bytes] = ()) -> list[tuple[int, Event]] | None:
        """What goes on, each with the position it came from; None when the batch stays as it is.

        ``contents`` are the records as sent, for transforms that would rather search those.
        """
        if not self.may_apply(events):
            return None
        found: list[tuple[int, Event]] = []
        for start in range(0, len(events), _PART_EVENTS):
            part = events[start : start + _PART_EVENTS]
            if len(part) < len(events) and not self.may_apply(part):  # one event in a batch costs its neighbours, not all
                found += enumerate(part, start)
                continue
            found += [(position, made) for position, event in enumerate(part, start) for made in self.apply(event)]
        return found
