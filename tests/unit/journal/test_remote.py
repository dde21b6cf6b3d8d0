"""A worker's journal over a real socket to the writer's door: it answers what the journal itself would, or refuses as it would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from support.journal_kit import ACME, GLOBEX, KEYS, batch, events, frames, open_journal
from tallystick.durable import set_observer
from tallystick.errors import ConflictError, NotAcceptingError, OutcomeUnknownError, OverloadedError, PushbackError, TallystickError
from tallystick.journal import door as door_module
from tallystick.journal import remote as remote_module
from tallystick.journal.dedupe import Digester
from tallystick.journal.door import JournalDoor
from tallystick.journal.entries import AccountEntry, Append, Appender, Committed, FilterCount, QuarantinedRecord
from tallystick.journal.frame import FrameType
from tallystick.journal.remote import RemoteJournal
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.wire import AppendCall, encode_message
from tallystick.journal.writer import Journal
from tallystick.pipeline.process import bind_unix

DIGESTER = Digester(KEYS.derive("dedupe"))


class Writer:
    """A journal and its door, and the workers that connect to it."""

    def __init__(self, data: Path, journal: Journal) -> None:
        self.data = data
        self.journal = journal
        self.reasons: list[str] = []
        self.noted: list[tuple[str, int]] = []
        self.socket = data / "journal.sock"
        self.door = JournalDoor(journal, TenantRegistry(data), lambda: self.reasons, self._note)
        self.workers: list[RemoteJournal] = []

    def _note(self, request: Append, committed: Committed) -> None:
        self.noted.append((request.source, sum(tenant.accepted for tenant in committed.tenants)))

    async def worker(self) -> RemoteJournal:
        made = RemoteJournal(self.socket, DIGESTER)
        made.start()
        self.workers.append(made)
        await until(lambda: made.not_ready() == self.reasons)
        return made


@contextlib.asynccontextmanager
async def writing(data: Path, **options: Any) -> AsyncIterator[Writer]:
    journal = open_journal(data, **options)
    writer = Writer(data, journal)
    await writer.door.open(bind_unix(writer.socket))
    try:
        yield writer
    finally:
        for worker in writer.workers:
            await worker.close()
        await writer.door.close()
        await journal.close()


async def until(condition: Callable[[], bool]) -> None:
    """Polls a condition for ten seconds."""
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def held_sync() -> Iterator[threading.Event]:
    """fdatasync of the commit thread waits for the event."""
    go = threading.Event()

    def hold(operation: str, path: Path | None, fd: int) -> None:
        if operation == "sync_data" and threading.current_thread().name == "journal-commit":
            go.wait(10)

    set_observer(hold)
    yield go
    go.set()
    set_observer(None)


def kept(number: int, position: int) -> QuarantinedRecord:
    data = b"%d/%d" % (number, position)
    return QuarantinedRecord(handle=ACME.handle, source="s", code="id_conflict", message="m", received_at="now", data=data)


# One event: who it belongs to, its id (None: made here) and its content.
EVENT = st.tuples(st.booleans(), st.none() | st.integers(0, 5), st.integers(0, 1))
REQUEST = st.tuples(st.lists(EVENT, min_size=1, max_size=6), st.booleans(), st.integers(0, 2))
_numbers = itertools.count()


def build(parts: tuple[list[tuple[bool, int | None, int]], bool, int]) -> Append:
    found, is_quarantine, others = parts
    batches = []
    for tenant in (ACME, GLOBEX):
        mine = [(name, content) for is_acme, name, content in found if is_acme == (tenant is ACME)]
        if mine:
            made = batch(
                [f"{name} {content}".encode() for name, content in mine],
                tenant,
                [f"{tenant.name}{name}".encode() for name, _ in mine],
            )
            for place, (name, _) in enumerate(mine):
                if name is None:
                    made.id_digests[place] = made.content_digests[place] = None
                    made.made_prefix = f"01234567-89ab-7cde-8f01-{next(_numbers):06d}"
            batches.append(made)
    records = [kept(9, number) for number in range(others)]
    counts = [FilterCount(handle=ACME.handle, source="s", filter="noise", count=others)] if others else []
    return Append(batches, records, counts, quarantine_conflict=kept if is_quarantine else None)


async def outcome(journal: Appender, request: Append) -> Any:
    try:
        done = await journal.append(request)
    except ConflictError as error:
        return sorted(error.positions)
    tenants = [(t.handle, t.ranges, t.accepted, t.duplicates, list(t.leaf_hashes), list(t.repeated)) for t in done.tenants]
    return tenants, [tuple(place) for place in done.conflicts], done.seq


@settings(max_examples=15, deadline=None)
@given(st.lists(REQUEST, min_size=1, max_size=10))
def test_a_worker_is_answered_as_the_journal_itself_would(requests: list[Any]) -> None:
    """The same requests, straight to one journal and through a worker to another: equal answers, equal events and records."""

    async def work(directory: Path) -> None:
        straight = open_journal(directory / "straight")
        async with writing(directory / "remote") as writer:
            worker = await writer.worker()
            for parts in requests:
                request = build(parts)
                assert await outcome(worker, request) == await outcome(straight, request)
        await straight.close()

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(directory))
        for tenant in (ACME, GLOBEX):
            assert events(directory / "straight", tenant) == events(directory / "remote", tenant)
        for kind in (FrameType.QUARANTINED, FrameType.FILTERED):
            found = [
                [record for frame in frames(directory / place, kind) for record in frame.records()]
                for place in ("straight", "remote")
            ]
            assert found[0] == found[1]


async def test_every_kind_of_entry_goes_through(tmp_path: Path) -> None:
    """Quarantined records, filter counts and account entries; the writer hears of each durable request, with its source."""
    async with writing(tmp_path) as writer:
        worker = await writer.worker()
        request = Append(
            [batch([b"a", b"b"])],
            [kept(0, 0)],
            [FilterCount(handle=ACME.handle, source="hook", filter="noise", count=3)],
            [AccountEntry(handle=ACME.handle, id="e1", entry={"type": "hold"})],
            source="hook",
        )
        assert (await worker.append(request)).seq == 5
        assert writer.noted == [("hook", 2)]
        assert {frame.type for frame in frames(tmp_path, FrameType.ACCOUNT)} == {FrameType.ACCOUNT}


async def test_ids_are_told_apart_over_all_workers(tmp_path: Path) -> None:
    """What one worker brought is a duplicate when another brings it, also while it is in flight, and a conflict with other content."""
    async with writing(tmp_path) as writer:
        one, two = await writer.worker(), await writer.worker()
        answers = await asyncio.gather(*(worker.append(Append([batch([b"a"], ids=[b"1"])])) for worker in (one, two, one, two)))
        assert sorted(answer.tenants[0].accepted for answer in answers) == [0, 0, 0, 1]
        assert all(answer.tenants[0].ranges == [[0, 1]] for answer in answers)
        with pytest.raises(ConflictError) as caught:
            await two.append(Append([batch([b"n", b"b"], ids=[b"2", b"1"])]))
        assert [tuple(place) for place in caught.value.positions] == [(0, 1)]
    assert events(tmp_path) == {0: b"a"}


async def test_an_answer_comes_only_after_the_sync(tmp_path: Path, held_sync: threading.Event) -> None:
    """While the writer's fdatasync hangs no worker is answered."""
    held_sync.set()
    async with writing(tmp_path) as writer:
        worker = await writer.worker()
        held_sync.clear()
        waiting = asyncio.create_task(worker.append(Append([batch([b"a"])])))
        await until(lambda: writer.journal.status()["stalled_seconds"] > 0)
        await asyncio.sleep(0.02)
        assert not waiting.done()
        held_sync.set()
        await waiting
    assert events(tmp_path) == {0: b"a"}


