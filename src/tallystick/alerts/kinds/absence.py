"""`absence`: a group of which events came has had none for the length of the window.

A group is watched from its first event on, and an alert ends the watch: the next event begins it again.
"""

from __future__ import annotations

from tallystick.alerts.kinds.judge import Fired, Group, Judge, Memory, Seen, id_of, remember


class Absence(Judge):
    """Keeps time, number and id of a group's last event: [at, seq, id]."""

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        late = None
        if (last := memory.get(group)) is not None and seen.at - last[0] > self.rule.window_s:
            late = self._fired(group, last)  # nobody looked in between
        remember(memory, group, [seen.at, seen.seq, id_of(seen.event)])
        return late

    def due(self, now: float, memory: Memory) -> list[Fired]:
        over = []
        # In the order of last use: behind the first that is not due, none is.
        for group, last in memory.items():
            if now - last[0] <= self.rule.window_s:
                break
            over.append(self._fired(group, last))
        for fired in over:
            del memory[fired.group]
        return over

    def _fired(self, group: Group, last: list[float | int | str]) -> Fired:
        at = float(last[0])
        return Fired(group, int(last[1]), at, at + self.rule.window_s, 0, [str(last[2])])
