"""What a mapping makes of records: the shares that count, and what it left lying.

For whoever writes a mapping, or trusts one: how many records became events, in how many an action, an actor, a target, an outcome, a
time and an address was found, which actions fell under no rule of its `[[dispatch]]`, which members of the records nobody
asked for, and which texts were no times.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from tallystick.errors import ConfigError
from tallystick.event import Event
from tallystick.transforms.mapping import Mapping, MapResult

FIELDS = ("action", "actor", "target", "outcome", "time", "ip")
MOST = 20
_TRIED = 50
_CLAIMED = "time_claimed:"
_NOBODY = "unknown"


@dataclass(slots=True)
class Report:
    """One mapping over any number of records. Counts are records (mapped or not), members by their path's first two names."""

    mapping: Mapping
    mapped: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    unsorted: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    bad_times: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        return self.mapped + self.problems.total()

    def share(self, name: str) -> float | None:
        """Per cent of the mapped records in which the field was found; None without any."""
        return round(100 * self.found[name] / self.mapped, 1) if self.mapped else None

    def add(self, result: MapResult) -> None:
        self.problems.update(problem.code for problem in result.problems)
        for event in result.events:
            self._count(event)

    def document(self) -> dict[str, Any]:
        """The report as JSON; lists hold the `MOST` frequent."""
        lists = {"unsorted_actions": self.unsorted, "unused": self.unused, "bad_times": self.bad_times}
        return {
            "mapping": self.mapping.name,
            "records": self.records,
            "mapped": self.mapped,
            "mapped_percent": round(100 * self.mapped / self.records, 1) if self.records else None,
            "found_percent": {name: self.share(name) for name in FIELDS},
            "problems": dict(self.problems),
            "actions": len(self.actions),
            **{name: dict(counts.most_common(MOST)) for name, counts in lists.items()},
        }

    def _count(self, event: Event) -> None:
        self.mapped += 1
        self.actions[event.action] += 1
        context = event.context
        is_found = {
            "action": not event.action.endswith(".record"),
            "actor": event.actor.id not in (UNSET, "", _NOBODY),
            "target": event.targets is not UNSET and bool(event.targets),
            "outcome": event.outcome != "unknown",
            "time": event.occurred_at is not UNSET,
            "ip": context is not UNSET and context.ip is not UNSET,
        }
        self.found.update(name for name, is_there in is_found.items() if is_there)
        if event.category is UNSET:
            self.unsorted[event.action] += 1
        if event.metadata is not UNSET:
            members = _paths(msgspec.json.decode(event.metadata))
            self.unused.update(path for path in members if not self.mapping.asks_for(path))
        flags = event.ingest.flags if event.ingest is not UNSET else UNSET
        if flags is not UNSET:
            self.bad_times.update(flag.removeprefix(_CLAIMED) for flag in flags if flag.startswith(_CLAIMED))


def report(mapping: Mapping, records: Sequence[bytes], into: Report | None = None) -> Report:
    """What ``mapping`` makes of records, which may be containers; added to ``into`` if given."""
    made = into or Report(mapping)
    for record in records:
        made.add(mapping.map(record, keep_raw=False))
    return made


def best_mapping(mappings: Sequence[Mapping], records: Sequence[bytes]) -> Mapping:
    """The one that makes most events of the first records and is the most particular about what it takes."""

    def fits(mapping: Mapping) -> tuple[float, int]:
        tried = report(mapping, records[:_TRIED])
        return (tried.mapped / tried.records if tried.records else 0.0, mapping.particularity)

    return max(mappings, key=fits)


def read_records(path: Path) -> list[bytes]:
    """The records of a file: one JSON document, or one record a line; ``.gz`` is opened. Raises ConfigError when it cannot be read."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise ConfigError(f"cannot be read: {getattr(error, 'strerror', None) or error}", place=str(path)) from error
    if data[:1] in (b"{", b"["):
        try:
            msgspec.json.decode(data)
        except msgspec.DecodeError:
            pass  # one record a line, then
        else:
            return [data]
    return [line for line in data.splitlines() if line.strip()]


def _paths(members: Any) -> Iterator[str]:
    for name, value in members.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name
