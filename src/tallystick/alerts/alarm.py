"""Alarms: what is wrong with the pipeline itself, as events that are raised and cleared. Pure.

`/v1/status` says at every moment what is wrong. Here it becomes two events a trouble, one when it has lasted and one when it has been
over for a while (`tallystick.alarm.raised`, `tallystick.alarm.cleared`, in the server's own log), which destinations bring to people:

1. `conditions` reads a status page: each condition has a name that stays the same while its words change.
2. A condition that lasts for ``raise_after`` is raised; a raised one that is absent for ``clear_after`` is cleared. What comes and
   goes faster is no event. Waiting is by the process's own clock: after a restart it begins anew.
3. Each change has a number, and its event an id made of it. The event is stored, whole, beside the new state before it is handed over
   (`AlarmState.owed`), so that a repeat after a crash is the same event and the intake stores it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

RAISED: Final = "tallystick.alarm.raised"
CLEARED: Final = "tallystick.alarm.cleared"
_REASON_MAX = 2_000
_KNOWN_MAX = 1_000
_SEVERITIES: Final = {"intake": 5, "scrub": 5, "hold": 2, "review": 2, "configuration": 3, "source": 3}
_OTHERS: Final = 4


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In seconds; ``lag_s``: how old the oldest pending event of a destination may be. ``dead_letters``: how many new ones are an alarm."""

    raise_after_s: float
    clear_after_s: float
    lag_s: float
    dead_letters: int


class Raised(msgspec.Struct):
    """An alarm that stands. ``since``: when its condition was first seen."""

    since: str
    reason: str
    severity: int


class AlarmState(msgspec.Struct):
    """What has to outlive the process. ``letters``: dead letters of each destination that an alarm has told of, or that were there."""

    number: int = 0
    raised: dict[str, Raised] = {}
    letters: dict[str, int] = {}
    owed: list[dict[str, Any]] = []


def conditions(status: Mapping[str, Any], known_letters: Mapping[str, int], thresholds: Thresholds) -> dict[str, str]:
    """Name → what is wrong now, in words. Reasons of a status page begin with what they are about."""
    found: dict[str, list[str]] = {}
    for reason in status["reasons"]:
        name, _, text = str(reason).partition(": ")
        found.setdefault(name[:120], []).append(text or name)
    for name, row in status["destinations"].items():
        if row["state"] == "paused":
            found.setdefault(f"destination {name}", []).append("paused by an operator")
        if row["pending"] and row["lag_seconds"] > thresholds.lag_s:
            found[f"destination {name} lags"] = [f"{row['pending']} events wait, the oldest for more than {thresholds.lag_s:.0f} s"]
        fresh = row["dead_lettered"] - known_letters.get(name, row["dead_lettered"])
        if fresh >= thresholds.dead_letters:
            found[_letters_of(name)] = [f"{fresh} more events were refused for good"]
    return {name: "; ".join(texts)[:_REASON_MAX] for name, texts in sorted(found.items())}


def _letters_of(destination: str) -> str:
    return f"destination {destination} dead letters"


@dataclass
class Alarms:
    """The state and what is being waited for. ``state`` is to be saved when `look` says that it changed, before anything is handed over."""

    thresholds: Thresholds
    state: AlarmState = field(default_factory=AlarmState)
    _present: dict[str, tuple[float, str]] = field(default_factory=dict)
    _absent: dict[str, float] = field(default_factory=dict)

    def look(self, status: Mapping[str, Any], now: float, at: str) -> bool:
        """Take one page, seen at ``now`` (seconds of a clock that only goes on) and ``at`` (RFC 3339). True: ``state`` changed."""
        is_changed = self._learn_letters(status)
        found = conditions(status, self.state.letters, self.thresholds)
        for name in [name for name in self._present if name not in found]:
            del self._present[name]
        for name, text in found.items():
            self._absent.pop(name, None)
            since, first = self._present.setdefault(name, (now, at))
            is_due = now - since >= self.thresholds.raise_after_s
            if name not in self.state.raised and is_due and len(self.state.raised) < _KNOWN_MAX:
                self._raise(name, first, text, at)
                is_changed = True
        is_changed = self._tell_letters(status, found) or is_changed
        for name in [name for name in self.state.raised if name not in found]:
            if now - self._absent.setdefault(name, now) >= self.thresholds.clear_after_s:
                self._clear(name, at)
                is_changed = True
        return is_changed

    def _learn_letters(self, status: Mapping[str, Any]) -> bool:
        """Dead letters of a destination that is seen first are no news."""
        counts = {name: row["dead_lettered"] for name, row in status["destinations"].items() if row["state"] != "unknown"}
        fresh = {
            name: count for name, count in counts.items() if name not in self.state.letters or count < self.state.letters[name]
        }
        self.state.letters |= fresh
        return bool(fresh)

    def _tell_letters(self, status: Mapping[str, Any], found: Mapping[str, str]) -> bool:
        """Those of a standing alarm count as told: it clears when no more of them come."""
        told = [name for name in status["destinations"] if (alarm := _letters_of(name)) in found and alarm in self.state.raised]
        self.state.letters |= {name: status["destinations"][name]["dead_lettered"] for name in told}
        return bool(told)

    def _raise(self, name: str, since: str, text: str, at: str) -> None:
        severity = _SEVERITIES.get(name.partition(" ")[0], _OTHERS)
        self.state.raised[name] = Raised(since, text, severity)
        self._owe(RAISED, name, self.state.raised[name], at)

    def _clear(self, name: str, at: str) -> None:
        self._absent.pop(name, None)
        self._owe(CLEARED, name, self.state.raised.pop(name), at)

    def _owe(self, action: str, name: str, alarm: Raised, at: str) -> None:
        self.state.number += 1
        whose = hashlib.sha256(f"{name}\0{self.state.number}\0{at}".encode("utf-8", "surrogatepass")).hexdigest()
        self.state.owed.append(
            {
                "id": f"alarm:{whose[:32]}",
                "occurred_at": at,
                "action": action,
                "category": "system",
                "severity": alarm.severity,
                "actor": {"type": "system", "id": "tallystick", "name": "Tallystick"},
                "targets": [{"type": "alarm", "id": name, "name": name}],
                "outcome": "failure" if action == RAISED else "success",
                "reason": alarm.reason,
                "metadata": {"alarm": name, "since": alarm.since},
            }
        )
