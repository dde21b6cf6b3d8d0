"""The hot part: what the journal holds and the archive does not, within its bound."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from tallystick.journal.reader import JournalReader
from tallystick.journal.retire import retire_segments
from tallystick.query.hot import HotPart, HotTenant
from tallystick.query.request import SearchRequest
from tallystick.query.slices import StaleSnapshotError
from unit.query.installation import Installation, make_lines


def make_hot(installation: Installation, bytes_max: int, marks: dict[str, int] | None = None) -> tuple[HotPart, dict[str, int]]:
    known: dict[str, int] = marks if marks is not None else {}
    return HotPart(JournalReader(installation.config.data_dir, installation.keys), bytes_max, lambda: known), known


def indexes(tenant: HotTenant) -> list[int]:
    tables = [batch if isinstance(batch, pa.Table) else batch() for batch in tenant.tables]
    return [index for table in tables for index in table["index"].to_pylist()]


async def test_it_follows_the_journal_by_tenant(installation: Installation) -> None:
    """Each refresh adds what is new, for every tenant, with its numbers."""
    hot, _ = make_hot(installation, 2**20)
    acme, beta = installation.tenant("acme").handle, installation.tenant("beta").handle
    assert hot.refresh([acme]) == {acme: HotTenant(0, [])}
    await installation.append(make_lines(3))
    await installation.append(make_lines(2), "beta")
    await installation.append(make_lines(2, start=3))
    found = hot.refresh([acme, beta])
    assert (indexes(found[acme]), found[acme].end) == ([0, 1, 2, 3, 4], 5)
    assert (indexes(found[beta]), found[beta].end) == ([0, 1], 2)
    assert [table["seq"].to_pylist() for table in found[beta].tables if isinstance(table, pa.Table)] == [[4, 5]]


async def test_what_is_archived_is_dropped(installation: Installation) -> None:
    """A stretch whose events are all below the marks is let go; one that is not yet stays whole."""
    hot, marks = make_hot(installation, 2**20)
    handle = installation.tenant("acme").handle
    await installation.append(make_lines(5))
    hot.refresh([handle])
    marks[handle] = 4
    assert indexes(hot.refresh([handle])[handle]) == [0, 1, 2, 3, 4]
    marks[handle] = 5
    assert hot.refresh([handle])[handle] == HotTenant(5, [])
    assert hot.bytes_held == 0
    await installation.append(make_lines(2))
    assert indexes(hot.refresh([handle])[handle]) == [5, 6]


async def test_what_was_archived_before_is_not_read(installation: Installation) -> None:
    """A frame that the mark cuts gives only its events from the mark on."""
    await installation.append(make_lines(5))
    handle = installation.tenant("acme").handle
    hot, _ = make_hot(installation, 2**20, {handle: 3})
    assert indexes(hot.refresh([handle])[handle]) == [3, 4]


async def test_past_its_bound_it_reads_the_journal_again(installation: Installation) -> None:
    """Lines held stay within the bound; the same events come out, in order, for each tenant."""
    hot, _ = make_hot(installation, 3_000)
    acme, beta = installation.tenant("acme").handle, installation.tenant("beta").handle
    for start in range(0, 40, 4):
        await installation.append(make_lines(4, start=start))
        await installation.append(make_lines(1, start=start), "beta")
        found = hot.refresh([acme, beta])
        assert hot.bytes_held <= 3_000
    assert indexes(found[acme]) == list(range(40))
    assert indexes(found[beta]) == list(range(10))
    assert any(not isinstance(batch, pa.Table) for batch in found[acme].tables)


async def test_a_stretch_that_has_gone_asks_for_a_new_snapshot(installation: Installation) -> None:
    """When segments are retired between snapshot and reading, nothing is silently missing."""
    hot, _ = make_hot(installation, 1)
    handle = installation.tenant("acme").handle
    await installation.append(make_lines(10))
    (batch,) = hot.refresh([handle])[handle].tables
    assert callable(batch)
    installation.archive()
    await installation.restart_journal()
    await installation.append(make_lines(1))
    for path in sorted((installation.config.data_dir / "journal").glob("*.seg"))[:-1]:
        path.unlink()
    with pytest.raises(StaleSnapshotError):
        batch()


async def test_searches_see_every_event_once_while_archiving(installation: Installation) -> None:
    """Searches that run beside appends and archiving find each event that was there at the start, and none twice."""
    await installation.append(make_lines(30))
    failures: list[Any] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            least = len(installation.sent["acme"])
            page = installation.engine.search(SearchRequest(tenants=("acme",), limit=1000))
            if len(set(page.indexes)) != len(page.indexes) or not set(range(least)).issubset(page.indexes):
                failures.append((least, sorted(page.indexes)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    assert installation.engine.search(SearchRequest(tenants=("acme",))).events
    for thread in threads:
        thread.start()
    for start in range(30, 230, 20):
        await installation.append(make_lines(20, start=start))
        installation.archive()
        retire_segments(installation.config.data_dir, ["archiver"])
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
