"""`match`: every event that the query matches."""

from __future__ import annotations

from tallystick.alerts.kinds.judge import Fired, Group, Judge, Memory, Seen, id_of


class Match(Judge):
    """Keeps nothing."""

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        return Fired(group, seen.seq, seen.at, seen.at, 1, [id_of(seen.event)], seen.event)
