"""What becomes of an append's account entries: each id is stored once."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from pathlib import Path

import pytest

from support.journal_kit import ACME, GLOBEX, batch, copy_dir, frames, with_journal
from tallystick.durable import set_observer
from tallystick.errors import DiskFullError
from tallystick.journal import writer
from tallystick.journal.entries import AccountEntry, Append
from tallystick.journal.frame import FrameType
from tallystick.journal.writer import Journal


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk every 20 ms instead of every second."""
    monkeypatch.setattr(writer, "_WATCH_INTERVAL_S", 0.02)


def account_entry(name: str, count: int = 1, handle: str = ACME.handle) -> AccountEntry:
    return AccountEntry(handle=handle, id=name, entry={"type": "delivery", "delivered": count})


def account_ids(data: Path) -> list[str]:
    return [json.loads(record)["id"] for frame in frames(data, FrameType.ACCOUNT) for record in frame.records()]


def test_an_account_entry_is_stored_once(tmp_path: Path) -> None:
    """Handed over again (its answer was lost), in one request, in several at a time, or for another tenant: the id decides."""

    async def work(journal: Journal) -> None:
        await journal.append(Append(account=[account_entry("a"), account_entry("b"), account_entry("a", 2)]))
        again = await journal.append(Append(account=[account_entry("a")]))
        assert again.seq == 1
        await asyncio.gather(*(journal.append(Append(account=[account_entry("c"), account_entry("b")])) for _ in range(4)))
        await journal.append(Append(account=[account_entry("a", handle=GLOBEX.handle)]))

    with_journal(tmp_path, work)
    assert account_ids(tmp_path) == ["a", "b", "c", "a"]


def test_an_account_entry_is_stored_once_over_restarts(tmp_path: Path) -> None:
    """A window that was flushed, and one that comes back from the journal after kill -9, both know the ids."""

    async def work(journal: Journal) -> None:
        await journal.append(Append([batch([b"e"], ids=[b"a"])], account=[account_entry("a")]))
        copy_dir(tmp_path / "life", tmp_path / "killed")

    async def repeat(journal: Journal) -> None:
        committed = await journal.append(Append([batch([b"e"], ids=[b"a"])], account=[account_entry("a"), account_entry("d")]))
        assert committed.tenants[0].duplicates == 1

    with_journal(tmp_path / "life", work)
    for data in (tmp_path / "life", tmp_path / "killed"):
        with_journal(data, repeat)
        assert account_ids(data) == ["a", "d"]


def test_an_account_entry_that_was_refused_can_be_stored_later(tmp_path: Path) -> None:
    """A failed commit leaves no claim on its id."""
    codes = [errno.ENOSPC, errno.ENOSPC]

    def full(operation: str, path: Path | None, fd: int) -> None:
        if threading.current_thread().name == "journal-commit" and operation in ("sync_data", "preallocate") and codes:
            raise OSError(codes.pop(), "injected")

    async def work(journal: Journal) -> None:
        set_observer(full)
        try:
            with pytest.raises(DiskFullError):
                await journal.append(Append(account=[account_entry("a")]))
        finally:
            set_observer(None)
        codes.clear()
        while journal.status()["reason"]:
            await asyncio.sleep(0.01)
        await journal.append(Append(account=[account_entry("a")]))

    with_journal(tmp_path, work)
    assert account_ids(tmp_path) == ["a"]
