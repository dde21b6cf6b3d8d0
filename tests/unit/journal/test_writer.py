"""Appending: durability, groups, numbers, dedupe, bounds and failing disks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.journal_kit import (
    ACME,
    GLOBEX,
    KEYS,
    append,
    batch,
    copy_dir,
    events,
    frames,
    open_journal,
    read_all,
    segments,
    with_journal,
    write,
)
from tallystick.durable import set_observer
from tallystick.errors import ConflictError, DiskFullError, LockedError, NotAcceptingError, OverloadedError
from tallystick.journal import commit, writer
from tallystick.journal.entries import AccountEntry, Append, Committed, FilterCount, QuarantinedRecord
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.mark import MarkReader
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.writer import Journal


class Disk:
    """Fails chosen durable steps, and counts them. Steps on the dedupe index or other state are let through."""

    def __init__(self) -> None:
        self.fail: dict[str, list[int]] = {}
        self.seen: list[str] = []
        self.hold: threading.Event | None = None

    def __call__(self, operation: str, path: Path | None, fd: int) -> None:
        if threading.current_thread().name != "journal-commit":
            return
        self.seen.append(operation)
        if operation == "sync_data" and self.hold is not None:
            self.hold.wait(10)
        codes = self.fail.get(operation, [])
        if codes and (code := codes.pop(0)):
            raise OSError(code, "injected")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk every 20 ms instead of every second."""
    monkeypatch.setattr(writer, "_WATCH_INTERVAL_S", 0.02)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    set_observer(disk)
    yield disk
    set_observer(None)


def test_appended_lines_come_back_with_their_numbers(tmp_path: Path) -> None:
    """Lines of two tenants are numbered per tenant, and read back byte for byte after a restart."""

    async def work(journal: Journal) -> list[Committed]:
        first = await journal.append(Append([batch([b"a0", b"a1"]), batch([b"b0"], GLOBEX)]))
        return [first, await append(journal, b"a2")]

    first, second = with_journal(tmp_path, work)
    assert [tenant.ranges for tenant in first.tenants] == [[[0, 2]], [[0, 1]]]
    assert second.tenants[0].ranges == [[2, 1]]
    assert first.tenants[0].leaf_hashes == [sha256(b"\0" + line).digest() for line in (b"a0", b"a1")]
    assert (first.seq, second.seq) == (3, 4)
    assert events(tmp_path) == {0: b"a0", 1: b"a1", 2: b"a2"}
    assert events(tmp_path, GLOBEX) == {0: b"b0"}
    assert with_journal(tmp_path, lambda journal: append(journal, b"a3")).tenants[0].ranges == [[3, 1]]


def test_every_kind_of_entry_is_kept(tmp_path: Path) -> None:
    """Quarantined records, filter counts and account entries are numbered and come back as they were."""
    record = QuarantinedRecord(handle=ACME.handle, source="http", code="x", message="y", received_at="z", data=b"\xff\n")
    request = Append(
        [batch([b"a"])],
        [record],
        [FilterCount(handle=ACME.handle, source="http", filter="noise", count=3)],
        [AccountEntry(handle=ACME.handle, id="e1", entry={"type": "hold"})],
    )
    committed = with_journal(tmp_path, lambda journal: journal.append(request))
    assert committed.seq == 4
    kinds = {frame.type: frame for frame in read_all(tmp_path) if isinstance(frame, Frame)}
    assert b'"data":"/wo="' in kinds[FrameType.QUARANTINED].records()[0]
    assert b'"filter":"noise","count":3' in kinds[FrameType.FILTERED].records()[0]
    assert b'"entry":{"type":"hold"}' in kinds[FrameType.ACCOUNT].records()[0]


def test_an_answer_comes_only_after_the_sync(tmp_path: Path, disk: Disk) -> None:
    """While fdatasync hangs nobody is answered, and readers see nothing."""

    async def work(journal: Journal) -> None:
        disk.hold = threading.Event()
        task = asyncio.create_task(append(journal, b"a"))
        while "sync_data" not in disk.seen:
            await asyncio.sleep(0.001)
        reader = JournalReader(tmp_path, KEYS)
        assert not task.done()
        while journal.status()["stalled_seconds"] == 0:  # shown in milliseconds
            await asyncio.sleep(0.001)
        assert reader.read(reader.oldest())[0] == []
        disk.hold.set()
        await task
        assert journal.status()["stalled_seconds"] == 0
        assert len(reader.read(reader.oldest())[0]) == 1

    with_journal(tmp_path, work)


