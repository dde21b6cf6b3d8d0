"""How far a tree was sealed at a time in the past: never further than verify will find."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import build_entry
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.sealed_by import SealedBy

HANDLE = "a" * 16
ORIGIN = f"audit.example.com/log/{HANDLE}"


def beat(minute: int) -> bytes:
    return build_entry("heartbeat", bytes(16), {"at": f"1970-01-01T00:{minute:02d}:00.000Z"})


def quote(size: int) -> bytes:
    return build_entry("checkpoint", bytes(16), {"origin": ORIGIN, "mark": 1, "note": f"{ORIGIN}\n{size}\nroot\n\nsig\n"})


def test_only_what_was_quoted_before_a_later_heartbeat_counts(tmp_path: Path) -> None:
    """Not what was quoted before the first heartbeat alone, and not what comes behind one that is too late; a clock set back too."""
    entries = [quote(1), beat(1), quote(5), beat(3), quote(9)]
    log = AccountLog(tree_dir(tmp_path, ROOT))
    log.append(entries)
    log.sync()
    log.close()
    heads: Any = SimpleNamespace(state=SimpleNamespace(heads={ROOT: SimpleNamespace(size=4)}))
    sealed = SealedBy(tmp_path, heads)

    def size(minute: float) -> int:
        return sealed.sizes(minute * 60 + 30, 30.0).get(HANDLE, 0)

    assert [size(minute) for minute in (0, 1, 2.9, 2.9, 1, 0.5)] == [0, 5, 5, 5, 5, 0]
    assert size(3) == 5  # the root log's head does not cover the last quote yet
    heads.state.heads[ROOT].size = 5
    assert [size(3), size(2)] == [9, 5]
