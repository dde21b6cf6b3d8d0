"""What a transform of single events needs to work on batches."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.event import Event


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
        return [(position, made) for position, event in enumerate(events) for made in self.apply(event)]