def test_what_arrives_during_a_sync_is_one_commit(tmp_path: Path, disk: Disk) -> None:
    """Group commit: a hundred requests that wait for one sync cost one more."""

    async def work(journal: Journal) -> int:
        disk.hold = threading.Event()
        first = asyncio.create_task(append(journal, b"first"))
        while "sync_data" not in disk.seen:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(append(journal, b"%d" % number)) for number in range(100)]
        await asyncio.sleep(0.01)
        before = disk.seen.count("sync_data")
        disk.hold.set()
        await asyncio.gather(first, *rest)
        return disk.seen.count("sync_data") - before

    assert with_journal(tmp_path, work) == 1
    assert len(events(tmp_path)) == 101


def test_a_cancelled_caller_does_not_cancel_durability(tmp_path: Path, disk: Disk) -> None:
    """A request whose sender went away is stored all the same."""

    async def work(journal: Journal) -> None:
        disk.hold = threading.Event()
        task = asyncio.create_task(append(journal, b"a"))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        disk.hold.set()
        await append(journal, b"b")

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"b"}


def test_the_queue_is_bounded_in_bytes(tmp_path: Path, disk: Disk) -> None:
    """Past its share a tenant gets OverloadedError with advice, and nothing of the request is kept; others have room."""

    async def work(journal: Journal) -> None:
        disk.hold = threading.Event()
        waiting = [asyncio.create_task(append(journal, b"x" * 7_000)) for _ in range(4)]
        other = asyncio.create_task(append(journal, b"z" * 7_000, tenant=GLOBEX))
        await asyncio.sleep(0.01)
        assert [task for task in waiting if task.done() and isinstance(task.exception(), OverloadedError)] == waiting[2:]
        assert not other.done()
        own = asyncio.create_task(journal.append(Append([batch([b"o" * 5_000])], is_own=True)))
        await asyncio.sleep(0.01)
        assert not own.done()
        assert journal.status()["queue_bytes"] <= 32 * 1024
        disk.hold.set()
        await asyncio.gather(*waiting, other, own, return_exceptions=True)
        assert journal.status()["queue_bytes"] == 0
        await append(journal, b"y")

    with_journal(tmp_path, work, queue="32KiB")
    assert len(events(tmp_path)) == 4


def refusals() -> int:
    return sum(isinstance(one, OverloadedError) for one in gc.get_objects())


def test_what_is_refused_does_not_stay_in_memory(tmp_path: Path, disk: Disk) -> None:
    """Neither the request nor the frames around it wait for the collector of cycles: a flood that is refused would fill the memory."""

    async def work(journal: Journal) -> None:
        disk.hold = threading.Event()
        waiting = [asyncio.create_task(append(journal, b"x" * 7_000)) for _ in range(2)]
        await asyncio.sleep(0.01)
        gc.collect()
        gc.disable()
        try:
            before = refusals()
            for _ in range(3):
                with pytest.raises(OverloadedError):
                    await append(journal, b"x" * 7_000)
            assert refusals() == before
        finally:
            gc.enable()
            disk.hold.set()
        await asyncio.gather(*waiting)

    with_journal(tmp_path, work, queue="32KiB")


def test_a_repeat_is_answered_with_its_first_position(tmp_path: Path) -> None:
    """The same ids with the same content are stored once; also after a restart, and mixed with new ones."""

    async def first(journal: Journal) -> Committed:
        return await journal.append(Append([batch([b"a", b"b"], ids=[b"1", b"2"])]))

    async def again(journal: Journal) -> Committed:
        return await journal.append(Append([batch([b"n", b"b", b"a", b"n"], ids=[b"3", b"2", b"1", b"3"])]))

    one, two = with_journal(tmp_path, first), with_journal(tmp_path, again)
    tenant = two.tenants[0]
    assert (tenant.accepted, tenant.duplicates) == (1, 3)
    assert tenant.ranges == [[2, 1], [1, 1], [0, 1], [2, 1]]
    assert tenant.leaf_hashes[1:3] == one.tenants[0].leaf_hashes[::-1]
    assert len(events(tmp_path)) == 3


