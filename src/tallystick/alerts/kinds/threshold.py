"""`threshold`: `count` events of one group within the window. What was counted for one alert does not count for the next."""

from __future__ import annotations

from tallystick.alerts.kinds.judge import Fired, Group, Judge, Memory, Seen, id_of, remember


class Threshold(Judge):
    """Keeps the last `count` - 1 times and ids of a group, oldest first: [[at, id], …]."""

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        kept: list[list[float | str]] = memory.get(group, [])
        oldest = seen.at - self.rule.window_s
        while kept and float(kept[0][0]) <= oldest:
            kept.pop(0)
        kept.append([seen.at, id_of(seen.event)])
        if len(kept) < (self.rule.count or 0):
            remember(memory, group, kept)
            return None
        memory.pop(group, None)
        return Fired(group, seen.seq, float(kept[0][0]), seen.at, len(kept), [str(one[1]) for one in kept], seen.event)
