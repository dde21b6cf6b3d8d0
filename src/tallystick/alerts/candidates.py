"""Which rules may say anything about an event of an action: found once for each action, then looked up.

A query is judged with nothing known but the action: it holds, it fails, or that depends on the rest. Rules that fail are passed over for
every event of that action, so a thousand rules cost an event what the few cost that are about it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from tallystick.alerts.kinds import Judge
from tallystick.query.nodes import And, Field, Node, Not, Or
from tallystick.query.values import predicate

ACTIONS_MAX: Final = 10_000


class Candidates:
    """`of(action)` are the judges, by number, whose rules may match an event of it."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self._nodes = [tuple(judge.nodes()) for judge in judges]
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def of(self, action: str) -> tuple[int, ...]:
        known = self._known.get(action)
        if known is None:
            known = tuple(
                number for number, nodes in enumerate(self._nodes) if any(holds(node, action) is not False for node in nodes)
            )
            self._known[action] = known
            if len(self._known) > ACTIONS_MAX:
                self._known.popitem(last=False)
        return known


def holds(node: Node, action: str) -> bool | None:
    """Whether the query holds for every event of the action (True), for none (False), or for some (None)."""
    match node:
        case And(items):
            told = [holds(item, action) for item in items]
            return False if False in told else None if None in told else True
        case Or(items):
            told = [holds(item, action) for item in items]
            return True if True in told else None if None in told else False
        case Not(item):
            inner = holds(item, action)
            return None if inner is None else not inner
        case Field(("action",), test):
            return predicate(test)(action)
    return None
