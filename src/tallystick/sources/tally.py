"""What each source took in since the start, for metrics and status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter

from tallystick.rates import Rate
from tallystick.sources.submission import Outcome

_ACCEPTED = Counter("tallystick_events_accepted", "Events made durable.", ["source"])
_DUPLICATES = Counter(
    "tallystick_events_duplicate", "Events that were stored before and answered with their first position.", ["source"]
)
_FILTERED = Counter("tallystick_events_filtered", "Events held back at intake by a named filter.", ["source"])
_QUARANTINED = Counter("tallystick_records_quarantined", "Records kept in the quarantine.", ["source"])


@dataclass(slots=True)
class SourceTally:
    """Counts of one source since the start; ``rate`` is of accepted events, ``last_at`` the received time of its last request, empty before one."""

    type: str
    accepted: int = 0
    duplicates: int = 0
    filtered: int = 0
    quarantined: int = 0
    last_at: str = ""
    rate: Rate = field(default_factory=Rate)
    _counters: tuple[Any, ...] = field(default=())


class SourceTallies:
    """One tally per source. Counts per request, not per event."""

    def __init__(self, sources: Iterable[tuple[str, str]]) -> None:
        self._tallies: dict[str, SourceTally] = {}
        self.meet(sources)

    def meet(self, sources: Iterable[tuple[str, str]]) -> None:
        """From now on these are the sources (name, type); those that were there before go on counting."""
        before, self._tallies = self._tallies, {}
        for name, kind in sources:
            known = before.get(name)
            if known is not None and known.type == kind:
                self._tallies[name] = known
            else:
                self.add(name, kind)

    def add(self, name: str, kind: str) -> None:
        """Count for one more source."""
        counters = (_ACCEPTED.labels(name), _DUPLICATES.labels(name), _FILTERED.labels(name), _QUARANTINED.labels(name))
        self._tallies[name] = SourceTally(kind, _counters=counters)

    def count(self, source: str, outcome: Outcome) -> None:
        """Add one durable request."""
        self.note(source, outcome.received_at, outcome.accepted, outcome.duplicates, outcome.filtered, len(outcome.bad))

    def note(self, source: str, received_at: str, *numbers: int) -> None:
        """Add one durable request: accepted, duplicates, filtered, quarantined."""
        tally = self._tallies.get(source)
        if tally is None:
            return  # committed under a configuration that is no longer in force
        for counter, number in zip(tally._counters, numbers, strict=True):
            if number:
                counter.inc(number)
        accepted, duplicates, filtered, quarantined = numbers
        tally.accepted += accepted
        tally.rate.add(accepted)
        tally.duplicates += duplicates
        tally.filtered += filtered
        tally.quarantined += quarantined
        tally.last_at = received_at

    def last_at(self, source: str) -> str:
        """When its last request was received; empty before one."""
        tally = self._tallies.get(source)
        return tally.last_at if tally is not None else ""

    def page(self) -> dict[str, dict[str, Any]]:
        """The counts by source, as status shows them."""
        return {
            name: {
                "type": tally.type,
                "accepted": tally.accepted,
                "duplicates": tally.duplicates,
                "filtered": tally.filtered,
                "quarantined": tally.quarantined,
                "last_at": tally.last_at or None,
                "rate": tally.rate.per_second(),
            }
            for name, tally in self._tallies.items()
        }


class TalliedByWriter(SourceTallies):
    """In an intake worker: the writer counts what it commits for it, so that the sums are in one place and outlive the worker."""

    def count(self, source: str, outcome: Outcome) -> None:
        """Counted already."""