def test_a_repeat_in_flight_waits_for_that_commit(tmp_path: Path, disk: Disk) -> None:
    """Two requests with one id at the same time: stored once, both answered after the sync."""

    async def work(journal: Journal) -> list[Committed]:
        disk.hold = threading.Event()
        tasks = [asyncio.create_task(journal.append(Append([batch([b"a"], ids=[b"1"])]))) for _ in range(2)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks)
        disk.hold.set()
        return await asyncio.gather(*tasks)

    answers = [committed.tenants[0] for committed in with_journal(tmp_path, work)]
    assert [(answer.accepted, answer.ranges) for answer in answers] == [(1, [[0, 1]]), (0, [[0, 1]])]
    assert events(tmp_path) == {0: b"a"}


def test_other_content_under_a_known_id_is_refused_whole(tmp_path: Path) -> None:
    """In reject mode a conflict stores nothing of the request and names the places."""

    async def work(journal: Journal) -> None:
        await journal.append(Append([batch([b"a"], ids=[b"1"])]))
        with pytest.raises(ConflictError) as caught:
            await journal.append(Append([batch([b"new", b"b"], ids=[b"2", b"1"])]))
        assert caught.value.positions == [(0, 1)]
        await journal.append(Append([batch([b"new"], ids=[b"2"])]))

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"new"}


def test_other_content_under_a_known_id_is_quarantined(tmp_path: Path) -> None:
    """In quarantine mode the good lines are stored and the conflicting one is kept as `id_conflict`."""

    def kept(place: int, position: int) -> QuarantinedRecord:
        assert (place, position) == (0, 1)
        return QuarantinedRecord(
            handle=ACME.handle, source="hook", code="id_conflict", message="m", received_at="now", data=b"b", line=7
        )

    async def work(journal: Journal) -> Committed:
        await journal.append(Append([batch([b"a"], ids=[b"1"])]))
        request = Append([batch([b"new", b"b"], ids=[b"2", b"1"])], quarantine_conflict=kept)
        return await journal.append(request)

    committed = with_journal(tmp_path, work)
    assert committed.conflicts == [(0, 1)]
    assert committed.tenants[0].ranges == [[1, 1]]
    (frame,) = frames(tmp_path, FrameType.QUARANTINED)
    assert b'"code":"id_conflict"' in frame.records()[0]
    assert b'"source":"hook"' in frame.records()[0]
    assert b'"line":7' in frame.records()[0]


def test_rotation_keeps_order_and_gives_space_back(tmp_path: Path) -> None:
    """More than a segment holds goes on in the next one; a closed segment is cut to its valid end."""
    lines = [sha256(b"%d" % number).hexdigest().encode() for number in range(200)]
    write(tmp_path, *[[line, *lines] for line in lines], segment="64KiB")
    found = segments(tmp_path)
    assert len(found) > 5
    for (path, header), (_, following) in pairwise(found):
        assert (following.previous, following.previous_end) == (header.uuid, path.stat().st_size)
    stored = events(tmp_path)
    assert [stored[index * 201] for index in range(200)] == lines


def test_a_segment_holds_a_bounded_number_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the requests, a restart never has more than so many frames to read."""
    monkeypatch.setattr(commit, "FRAMES_MAX", 10)
    write(tmp_path, *[[b"%d" % number] for number in range(50)])
    assert len(segments(tmp_path)) >= 5
    assert len(events(tmp_path)) == 50


def test_a_request_larger_than_a_segment_is_kept_whole(tmp_path: Path) -> None:
    """A frame never spans segments: a large one gets a segment of its own size."""
    lines = [sha256(b"%d" % number).digest().hex().encode() for number in range(5_000)]
    write(tmp_path, [b"small"], lines, [b"after"], segment="64KiB")
    assert len(events(tmp_path)) == 5_002


def test_a_failed_sync_moves_the_commit_to_a_new_segment(tmp_path: Path, disk: Disk) -> None:
    """The file is given up at its durable end; the waiting request is answered after it is safe in the next."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        disk.fail = {"sync_data": [errno.EIO]}
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]
        assert journal.status()["accepting"]
        await append(journal, b"c")

    with_journal(tmp_path, work)
    (_, poisoned), (_, following) = segments(tmp_path)
    assert following.previous == poisoned.uuid
    assert following.first_seq == 2
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c"}
    assert not [item for item in read_all(tmp_path) if isinstance(item, DamagedSpan)]