async def test_pushback_comes_with_its_code_and_advice(tmp_path: Path, held_sync: threading.Event) -> None:
    """The writer's queue is one for all workers, its shares are by tenant, and what it refuses leaves nothing behind."""
    held_sync.set()
    async with writing(tmp_path, queue="32KiB") as writer:
        workers = [await writer.worker(), await writer.worker()]
        held_sync.clear()
        waiting = [asyncio.create_task(workers[n % 2].append(Append([batch([b"x" * 7_000])]))) for n in range(4)]
        await until(lambda: sum(task.done() for task in waiting) == 2)
        assert all(isinstance(task.exception(), OverloadedError) for task in waiting if task.done())
        other = asyncio.create_task(workers[0].append(Append([batch([b"z" * 7_000], GLOBEX)])))
        await until(lambda: writer.journal.status()["queue_bytes"] > 21_000)
        assert not other.done()
        held_sync.set()
        await asyncio.gather(*waiting, other, return_exceptions=True)
    assert (len(events(tmp_path)), len(events(tmp_path, GLOBEX))) == (2, 1)


async def test_a_large_request_is_packed_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, so that the loop goes on; the outcome is the same."""
    monkeypatch.setattr(remote_module, "_INLINE_BYTES_MAX", 1_000)
    lines = [sha256(b"%d" % number).hexdigest().encode() for number in range(2_000)]
    async with writing(tmp_path) as writer:
        committed = await (await writer.worker()).append(Append([batch(lines)]))
        assert committed.tenants[0].ranges == [[0, 2_000]]
    assert list(events(tmp_path).values()) == lines


async def test_tenants_are_made_by_the_writer(tmp_path: Path) -> None:
    """A new name is durable when the worker hears of it, and every worker gets the same tenant."""
    async with writing(tmp_path) as writer:
        one, two = await writer.worker(), await writer.worker()
        made = await one.tenant("northwind")
        assert await two.tenant("northwind") == made == TenantRegistry(tmp_path).get("northwind")


async def test_a_worker_knows_whether_the_writer_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """News of a change come at once; silence is a reason too."""
    async with writing(tmp_path) as writer:
        worker = await writer.worker()
        writer.reasons = ["the disk is full"]
        await until(lambda: worker.not_ready() == ["the disk is full"])
        writer.reasons = []
        await until(lambda: worker.not_ready() == [])
        monkeypatch.setattr(door_module, "_LOOK_S", 60.0)
        await asyncio.sleep(0.2)
        monkeypatch.setattr(remote_module, "_SILENCE_S", 0.1)
        await until(lambda: "silent" in "".join(worker.not_ready()))


async def test_without_a_writer_everything_is_refused_until_one_comes(tmp_path: Path) -> None:
    """Refused as pushback before anything is handed over; accepted, without help, once there is a writer."""
    worker = RemoteJournal(tmp_path / "journal.sock", DIGESTER)
    worker.start()
    with pytest.raises(NotAcceptingError):
        await worker.append(Append([batch([b"a"])]))
    with pytest.raises(NotAcceptingError):
        await worker.tenant("acme")
    assert worker.not_ready()
    async with writing(tmp_path) as writer:
        writer.workers.append(worker)
        await until(lambda: not worker.not_ready())
        await worker.append(Append([batch([b"b"])]))
    assert events(tmp_path) == {0: b"b"}


async def test_when_the_writer_ends_what_was_handed_over_is_unknown(tmp_path: Path) -> None:
    """No refusal, since it may be stored: OutcomeUnknownError. The next writer is found without help."""
    taken = asyncio.Event()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            server.close()
            self.transport.close()
            taken.set()

    server = await asyncio.get_running_loop().create_unix_server(Silent, sock=bind_unix(tmp_path / "journal.sock"))
    worker = RemoteJournal(tmp_path / "journal.sock", DIGESTER)
    worker.start()
    await until(lambda: worker._link is not None)
    with pytest.raises(OutcomeUnknownError) as caught:
        await worker.append(Append([batch([b"a"])]))
    assert not isinstance(caught.value, PushbackError)
    await asyncio.wait_for(taken.wait(), 5)
    async with writing(tmp_path) as writer:
        writer.workers.append(worker)
        await until(lambda: not worker.not_ready())
        await worker.append(Append([batch([b"b"])]))
    assert events(tmp_path) == {0: b"b"}


async def test_a_worker_that_goes_takes_nothing_with_it(tmp_path: Path, held_sync: threading.Event) -> None:
    """What it handed over is committed; the others are served on."""
    held_sync.set()
    async with writing(tmp_path) as writer:
        gone, stays = await writer.worker(), await writer.worker()
        held_sync.clear()
        lost = asyncio.create_task(gone.append(Append([batch([b"a"])])))
        await until(lambda: writer.journal.status()["stalled_seconds"] > 0)
        await gone.close()
        with pytest.raises(OutcomeUnknownError):
            await lost
        await until(lambda: writer.door.connected == 1)
        held_sync.set()
        await stays.append(Append([batch([b"b"])]))
    assert events(tmp_path) == {0: b"a", 1: b"b"}


async def test_a_fault_in_the_writer_is_an_error_of_that_call_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker hears that it failed; the connection and the next call are not touched."""
    async with writing(tmp_path) as writer:
        worker = await writer.worker()

        async def fail(request: Append) -> Committed:
            raise RuntimeError("bug")

        with monkeypatch.context() as patch:
            patch.setattr(writer.journal, "append", fail)
            with pytest.raises(TallystickError, match="bug") as caught:
                await worker.append(Append([batch([b"a"])]))
            assert not isinstance(caught.value, PushbackError)
        await worker.append(Append([batch([b"b"])]))
    assert events(tmp_path) == {0: b"b"}


