"""`sequence`: an event of `query`, and within the window one of `then`, in one group. One first event is good for one alert."""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.alerts.kinds.judge import Fired, Judge, Memory, Seen, id_of, remember
from tallystick.alerts.rule import Rule
from tallystick.query.evaluate import compile_query
from tallystick.query.nodes import Node


class Sequence(Judge):
    """Keeps time and id of a group's last first event: [at, id]."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self._then = compile_query(rule.then or "")

    def nodes(self) -> Iterator[Node]:
        yield from super().nodes()
        yield self._then.node

    def take(self, seen: Seen, memory: Memory) -> Fired | None:
        is_first, is_then = self.matcher(seen.event), self._then(seen.event)
        if not is_first and not is_then:
            return None
        group = self.group(seen.event)
        fired = None
        if is_then and (first := memory.pop(group, None)) is not None and seen.at - first[0] <= self.rule.window_s:
            fired = Fired(group, seen.seq, first[0], seen.at, 2, [first[1], id_of(seen.event)], seen.event)
        if is_first:
            remember(memory, group, [seen.at, id_of(seen.event)])
        return fired
