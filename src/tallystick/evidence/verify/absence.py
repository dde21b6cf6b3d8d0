"""Leaves without a line: declared lost, excused by an expiry that stands to reason, or a problem.

An `expiry` entry of the account tree is a deletion certificate: ``{"type":"expiry","salt","at","policy","class","period","chunk",
"count","ranges":[[first, count], …],"root"}``. It is believed when

1. ``policy`` is the index of a `policy` entry of the root log that gave that tenant and class that period, and no later one had been in
   force for `PATIENCE` when it was carried out;
2. the events were sealed at least the period before ``at``: the root log's heartbeats around their first quoted head say so;
3. the root log quoted the account tree with this entry no earlier than ``at`` (it was not written ahead of its time);
4. ``root``, where it is given, is the tree hash over the leaves that it names.

An entry with ``key`` in place of ranges says that the key of a month was destroyed; it excuses nothing.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any

from tallystick.config.units import Duration
from tallystick.evidence.entry import is_lost
from tallystick.evidence.merkle import joined_root
from tallystick.evidence.verify.lines import EventTree
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import RootView

PATIENCE = timedelta(minutes=5)
"""How long the archive may take to notice a new policy."""


class Excuses:
    """The believed expiries of one tenant. ``chunks``: hexadecimal ids of the chunks that they let go."""

    def __init__(self, name: str, view: RootView) -> None:
        self._name = name
        self._view = view
        self._ranges: list[tuple[int, int]] = []
        self._is_sorted = True
        self.chunks: set[str] = set()
        self.roots: list[tuple[list[tuple[int, int]], str, str]] = []

    def take(self, number: int, entry: dict[str, Any], place: str, report: Report) -> None:
        """Check entry ``number`` of the account tree; other types than `expiry` excuse nothing."""
        if entry["type"] != "expiry" or "key" in entry:
            return
        try:
            ranges = [(int(first), int(count)) for first, count in entry["ranges"]]
            if any(first < 0 or count < 1 for first, count in ranges):
                raise ValueError("a range is empty or negative")
            reason = self._doubt(number, entry, max(first + count - 1 for first, count in ranges)) if ranges else ""
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it cannot be read: {error}"
        if reason:
            report.fail(f"an expiry is not plausible: {reason}", place)
            return
        self._ranges += ranges
        self._is_sorted = False
        self.chunks.add(str(entry.get("chunk", "")))
        if "root" in entry:
            self.roots.append((ranges, str(entry["root"]), place))

    def covers(self, first: int, count: int) -> bool:
        """True when believed expiries cover every index of the range."""
        return not self.rest(first, count)

    def rest(self, first: int, count: int) -> list[tuple[int, int]]:
        """The parts (first, count) of a range that no believed expiry covers."""
        ranges, at, end, found = self._sorted(), first, first + count, []
        place = max(bisect_right(ranges, (first, 1 << 62)) - 1, 0)
        while at < end and place < len(ranges) and ranges[place][0] < end:
            start, stop = ranges[place][0], sum(ranges[place])
            if start > at:
                found.append((at, start - at))
            at, place = max(at, stop), place + 1
        return [*found, (at, end - at)] if at < end else found

    def _sorted(self) -> list[tuple[int, int]]:
        """The ranges, those that touch or overlap made one."""
        if not self._is_sorted:
            merged: list[tuple[int, int]] = []
            for first, count in sorted(self._ranges):
                if merged and first <= sum(merged[-1]):
                    merged[-1] = (merged[-1][0], max(sum(merged[-1]), first + count) - merged[-1][0])
                else:
                    merged.append((first, count))
            self._ranges, self._is_sorted = merged, True
        return self._ranges

    def _doubt(self, number: int, entry: dict[str, Any], last_index: int) -> str:
        at = datetime.fromisoformat(entry["at"])
        period = self._view.period(self._name, entry["class"], int(entry["policy"]))
        if period is None or period != entry["period"]:
            return f"the period in force for class {entry['class']!r} was {period or 'none'}, not {entry['period']}"
        later = self._view.next_policy(int(entry["policy"]))
        if later is not None and datetime.fromisoformat(later) + PATIENCE < at:
            return f"it was carried out at {entry['at']} under a policy that was replaced at {later}"
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
    _check_roots(tree, excuses, report)
    for first, count in tree.unseen():
        hashes = tree.tree.hashes(0, first, count)
        lost = [place for place in range(count) if is_lost(first + place, hashes[32 * place : 32 * place + 32])]
        if lost:
            text = f"{len(lost)} events were lost by the disk and declared so: indexes {first + lost[0]} to {first + lost[-1]}"
            report.fail(text, origin)
        if len(lost) == count or not is_complete:
            continue
        rest = [part for part in excuses.rest(first, count) if not _are_lost(part, first, lost)]
        if not rest:
            report.excused.append(f"{origin}: indexes {first} to {first + count - 1} expired")
        for start, length in rest:
            report.fail(f"no line is there for the indexes {start} to {start + length - 1}, and no entry excuses it", origin)


def _are_lost(part: tuple[int, int], first: int, lost: list[int]) -> bool:
    return len(lost) > 0 and set(range(part[0] - first, part[0] - first + part[1])) <= set(lost)


def _check_roots(tree: EventTree, excuses: Excuses, report: Report) -> None:
    """Rule 4, which needs the tree."""
    for ranges, root, place in excuses.roots:
        if ranges and max(first + count for first, count in ranges) <= tree.size:
            hashes = b"".join(tree.tree.hashes(0, first, count) for first, count in ranges)
            if base64.b64encode(joined_root(hashes)).decode() != root:
                report.fail("an expiry is not plausible: its root is not that of the leaves it names", place)