async def test_what_is_not_understood_ends_the_connection(tmp_path: Path) -> None:
    """Garbage from a worker, or an answer out of place from the writer: that connection ends, and the worker connects again."""
    async with writing(tmp_path) as writer:
        reader, stream = await asyncio.open_unix_connection(str(writer.socket))
        stream.write(b"\0\0\0\2??")
        while await reader.read(1_000):
            continue
        stream.close()
        worker = await writer.worker()
        link = worker._link
        assert link is not None
        link.data_received(b"".join(encode_message(AppendCall(1, "", "", False, [], [], [], [], []))))
        await until(lambda: worker._link is not link and not worker.not_ready())
        await worker.append(Append([batch([b"a"])]))
    assert events(tmp_path) == {0: b"a"}


async def test_calls_wait_while_the_socket_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that does not read holds the calls back in their requests, not in a growing buffer; then they go through, or are refused."""
    monkeypatch.setattr(remote_module, "_SEND_BUFFER", 64 * 1024)
    lines = [sha256(b"%d" % number).digest().replace(b"\n", b" ") for number in range(8_000)]
    reading: list[asyncio.Transport] = []

    class Slow(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            asyncio.get_running_loop().call_soon(transport.pause_reading)  # reading begins after this
            reading.append(transport)

    server = await asyncio.get_running_loop().create_unix_server(Slow, sock=bind_unix(tmp_path / "journal.sock"))
    worker = RemoteJournal(tmp_path / "journal.sock", DIGESTER)
    worker.start()
    await until(lambda: worker._link is not None)
    waiting = []
    for _ in range(8):
        waiting.append(asyncio.create_task(worker.append(Append([batch(lines)]))))
        await asyncio.sleep(0.02)
    link = worker._link
    assert link is not None
    assert link._transport.get_write_buffer_size() < 1_500_000
    assert 0 < len(link._waiting) < 8
    reading[0].abort()
    kinds = {type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)}
    assert kinds == {OutcomeUnknownError, NotAcceptingError}
    await worker.close()
    server.close()