def test_a_failed_write_moves_the_commit_to_a_new_segment(tmp_path: Path, disk: Disk) -> None:
    """EIO on write is treated as EIO on sync."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        disk.fail = {"write": [errno.EIO]}
        await append(journal, b"b")

    with_journal(tmp_path, work)
    assert len(segments(tmp_path)) == 2
    assert events(tmp_path) == {0: b"a", 1: b"b"}


async def until_accepting(journal: Journal) -> None:
    async with asyncio.timeout(10):
        while not journal.status()["accepting"]:
            await asyncio.sleep(0.005)


def test_a_second_failure_stops_intake(tmp_path: Path, disk: Disk) -> None:
    """Refused, said so in status, nothing acknowledged later; a restart goes on without what was refused."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        disk.fail = {"sync_data": [errno.EIO, errno.EIO]}
        with pytest.raises(NotAcceptingError):
            await append(journal, b"refused")
        assert not journal.status()["accepting"]
        assert "injected" in journal.status()["reason"]
        with pytest.raises(NotAcceptingError):
            await append(journal, b"refused too")

    with_journal(tmp_path, work)
    write(tmp_path, [b"b"])
    assert events(tmp_path) == {0: b"a", 1: b"b"}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped journal tries again after 20 to 80 milliseconds."""
    monkeypatch.setattr(commit, "_HEAL_PAUSE_S", (0.02, 0.08))


@pytest.mark.usefixtures("hasty")
def test_a_stopped_intake_heals_in_a_new_segment(tmp_path: Path, disk: Disk) -> None:
    """While the disk fails it is tried again now and then; when it works intake goes on by itself, in a file that no failure touched."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        poisoned = journal.status()["segment"]
        disk.fail = {"sync_data": [errno.EIO] * 8}
        with pytest.raises(NotAcceptingError):
            await append(journal, b"refused")
        await until_accepting(journal)
        assert disk.fail == {"sync_data": []}
        assert journal.status()["segment"] != poisoned
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"b"}
    assert len(segments(tmp_path)) == 2
    assert not [item for item in read_all(tmp_path) if isinstance(item, DamagedSpan)]
    write(tmp_path, [b"c"])
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c"}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("step", ["preallocate", "rename"])
def test_a_disk_that_fails_at_start_opens_and_heals(tmp_path: Path, disk: Disk, step: str) -> None:
    """Opening is no error, whichever step of making the first segment fails: intake refuses, with the reason, until the disk works."""
    write(tmp_path, [b"a"])
    calls = []

    def fail(operation: str, path: Path | None, fd: int) -> None:
        if operation == step and len(calls) < 5 and (path is None or path.suffix == ".seg"):
            calls.append(operation)
            raise OSError(errno.EIO, "injected")

    async def work(journal: Journal) -> None:
        assert not journal.status()["accepting"]
        assert "injected" in journal.status()["reason"]
        await until_accepting(journal)
        await append(journal, b"b")

    set_observer(fail)
    with_journal(tmp_path, work)
    assert len(calls) == 5
    assert events(tmp_path) == {0: b"a", 1: b"b"}


