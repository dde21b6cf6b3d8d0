"""`distinct`: `count` different values of a field within the window, in one group."""

from __future__ import annotations

from typing import Any

from tallystick.alerts.kinds.judge import Fired, Group, Judge, Memory, Seen, id_of, remember, text_of
from tallystick.alerts.rule import Rule
from tallystick.query.evaluate import values_at
from tallystick.query.fields import resolve_path


class Distinct(Judge):
    """Keeps the last time and event id of each value of a group: {value: [at, id]}. Fewer than `count` values are ever kept."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        name = rule.field or ""
        self._values = values_at(resolve_path(name, "field", f'"{name}"'))

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        values = [text_of(value) for value in self._values(seen.event)]
        if not values:
            return None
        oldest = seen.at - self.rule.window_s
        kept: dict[str, Any] = {value: one for value, one in memory.get(group, {}).items() if one[0] > oldest}
        remember(memory, group, kept)
        for value in values:
            kept[value] = [seen.at, id_of(seen.event)]
            if len(kept) >= (self.rule.count or 0):
                break
        if len(kept) < (self.rule.count or 0):
            return None
        del memory[group]
        first = min(one[0] for one in kept.values())
        ids = list(dict.fromkeys(one[1] for one in kept.values()))
        return Fired(group, seen.seq, first, seen.at, len(kept), ids, seen.event, sorted(kept))
