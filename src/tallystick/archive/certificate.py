"""Deletion certificates: the `expiry` entries of a tenant's account tree (rules in `evidence.verify.absence`)."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tallystick.evidence.account import AccountLog
from tallystick.evidence.merkle import joined_root
from tallystick.evidence.origin import tree_dir
from tallystick.evidence.trees import TreeFiles

RANGES_MAX = 2_000
"""Ranges in one entry, which must stay below 65,535 bytes; a chunk with more has several."""

_EXPIRY = b'{"type":"expiry"'


class Leaving(msgspec.Struct, frozen=True):
    """A chunk on its way out. ``ranges``: (first, count) of the indexes that go; ``since``: the account tree's size before."""

    chunk_id: str
    stem: str
    handle: str
    tenant: str
    retention_class: str
    period: str
    policy: int
    at: str
    since: int
    size: int
    ranges: list[tuple[int, int]]

    @property
    def count(self) -> int:
        return sum(count for _, count in self.ranges)

    @property
    def parts(self) -> list[list[tuple[int, int]]]:
        """The ranges of each entry; one without ranges when all of the chunk is held."""
        return [self.ranges[start : start + RANGES_MAX] for start in range(0, max(len(self.ranges), 1), RANGES_MAX)]


def entries_of(leaving: Leaving, data_dir: Path, sealed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, entry) of each part. The id never changes, so that an entry handed over again is stored once."""
    tree = TreeFiles(tree_dir(data_dir, leaving.handle), sealed)
    try:
        for number, ranges in enumerate(leaving.parts, 1):
            hashes = b"".join(tree.hashes(0, first, count) for first, count in ranges)
            entry = {
                "type": "expiry",
                "at": leaving.at,
                "policy": leaving.policy,
                "class": leaving.retention_class,
                "period": leaving.period,
                "chunk": leaving.chunk_id,
                "part": [number, len(leaving.parts)],
                "count": sum(count for _, count in ranges),
                "ranges": ranges,
                "root": base64.b64encode(joined_root(hashes)).decode(),
            }
            yield f"expiry:{leaving.chunk_id}:{number}", entry
    finally:
        tree.close()


def key_entry(at: str, retention_class: str, month: str) -> tuple[str, dict[str, Any]]:
    """(id, entry) that says that the key of a month is gone."""
    entry = {"type": "expiry", "at": at, "class": retention_class, "month": month, "key": "destroyed"}
    return f"expiry:key:{retention_class}:{month}:{at}", entry


def sealed_parts(data_dir: Path, handle: str, since: int, size: int) -> set[tuple[str, int]]:
    """(chunk id, part) of the certificates between two sizes of a tenant's account tree. Raises IntegrityError, OSError."""
    return {(str(entry["chunk"]), int(entry["part"][0])) for entry in _expiries(data_dir, handle, since, size) if "chunk" in entry}


def expired_ranges(data_dir: Path, handle: str) -> list[tuple[int, int]]:
    """(first, count) of all that a tenant's certificates name, as the files of its account tree have them."""
    size = AccountLog(tree_dir(data_dir, f"{handle}/account")).count
    found = (entry.get("ranges", ()) for entry in _expiries(data_dir, handle, 0, size))
    return sorted((int(first), int(count)) for ranges in found for first, count in ranges)


def _expiries(data_dir: Path, handle: str, since: int, size: int) -> Iterator[dict[str, Any]]:
    log = AccountLog(tree_dir(data_dir, f"{handle}/account"), size)
    try:
        for first in range(since, size, 4096):
            for line in log.entries(first, min(4096, size - first)):
                if line.startswith(_EXPIRY):
                    yield msgspec.json.decode(line)
    finally:
        log.close()


def runs_of(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending indexes as (first, count) of each run without gaps."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and index == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs
