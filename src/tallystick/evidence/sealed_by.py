"""How far each tree was sealed at a time in the past, as the root log bears it out: what `verify` will ask of an expiry.

A leaf counts as sealed by a time when the root log quoted a head over it and the last heartbeat before that quote is no later
than that time. So everything quoted before the first later heartbeat counts. The log is read forward once for each distance
from now that is asked about (there are as many as periods), and only what is new after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from tallystick.evidence.account import AccountLog
from tallystick.evidence.heads import Heads
from tallystick.evidence.origin import ROOT, tree_dir, tree_name

_PIECE = 4096


class _Entry(msgspec.Struct):
    type: str
    at: str = ""
    origin: str = ""
    note: str = ""


_decode = msgspec.json.Decoder(_Entry).decode


@dataclass(slots=True)
class _Scan:
    """``place``: the next entry of the root log; ``until``: the latest time asked for."""

    until: float
    place: int = 0
    has_heartbeat: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


class SealedBy:
    """One per process that asks; not thread-safe."""

    def __init__(self, data_dir: Path, heads: Heads) -> None:
        self._dir = tree_dir(data_dir, ROOT)
        self._heads = heads
        self._scans: dict[float, _Scan] = {}
        self._asked_size = -1

    def sizes(self, now: float, ago_s: float) -> dict[str, int]:
        """Sizes by tree name, as sealed ``ago_s`` before ``now`` (Unix seconds). Raises IntegrityError, OSError."""
        until = now - ago_s
        scan = self._scans.get(ago_s)
        if scan is None or until < scan.until:  # the clock was set back: what was read ahead must not count
            scan = self._scans[ago_s] = _Scan(until)
        elif until == scan.until and self._asked_size == self._root_size:
            return scan.sizes  # one look asks for many chunks
        scan.until, self._asked_size = until, self._root_size
        self._read(scan)
        return scan.sizes

    @property
    def _root_size(self) -> int:
        head = self._heads.state.heads.get(ROOT)
        return head.size if head is not None else 0

    def _read(self, scan: _Scan) -> None:
        size = self._root_size
        if scan.place >= size:
            return
        log = AccountLog(self._dir, size)
        try:
            while scan.place < size:
                for line in log.entries(scan.place, min(_PIECE, size - scan.place)):
                    if not _take(scan, _decode(line)):
                        return
                    scan.place += 1
        finally:
            log.close()


def _take(scan: _Scan, entry: _Entry) -> bool:
    """False at a heartbeat that is too late: it and what follows waits for a later time."""
    if entry.type == "heartbeat":
        if datetime.fromisoformat(entry.at).timestamp() > scan.until:
            return False
        scan.has_heartbeat = True
    elif entry.type == "checkpoint" and scan.has_heartbeat:
        scan.sizes[tree_name(entry.origin)] = int(entry.note.split("\n", 2)[1])
    return True
