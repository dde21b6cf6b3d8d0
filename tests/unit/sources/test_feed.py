"""The feed: batches, order, bounds, back-pressure, acknowledgements."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.running import until
from tallystick.errors import NotAcceptingError
from tallystick.plugin import Sender
from tallystick.sources.feed import CHUNK_BYTES, DECODE_FAILED, RECORD_COST, Feed, Piece, pieces_of
from tallystick.testing.source import MemoryIntake

ACME = Sender("cert:a", ("acme",))


class FakeReader:
    def __init__(self, holder: str = "192.0.2.1") -> None:
        self.holder = holder
        self.is_reading = True

    def pause(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume(self) -> None:
        assert not self.is_reading
        self.is_reading = True


class Rig:
    """A feed whose commits wait until they are let through, one by one."""

    def __init__(self, bytes_max: int = 10 * CHUNK_BYTES, batch: int = 1_000) -> None:
        self.intake = MemoryIntake()
        self.feed = Feed("net", self.intake, self._commit, bytes_max, batch)
        self.commits: list[tuple[list[bytes], Sender | None]] = []
        self.gate = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def _commit(self, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        assert size == sum(piece.size for piece in pieces)
        await self.gate.acquire()
        if self.error is not None:
            raise self.error
        self.commits.append(([record for piece in pieces for record in piece.records], sender))

    def let(self, commits: int) -> None:
        for _ in range(commits):
            self.gate.release()


def piece(*records: bytes, size: int = 100, **more: Any) -> Piece:
    return Piece(list(records), size, **more)


async def test_what_arrives_during_a_commit_makes_the_next_one() -> None:
    """A lone piece is committed at once; while that runs, five more wait and then go together."""
    rig = Rig()
    rig.feed.add(piece(b"0"))
    await asyncio.sleep(0)
    for number in range(1, 6):
        rig.feed.add(piece(b"%d" % number))
    rig.let(2)
    await rig.feed.flush()
    assert [records for records, _ in rig.commits] == [[b"0"], [b"1", b"2", b"3", b"4", b"5"]]
    await rig.feed.close()


async def test_a_commit_has_a_bound_and_a_large_piece_goes_alone() -> None:
    """No more than ``batch`` bytes together, in order."""
    rig = Rig(batch=250)
    for number, size in enumerate((100, 100, 100, 5_000, 100)):
        rig.feed.add(piece(b"%d" % number, size=size))
    rig.let(9)
    await rig.feed.flush()
    assert [records for records, _ in rig.commits] == [[b"0", b"1"], [b"2"], [b"3"], [b"4"]]
    await rig.feed.close()


async def test_done_is_told_only_after_the_commit() -> None:
    """An acknowledgement waits for the journal."""
    rig, told = Rig(), []
    rig.feed.add(piece(b"a", done=lambda: told.append("a")))
    await asyncio.sleep(0.01)
    assert told == []
    assert rig.feed.waiting_bytes == 100
    rig.let(1)
    await rig.feed.flush()
    assert told == ["a"]
    assert rig.feed.waiting_bytes == 0
    await rig.feed.close()


async def test_senders_do_not_wait_for_each_other() -> None:
    """Each has its own lane; a commit holds one sender's records only."""
    rig = Rig()
    rig.feed.add(piece(b"1"))
    rig.feed.add(piece(b"2"), ACME)
    rig.feed.add(piece(b"3"))
    rig.let(3)
    await rig.feed.flush()
    assert sorted(rig.commits, key=lambda commit: commit[0]) == [([b"1", b"3"], None), ([b"2"], ACME)]
    await rig.feed.close()


async def test_who_holds_its_share_is_not_read_until_there_is_room() -> None:
    """One address is told to wait when it holds all it may; another one is still read."""
    rig = Rig(bytes_max=10 * CHUNK_BYTES, batch=CHUNK_BYTES)
    flood, other = FakeReader("192.0.2.1"), FakeReader("192.0.2.2")
    rig.feed.join(flood)
    rig.feed.join(other)
    added = 0
    while flood.is_reading:
        rig.feed.add(piece(b"x", size=CHUNK_BYTES, holder=flood.holder), reader=flood)
        added += 1
    assert added == 5
    rig.feed.add(piece(b"y", size=100, holder=other.holder), reader=other)
    assert other.is_reading
    assert rig.feed.is_paused(flood)
    rig.let(9)
    await rig.feed.flush()
    assert flood.is_reading
    await rig.feed.close()


async def test_at_the_bound_nobody_is_read() -> None:
    """When all that may wait is waiting, every reader is told to; newcomers too; and all go on as it drains."""
    rig = Rig(bytes_max=8 * CHUNK_BYTES, batch=CHUNK_BYTES)
    readers = [FakeReader(f"192.0.2.{number}") for number in range(5)]
    for reader in readers:
        rig.feed.join(reader)
    for size in (3, 5):
        rig.feed.add(piece(b"x", size=size * CHUNK_BYTES, holder=readers[0].holder), reader=readers[0])
    late = FakeReader()
    rig.feed.join(late)
    everyone = [*readers, late]
    assert not any(reader.is_reading for reader in everyone)
    rig.let(1)
    await until(lambda: rig.feed.waiting_bytes == 5 * CHUNK_BYTES, "the first commit")
    # Room for three reads, which go to those who wait longest; whoever holds most has no room of its own yet.
    assert sum(reader.is_reading for reader in everyone) == 3
    assert not readers[0].is_reading
    rig.let(1)
    await rig.feed.flush()
    assert all(reader.is_reading for reader in everyone)
    await rig.feed.close()


async def test_an_error_of_the_intake_ends_the_feed() -> None:
    """What a commit ends with is raised to the source, and nothing is acknowledged."""
    rig, told = Rig(), []
    rig.error = NotAcceptingError("the server stops")
    rig.feed.add(piece(b"a", done=lambda: told.append(1)))
    rig.let(1)
    with pytest.raises(NotAcceptingError):
        await rig.feed.run(asyncio.Event())
    with pytest.raises(NotAcceptingError):
        await rig.feed.flush()
    assert told == []
    await rig.feed.close()


async def test_what_a_decoder_fails_on_is_kept_in_the_quarantine() -> None:
    """A defect of ours costs the sender nothing: its records are durable, acknowledged, and the next ones go on."""
    rig, told = Rig(), []
    rig.error = ZeroDivisionError("a defect")
    rig.feed.add(piece(b"a", b"b", done=lambda: told.append(1)))
    rig.let(1)
    await rig.feed.flush()
    assert [(fault.line, fault.code, fault.record) for fault in rig.intake.faults] == [
        (1, DECODE_FAILED, b"a"),
        (2, DECODE_FAILED, b"b"),
    ]
    assert told == [1]
    rig.error = None
    rig.feed.add(piece(b"c"))
    rig.let(1)
    await rig.feed.flush()
    assert rig.commits == [([b"c"], None)]
    await rig.feed.close()


async def test_many_tiny_records_are_not_taken_for_little() -> None:
    """Each record costs its share of memory besides its bytes, and a read of very many becomes several pieces."""
    parts = list(pieces_of([b""] * 10_000, "h", "p"))
    assert [len(part.records) for part in parts] == [4_096, 4_096, 1_808]
    assert sum(part.size for part in parts) == 10_000 * RECORD_COST