@pytest.mark.usefixtures("hasty")
def test_a_disk_that_fails_and_is_full_then(tmp_path: Path, disk: Disk) -> None:
    """What stopped intake was EIO, what keeps it is ENOSPC: the reason follows, and both pass."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        disk.fail = {"sync_data": [errno.EIO, errno.EIO, errno.ENOSPC]}
        measure = journal._space.measure
        journal._space.measure = lambda: None  # type: ignore[method-assign]
        with pytest.raises(NotAcceptingError):
            await append(journal, b"refused")
        async with asyncio.timeout(10):
            while "full" not in str(journal.status()["reason"]):
                await asyncio.sleep(0.005)
        with pytest.raises(DiskFullError):
            await append(journal, b"refused")
        journal._space.measure = measure  # type: ignore[method-assign]
        await until_accepting(journal)
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"b"}


def test_a_failed_rotation_heals_behind_the_old_segment(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old segment was whole; it ends where it was durable, and is not written to again."""
    monkeypatch.setattr(commit, "_HEAL_PAUSE_S", (0.02, 0.08))
    lines = [sha256(b"%d" % number).digest().hex().encode() for number in range(5_000)]

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        old = journal.status()["segment"]
        disk.fail = {"rename": [errno.EIO, errno.EIO]}
        with pytest.raises(NotAcceptingError):
            await journal.append(Append([batch(lines)]))
        await until_accepting(journal)
        assert journal.status()["segment"] != old
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]

    with_journal(tmp_path, work, segment="64KiB")
    assert events(tmp_path) == {0: b"a", 1: b"b"}
    assert not [item for item in read_all(tmp_path) if isinstance(item, DamagedSpan)]


def in_a_child(work: Callable[[Journal], Coroutine[Any, Any, None]], data: Path) -> int:
    """The exit code of a process that does ``work``, 0 when it comes to its end."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            with_journal(data, work)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_segment_that_cannot_be_taken_back_ends_the_process(tmp_path: Path, disk: Disk) -> None:
    """It has its name, its directory cannot be synced, and it cannot be removed: refusing would be a guess. The next life reads it."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")

        def stuck(operation: str, path: Path | None, fd: int) -> None:
            if operation in ("sync_data", "sync_dir", "unlink") and threading.current_thread().name == "journal-commit":
                is_first = operation == "sync_data" and not failed
                failed.append(operation)
                if operation != "sync_data" or is_first:
                    raise OSError(errno.EIO, "injected")

        failed: list[str] = []
        set_observer(stuck)
        await append(journal, b"b")

    assert in_a_child(work, tmp_path) == 1
    write(tmp_path, [b"c"])
    assert list(events(tmp_path).values()) in ([b"a", b"b", b"c"], [b"a", b"c"])
    assert not [item for item in read_all(tmp_path) if isinstance(item, DamagedSpan)]


def test_a_fault_of_the_commit_thread_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what it had written: no answer, and the next life goes on from what is there."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")

        def failing(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(commit, "encode_groups", failing)
        await append(journal, b"b")

    assert in_a_child(work, tmp_path) == 1
    write(tmp_path, [b"c"])
    assert events(tmp_path) == {0: b"a", 1: b"c"}


def test_a_commit_that_cannot_be_settled_ends_the_process(tmp_path: Path) -> None:
    """Half settled is worse than dead: the process ends at once, and what was committed is there in the next life."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")

        def failing(*_: object) -> None:
            raise MemoryError

        journal.dedupe.commit = failing  # type: ignore[method-assign]
        await append(journal, b"b")

    assert in_a_child(work, tmp_path) == 1
    write(tmp_path, [b"c"])
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c"}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
def test_want_of_descriptors_or_memory_passes(tmp_path: Path, disk: Disk, code: int) -> None:
    """No new segment can be opened: the request is refused, intake is not stopped, and the next one finds the journal as it was."""
    lines = [sha256(b"%d" % number).digest().hex().encode() for number in range(5_000)]

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        disk.fail = {"rename": [code]}
        with pytest.raises(OverloadedError):
            await journal.append(Append([batch(lines)]))
        assert journal.status()["accepting"]
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]
        assert (await journal.append(Append([batch(lines)]))).tenants[0].ranges == [[2, 5_000]]

    with_journal(tmp_path, work, segment="64KiB")
    assert len(events(tmp_path)) == 5_002
    assert not [item for item in read_all(tmp_path) if isinstance(item, DamagedSpan)]


@contextlib.contextmanager
def no_measuring(journal: Journal) -> Iterator[None]:
    """Nobody looks whether there is room again, as it happens once a second."""
    begun, end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        end.wait(60)

    journal._measuring.submit(wait)
    assert begun.wait(10)
    yield
    end.set()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path, disk: Disk, code: int) -> None:
    """No space for a sync: 503, the reserve is freed, numbers stay without a gap, and intake resumes when there is room."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        assert (tmp_path / "reserve").exists()
        disk.fail = {"sync_data": [code], "preallocate": [code]}
        with no_measuring(journal):
            with pytest.raises(DiskFullError):
                await append(journal, b"refused")
            assert not (tmp_path / "reserve").exists()
            assert "full" in journal.status()["reason"]
            with pytest.raises(DiskFullError):
                await append(journal, b"refused before the disk is asked")
        async with asyncio.timeout(10):
            while not journal.status()["accepting"]:
                await asyncio.sleep(0.02)
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"b"}


