"""What all kinds share: the query, the group of an event, and the memory of groups, which is bounded.

The memory of a rule is one dictionary, tenant and group → what the kind keeps of it (plain JSON values), in the order of last use. Past
the bound the group that was quiet longest is forgotten and counted.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tallystick.alerts.rule import Rule
from tallystick.query.evaluate import Matcher, compile_query, values_at
from tallystick.query.fields import resolve_path
from tallystick.query.nodes import Node

Group = tuple[str, ...]
Memory = OrderedDict[Group, Any]
"""First the tenant, then the values of the rule's `group`."""

TEXT_MAX: Final = 256


class Seen(NamedTuple):
    """One event: decoded, received at ``at`` (Unix seconds), entry ``seq`` of the journal."""

    event: dict[str, Any]
    at: float
    seq: int


@dataclass(frozen=True, slots=True)
class Fired:
    """The rule holds for a group. ``seq``, the entry that decided it, makes it the same alert whenever the same events are judged again."""

    group: Group
    seq: int
    first_at: float
    last_at: float
    count: int
    ids: list[str]
    event: dict[str, Any] | None = None
    values: Sequence[str] = ()


class Judge:
    """One rule over one stream. Subclasses say what an event of a group means."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.matcher: Matcher = compile_query(rule.query)
        self._fields = [values_at(resolve_path(name, "group", f'"{name}"')) for name in rule.group]

    def nodes(self) -> Iterator[Node]:
        """The queries that may say anything about an event."""
        yield self.matcher.node

    def take(self, seen: Seen, memory: Memory) -> Fired | None:
        """Judge one event."""
        return self.note(self.group(seen.event), seen, memory) if self.matcher(seen.event) else None

    def note(self, group: Group, seen: Seen, memory: Memory) -> Fired | None:
        """The event belongs to the rule and the group."""
        raise NotImplementedError

    def due(self, now: float, memory: Memory) -> list[Fired]:
        """What fires because time went by."""
        return []

    def group(self, event: dict[str, Any]) -> Group:
        """The tenant and the first value of each field of the group; an absent one is the empty text."""
        return (event.get("tenant", ""), *(next(map(text_of, read(event)), "") for read in self._fields))


def remember(memory: Memory, group: Group, kept: Any) -> None:
    """Keep it as what was used last."""
    memory[group] = kept
    memory.move_to_end(group)


def text_of(value: Any) -> str:
    """A value as a short text: what is longer is a digest of itself."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= TEXT_MAX else "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def id_of(event: dict[str, Any]) -> str:
    return str(event.get("id", ""))
