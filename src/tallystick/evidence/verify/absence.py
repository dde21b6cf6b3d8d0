"""Leaves without a line: declared lost, excused by an expiry that stands to reason, or a problem.

An `expiry` entry of the account tree names a retention class, its period, when it was carried out, and index ranges:
``{"type":"expiry","salt","at","class","period","ranges":[[first, count], …]}``. It is believed when

1. a `policy` entry of the root log gave that class that period, before the events were sealed or as the last one before;
2. the events were sealed at least the period before ``at``: the root log's heartbeats around their first quoted head say so;
3. the root log quoted the account tree with this entry no earlier than ``at`` (it was not written ahead of its time).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tallystick.config.units import Duration
from tallystick.evidence.entry import is_lost
from tallystick.evidence.verify.lines import EventTree
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import RootView


class Excuses:
    """The believed expiries of one tenant."""

    def __init__(self, name: str, view: RootView) -> None:
        self._name = name
        self._view = view
        self._ranges: list[tuple[int, int]] = []

    def take(self, number: int, entry: dict[str, Any], place: str, report: Report) -> None:
        """Check entry ``number`` of the account tree; other types than `expiry` excuse nothing."""
        if entry["type"] != "expiry":
            return
        try:
            ranges = [(int(first), int(count)) for first, count in entry["ranges"]]
            reason = self._doubt(number, entry, max(first + count - 1 for first, count in ranges))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it cannot be read: {error}"
        if reason:
            report.fail(f"an expiry is not plausible: {reason}", place)
        else:
            self._ranges += ranges

    def covers(self, first: int, count: int) -> bool:
        """True when believed expiries cover every index of the range."""
        at = first
        for start, length in sorted(self._ranges):
            if start <= at < start + length:
                at = start + length
        return at >= first + count

    def _doubt(self, number: int, entry: dict[str, Any], last_index: int) -> str:
        period = self._view.period(self._name, last_index, entry["class"])
        if period is None or period != entry["period"]:
            return f"the period in force for class {entry['class']!r} was {period or 'none'}, not {entry['period']}"
        at = datetime.fromisoformat(entry["at"])
        sealed = self._view.sealed_after(self._name, last_index)
        if sealed is None:
            return "the root log does not show when the events were sealed"
        if datetime.fromisoformat(sealed) + timedelta(seconds=Duration(period).seconds) > at:
            return f"the events were sealed after {sealed}, so {period} had not passed at {entry['at']}"
        quoted = self._view.sealed_before(f"{self._name}/account", number)
        if quoted is not None and datetime.fromisoformat(quoted) < at:
            return f"it was in the log at {quoted}, before the time {entry['at']} that it gives"
        return ""


def check_absences(tree: EventTree, excuses: Excuses, report: Report, *, is_complete: bool) -> None:
    """Every leaf without a line must be lost by declaration, or excused. ``is_complete``: all sources of lines were read."""
    origin = tree.head.origin
    for first, count in tree.unseen():
        hashes = tree.tree.hashes(0, first, count)
        lost = [place for place in range(count) if is_lost(first + place, hashes[32 * place : 32 * place + 32])]
        if lost:
            text = f"{len(lost)} events were lost by the disk and declared so: indexes {first + lost[0]} to {first + lost[-1]}"
            report.fail(text, origin)
        if len(lost) == count or not is_complete:
            continue
        if excuses.covers(first, count):
            report.excused.append(f"{origin}: indexes {first} to {first + count - 1} expired")
        else:
            report.fail(f"no line is there for the indexes {first} to {first + count - 1}, and no entry excuses it", origin)