def test_a_disk_that_is_full_at_start_opens_and_waits(tmp_path: Path, disk: Disk) -> None:
    """Opening on a full disk is no error: intake refuses until there is room."""
    write(tmp_path, [b"a"])

    def fail(operation: str, path: Path | None, fd: int) -> None:
        if operation == "preallocate":
            raise OSError(errno.ENOSPC, "injected")

    async def work(journal: Journal) -> None:
        with pytest.raises(DiskFullError):
            await append(journal, b"refused")
        set_observer(None)
        async with asyncio.timeout(10):
            while not journal.status()["accepting"]:
                await asyncio.sleep(0.02)
        assert (await append(journal, b"b")).tenants[0].ranges == [[1, 1]]

    set_observer(fail)
    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"b"}


def test_refused_requests_leave_no_claim(tmp_path: Path, disk: Disk) -> None:
    """After a refusal the same ids can be sent again and are stored once."""

    async def work(journal: Journal) -> None:
        disk.fail = {"sync_data": [errno.ENOSPC], "preallocate": [errno.ENOSPC]}
        request = Append([batch([b"a"], ids=[b"1"])])
        with pytest.raises(DiskFullError):
            await journal.append(request)
        async with asyncio.timeout(10):
            while not journal.status()["accepting"]:
                await asyncio.sleep(0.02)
        assert (await journal.append(request)).tenants[0].accepted == 1

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a"}


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """The role lock: a second writer on the same directory writes nothing."""

    async def work(journal: Journal) -> None:
        with pytest.raises(LockedError):
            open_journal(tmp_path)
        await append(journal, b"a")

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a"}


def test_a_mark_frame_follows_within_idleness(tmp_path: Path) -> None:
    """Without another commit the mark is written into the journal itself by a frame of its own."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a")
        async with asyncio.timeout(5):
            while not frames(tmp_path, FrameType.MARK):
                await asyncio.sleep(0.01)

    with_journal(tmp_path, work)
    (frame,) = frames(tmp_path, FrameType.MARK)
    assert frame.first_seq == 2
    assert b'"next":{"%s":1}' % ACME.handle.encode() in frame.records()[0]


def test_the_epoch_rises_with_every_start(tmp_path: Path) -> None:
    """Each life of the writer has its own segment, key and epoch."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    headers = [header for _, header in segments(tmp_path)]
    assert [header.epoch for header in headers] == [1, 2, 3]
    assert len({KEYS.unwrap(header.wrapped_key, header.uuid) for header in headers}) == 3
    mark = MarkReader(tmp_path / "journal").read()
    assert mark is not None
    assert mark.epoch == 3


def test_nothing_is_readable_at_rest(tmp_path: Path) -> None:
    """No file of the data directory holds a line in clear."""
    write(tmp_path, [b"xx-marker-xx" * 3])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"marker-xx" in path.read_bytes()]


def test_closing_commits_what_is_queued(tmp_path: Path) -> None:
    """`close` answers what was queued before it and refuses what comes after."""

    async def run() -> None:
        journal = open_journal(tmp_path)
        tasks = [asyncio.create_task(append(journal, b"%d" % number)) for number in range(20)]
        await asyncio.sleep(0)
        await journal.close()
        assert all(isinstance(committed, Committed) for committed in await asyncio.gather(*tasks))
        with pytest.raises(NotAcceptingError):
            await append(journal, b"late")

    asyncio.run(run())
    assert len(events(tmp_path)) == 20


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A copy of the directory taken right after an answer, without any closing step, holds the events."""

    async def work(journal: Journal) -> None:
        await append(journal, b"a", b"b")
        copy_dir(tmp_path / "live", tmp_path / "copy")

    with_journal(tmp_path / "live", work)
    write(tmp_path / "copy", [b"c"])
    assert events(tmp_path / "copy") == {0: b"a", 1: b"b", 2: b"c"}
