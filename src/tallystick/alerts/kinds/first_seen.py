"""`first_seen`: a combination of values of `group` that this tenant has not had before.

With `learn` the rule only takes note for so long after the tenant's first event, so that it does not call everything new. A
combination that was forgotten, because more came than are remembered, is new again.
"""

from __future__ import annotations

from tallystick.alerts.kinds.judge import Fired, Group, Judge, Memory, Seen, id_of, remember


class FirstSeen(Judge):
    """Keeps when a combination was seen last; under the tenant alone, when its first event came."""

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        tenant = group[:1]
        began = memory.setdefault(tenant, seen.at)
        memory.move_to_end(tenant)
        if all(value == "" for value in group[1:]):
            return None
        is_new = group not in memory
        remember(memory, group, seen.at)
        learn = self.rule.learn.seconds if self.rule.learn is not None else 0.0
        if not is_new or seen.at - began < learn:
            return None
        return Fired(group, seen.seq, seen.at, seen.at, 1, [id_of(seen.event)], seen.event)
