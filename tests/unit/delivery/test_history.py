"""The history of settled cuts: damage is set aside, a disk that fails for a while is not damage."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import msgspec
import pytest

from tallystick.delivery.history import History, SettledCut


def cut(number: int) -> SettledCut:
    return SettledCut(
        id=number, handle="h" * 16, tenant="acme", first=number * 10, last=number * 10 + 9, is_replay=False, name=f"cut-{number}",
        sha256="", place="", settled_at=float(number), attempts=1, delivered=10, filtered={}, kept=b"", dead=(),
    )  # fmt: skip


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "cursors").mkdir()
    return tmp_path


def test_rows_are_found_and_receipted(data_dir: Path) -> None:
    """By the event's index, newest first; what was receipted leaves the outbox, also over a restart."""
    history = History(data_dir, "disk")
    history.add([cut(0), cut(1)])
    assert [found.name for found in history.find("h" * 16, 12)] == ["cut-1"]
    assert history.find("h" * 16, 20) == []
    history.mark_receipted([cut(0)])
    history.close()
    again = History(data_dir, "disk")
    assert [row.id for row in again.unreceipted(9)] == [1]
    assert again.next_id() == 2
    assert again.rebuild()["h" * 16].next == 20
    again.close()


def test_all_rows_are_walked_page_by_page(data_dir: Path) -> None:
    """In the order of their keys, each once, for all tenants or one; a place is known by tenant and first index."""
    history = History(data_dir, "disk")
    rows = [msgspec.structs.replace(cut(number), handle=handle, place=f"p{number}") for handle in ("a", "b") for number in range(5)]
    history.add([*rows, msgspec.structs.replace(cut(9), handle="a", first=0, is_replay=True)])
    for handle, count in ((None, 11), ("a", 6), ("c", 0)):
        walked: list[SettledCut] = []
        while page := history.page(walked[-1].key if walked else None, 4, handle):
            walked += page
        assert len(walked) == count
        assert [row.key for row in walked] == sorted({row.key for row in walked})
    assert history.has_place("a", 10, "p1")
    assert not history.has_place("b", 20, "p1")
    history.close()


def test_damage_is_set_aside(data_dir: Path) -> None:
    """The file is kept under another name, and a new one begun."""
    history = History(data_dir, "disk")
    history.add([cut(0)])
    history.close()
    history.path.write_bytes(b"\xa5" * 8192)
    again = History(data_dir, "disk")
    assert again.unreceipted(9) == []
    again.add([cut(1)])
    assert again.path.with_name(again.path.name + ".damaged").read_bytes() == b"\xa5" * 8192
    again.close()


def test_a_full_disk_is_no_damage(data_dir: Path) -> None:
    """Neither a write nor an opening that finds no room sets anything aside; both work when there is room again."""
    history = History(data_dir, "disk")
    history.add([cut(number) for number in range(200)])
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match="history"):
            history.mark_receipted([cut(number) for number in range(200)])
        history.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        with pytest.raises(OSError, match="history"):
            History(data_dir, "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    again = History(data_dir, "disk")
    assert len(again.unreceipted(999)) == 200
    again.close()
    assert not list((data_dir / "cursors").glob("*damaged*"))
