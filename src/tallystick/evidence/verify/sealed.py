"""Sealed groups: each opens with keys that are there, or an entry of the account says why not.

    SEALED    the keys of its person and its month are there
    ERASED    the person's key is gone, and an `erasure` entry with approvals by two owners names it
    EXPIRED   the month's key is gone, and an `expiry` entry says so
    MISSING   a key is gone and no entry explains it: a problem

An `erasure` entry is believed when two different owners approved it, no later than it was carried out, and its root is the tree hash over the
leaves that it names.
"""

from __future__ import annotations

import base64
from collections import Counter
from datetime import datetime
from typing import Any, Protocol

from tallystick.evidence.merkle import joined_root
from tallystick.evidence.verify.lines import EventTree
from tallystick.evidence.verify.report import Report

_OWNERS = 2


class SealedKeys(Protocol):
    """Which keys are there."""

    def has_person(self, skid: str) -> bool: ...

    def has_month(self, handle: str, retention_class: str, month: str) -> bool: ...


class Erased:
    """What one tenant's account says of keys that are gone."""

    def __init__(self) -> None:
        self.people: dict[str, tuple[int, dict[str, Any], str]] = {}
        self.months: dict[tuple[str, str], int] = {}

    def take(self, number: int, entry: dict[str, Any], place: str, report: Report) -> None:
        """Check entry ``number`` of the account tree; most say nothing of keys."""
        if entry["type"] == "expiry" and "key" in entry:
            self.months[str(entry.get("class")), str(entry.get("month"))] = number
        elif entry["type"] == "erasure":
            reason = _doubt(entry)
            if reason:
                report.fail(f"an erasure is not plausible: {reason}", place)
            else:
                self.people[str(entry["subject"])] = number, entry, place


def check_sealed(handle: str, tree: EventTree, erased: Erased, keys: SealedKeys, report: Report) -> Counter[str]:
    """Verdicts over the groups that were seen in ``tree``, with their number; MISSING ones are problems, ERASED and EXPIRED are listed."""
    verdicts: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for (skid, retention_class, month), count in sorted(tree.groups.items()):
        if not keys.has_person(skid):
            found = erased.people.get(skid)
            verdict = "MISSING" if found is None else f"ERASED (by entry {found[0]})"
        elif not keys.has_month(handle, retention_class, month):
            expired = erased.months.get((retention_class, month))
            verdict = "MISSING" if expired is None else f"EXPIRED (by entry {expired})"
        else:
            verdict = "SEALED"
        verdicts[verdict.partition(" ")[0]] += count
        gone[verdict] += count
        if verdict == "MISSING":
            report.fail(f"the key of {count} sealed groups of {skid} is gone, and no entry says why", tree.head.origin)
    for verdict, count in sorted(gone.items()):
        if verdict.startswith(("ERASED", "EXPIRED")):
            report.excused.append(f"{tree.head.origin}: {count} sealed groups {verdict}")
    for _, entry, place in erased.people.values():
        _check_root(tree, entry, place, report)
    return verdicts


def _doubt(entry: dict[str, Any]) -> str:
    try:
        at = datetime.fromisoformat(entry["at"])
        approvals = [(str(one["owner"]), datetime.fromisoformat(one["at"])) for one in entry["approvals"]]
        ranges = [(int(first), int(count)) for first, count in entry["ranges"]]
    except (KeyError, TypeError, ValueError) as error:
        return f"it cannot be read: {error}"
    if len({owner for owner, _ in approvals}) < _OWNERS:
        return "it has no approvals by two different owners"
    if any(when > at for _, when in approvals):
        return "it was carried out before it was approved"
    if not isinstance(entry.get("subject"), str) or any(first < 0 or count < 1 for first, count in ranges):
        return "it cannot be read: its person or its ranges"
    return ""


def _check_root(tree: EventTree, entry: dict[str, Any], place: str, report: Report) -> None:
    ranges = [(int(first), int(count)) for first, count in entry["ranges"]]
    if sum(count for _, count in ranges) != entry["count"] or any(first + count > tree.size for first, count in ranges):
        return  # more ranges than an entry holds, or not all sealed yet
    hashes = b"".join(tree.tree.hashes(0, first, count) for first, count in ranges)
    if base64.b64encode(joined_root(hashes)).decode() != entry.get("root"):
        report.fail("an erasure is not plausible: its root is not that of the leaves it names", place)
