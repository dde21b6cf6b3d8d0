"""What somebody's events have in common: hours of the day, places, sessions. Pure; over the events that are given, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_USUAL_SHARE = 0.9
HOURS_HEIGHT = 48.0


@dataclass(frozen=True, slots=True)
class Hour:
    """Events in one hour of the day (UTC), over all days. ``height`` is that of its bar."""

    hour: int
    count: int
    height: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where events came from. ``first`` and ``last`` are the times of its oldest and newest."""

    ip: str
    location: str
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session id. ``ips`` are the addresses that it was used from, in the order of their first use."""

    id: str
    first: str
    last: str
    count: int
    ips: tuple[str, ...]


def count_hours(events: Iterable[Mapping[str, Any]]) -> list[Hour]:
    """24 of them; none when no event has a time."""
    counts = Counter(moment.hour for event in events if (moment := _moment(event)) is not None)
    top = max(counts.values(), default=0)
    return [Hour(hour, counts[hour], round(counts[hour] / top * HOURS_HEIGHT, 1)) for hour in range(24)] if top else []


def usual_hours(hours: Sequence[Hour]) -> str:
    """The shortest stretch of the day, over midnight too, that has nine of ten events; in words, as in "08:00 to 17:00 UTC"."""
    total = sum(hour.count for hour in hours)
    if not total:
        return ""
    for length in range(1, 24):
        sums = [sum(hours[(start + step) % 24].count for step in range(length)) for start in range(24)]
        if max(sums) >= _USUAL_SHARE * total:
            start = sums.index(max(sums))
            return f"{start:02d}:00 to {(start + length) % 24:02d}:00 UTC"
    return "at all hours"


def list_places(events: Sequence[Mapping[str, Any]], limit: int = 10) -> list[Place]:
    """The most frequent first; ``events`` come newest first."""
    found: dict[tuple[str, str], list[str]] = {}
    for event in events:
        context = event.get("context") or {}
        key = (str(context.get("ip") or ""), str(context.get("location") or ""))
        if any(key):
            found.setdefault(key, []).append(_at(event))
    places = [Place(ip, location, len(times), times[-1], times[0]) for (ip, location), times in found.items()]
    return sorted(places, key=lambda place: (-place.count, place.ip))[:limit]


def list_sessions(events: Sequence[Mapping[str, Any]], limit: int = 20) -> list[SessionView]:
    """The newest first; ``events`` come newest first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        name = (event.get("context") or {}).get("session_id")
        if name:
            found.setdefault(str(name), []).append(event)
    return [_session(name, members) for name, members in list(found.items())[:limit]]


def _session(name: str, events: Sequence[Mapping[str, Any]]) -> SessionView:
    ips = [str(ip) for event in reversed(events) if (ip := (event.get("context") or {}).get("ip"))]
    return SessionView(name, _at(events[-1]), _at(events[0]), len(events), tuple(dict.fromkeys(ips)))


def _at(event: Mapping[str, Any]) -> str:
    return str(event.get("occurred_at") or event.get("received_at") or "")


def _moment(event: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(_at(event)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
