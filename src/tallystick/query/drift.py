"""What changed in the events of one source: members and actions that came, and those that went.

Two samples of events are compared by the paths of their members (RFC 6901 pointers, elements of lists as ``*``) and by their actions.
What the server adds to every event is left out. A path that only some events have may be missing from a small sample by chance, so each
line tells its share in the sample that has it, and those below `RARE` of it are left out of what went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

RARE = 0.01
_SERVERS = frozenset({"v", "id", "tenant", "received_at", "source", "ingest", "raw", "sealed", "action", "enrichment"})


@dataclass(slots=True)
class Sample:
    """Events counted by path and by action."""

    events: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)

    def add(self, event: Mapping[str, Any]) -> None:
        """Count one event, as the API gives it."""
        self.events += 1
        self.actions[event["action"]] += 1
        self.paths.update(
            {path for name, value in event.items() if name not in _SERVERS for path in _paths(f"/{_escape(name)}", value)}
        )


def compare(before: Sample, after: Sample) -> dict[str, Any]:
    """The report as a JSON document; shares are of the events of the sample that has the path or action."""
    return {
        "events_before": before.events,
        "events_after": after.events,
        "new_fields": _only(after.paths, before.paths, after.events),
        "vanished_fields": _only(before.paths, after.paths, before.events, RARE),
        "new_actions": _only(after.actions, before.actions, after.events),
        "vanished_actions": _only(before.actions, after.actions, before.events, RARE),
    }


def _only(here: Counter[str], there: Counter[str], events: int, least: float = 0.0) -> dict[str, float]:
    found = [(name, count / events) for name, count in here.most_common() if name not in there]
    return {name: round(share, 4) for name, share in found if share >= least}


def _paths(path: str, value: Any) -> Iterable[str]:
    """The paths of the leaves: values, and objects and lists without members."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _paths(f"{path}/{_escape(name)}", inner)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _paths(f"{path}/*", inner)
    else:
        yield path


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
