"""The contract that every source with senders of its own keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.sources import HARNESSES, WAITING, Sender, SourceHarness
from support.ledger import OURS
from support.running import running, until
from support.server import Server, free_port, wait_for

KILLS = 2


@pytest.fixture(params=sorted(HARNESSES))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> SourceHarness:
    return HARNESSES[request.param](tmp_path)


async def test_everything_arrives_once_and_in_order(harness: SourceHarness) -> None:
    """A thousand records in ten batches over one connection."""
    async with running(harness.make()) as run:
        sender = await asyncio.to_thread(harness.connect, run.address())
        for first in range(0, 1_000, 100):
            await asyncio.to_thread(sender.send, range(first, first + 100))
        await until(lambda: len(run.intake.events) >= 1_000, "all of them")
        assert harness.numbers(run.intake) == list(range(1_000))
        sender.close()


async def test_nothing_is_acknowledged_before_it_is_durable(harness: SourceHarness) -> None:
    """While the journal stands still nobody hears anything; then those that have a word for it hear of all that is stored."""
    async with running(harness.make()) as run:
        run.intake.is_open.clear()
        sender = await asyncio.to_thread(harness.connect, run.address())
        await asyncio.to_thread(sender.send, range(50))
        await until(lambda: run.page["waiting_bytes"] > 0, "them to be received")
        assert not await asyncio.to_thread(sender.listen, 0.2)
        assert run.intake.events == []
        run.intake.is_open.set()
        if harness.acknowledges:
            assert await asyncio.to_thread(sender.listen)
            assert sender.confirmed == set(range(50)) == set(harness.numbers(run.intake))
        else:
            assert run.page["guarantee"] == "best effort"
        sender.close()


async def test_a_slow_journal_pushes_back_and_loses_nothing(harness: SourceHarness) -> None:
    """A sender that sends as fast as it can is held up; what waits stays within its bound; all of it is stored in the end."""
    async with running(harness.make(waiting=WAITING)) as run:
        run.intake.is_open.clear()
        sender = await asyncio.to_thread(harness.connect, run.address())
        sent = [0]

        def flood() -> None:
            for first in range(0, 64_000, 100):
                sender.send(range(first, first + 100), pad=400)
                sent[0] = first + 100

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        await until(lambda: run.page["paused"], "the reader to be told to wait", 30)
        most, seen = 0, -1
        while sent[0] != seen:  # until the sender has stood still for a while
            seen = sent[0]
            await asyncio.sleep(0.3)
            most = max(most, run.page["waiting_bytes"])
        assert sent[0] < 64_000
        assert most <= WAITING + 2 * 64 * 1024
        run.intake.is_open.set()
        if harness.acknowledges:
            await until(lambda: sender.listen(0.01) or not thread.is_alive(), "the sender to go on")
        await asyncio.to_thread(_drain, thread, sender)
        await until(lambda: len(run.intake.events) == 64_000, "all of them", 60)
        assert harness.numbers(run.intake) == list(range(64_000))
        sender.close()


def _drain(thread: threading.Thread, sender: Sender) -> None:
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        sender.listen(0.01)
        thread.join(0.01)
    assert not thread.is_alive()


@pytest.mark.parametrize("kind", sorted(name for name, kind in HARNESSES.items() if kind.intrude is not SourceHarness.intrude))
async def test_who_proves_nothing_is_not_heard(kind: str, tmp_path: Path) -> None:
    """Wrong, foreign and missing proof: nothing of it is stored, each is counted, and who may send still does."""
    harness = HARNESSES[kind](tmp_path)
    async with running(harness.make()) as run:
        await asyncio.to_thread(harness.intrude, run.address())
        await until(lambda: sum(run.page["connections_refused"].values()) >= 2, "them to be counted")
        sender = await asyncio.to_thread(harness.connect, run.address())
        await asyncio.to_thread(sender.send, [7])
        await until(lambda: run.intake.events, "the one that may")
        assert harness.numbers(run.intake) == [7]
        sender.close()


async def test_a_record_past_its_bound_holds_nobody_up(harness: SourceHarness) -> None:
    """It goes to the quarantine; the next one is an event."""
    async with running(harness.make()) as run:
        await asyncio.to_thread(harness.send_too_long, run.address())
        await until(lambda: run.intake.events and run.intake.faults, "both")
        assert harness.numbers(run.intake) == [7]
        assert len(run.intake.faults) == 1


async def test_a_stop_leaves_nothing_half(harness: SourceHarness) -> None:
    """What was received when the stop comes is stored when the source has ended; what was acknowledged is among it."""
    async with running(harness.make()) as run:
        run.intake.is_open.clear()
        sender = await asyncio.to_thread(harness.connect, run.address())
        await asyncio.to_thread(sender.send, range(300))
        await until(lambda: run.page["waiting_bytes"] > 300 * 128, "them to be received")
        run.stop.set()
        await asyncio.sleep(0.05)
        run.intake.is_open.set()
        await asyncio.wait_for(run.task, 10)
        assert harness.numbers(run.intake) == list(range(300))
        with contextlib.suppress(OSError):
            await asyncio.to_thread(sender.listen, 1.0)
        assert sender.confirmed in (set(), set(range(300)))
        sender.close()


@pytest.mark.parametrize("kind", [kind for kind in sorted(HARNESSES) if kind != "syslog-tls"])
def test_kills_lose_nothing_that_was_safe(make_server: Callable[[str], Server], tmp_path: Path, kind: str) -> None:
    """The server is killed (-9) twice under load. What a sender was told is safe, or status had counted, is there once."""
    harness = HARNESSES[kind](tmp_path)
    port = free_port()
    server = make_server(harness.table(port)).start()
    safe: set[int] = set()
    sent: set[int] = set()
    number = 0
    for kill in range(KILLS + 1):
        number = _send_until(server, harness, port, number, sent, safe, is_last=kill == KILLS)
        if kill < KILLS:
            server.kill()
            server.start()
    exported = _exported(server, harness)
    counts = Counter(exported)
    assert safe - set(counts) == set()
    assert set(counts) <= sent
    assert [one for one, count in counts.items() if count > 1] == []
    assert len(safe) > 400 * KILLS
    server.drain(len(exported))
    wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", 60, 0.5)


def _send_until(
    server: Server, harness: SourceHarness, port: int, number: int, sent: set[int], safe: set[int], *, is_last: bool
) -> int:
    """Send batches for a while; what is safe at the end is known by acknowledgement, or by what status had counted in order.

    With acknowledgements the first batch is one of the last life's that nobody acknowledged, as a client would send it again.
    """
    before = server.status()["sources"]["net"]["accepted"]
    sender = wait_for(lambda: _connected(harness, port), "the source to listen")
    mine: list[int] = []
    if harness.acknowledges and sent - safe:
        first = min(sent - safe) // 50 * 50
        sender.send(range(first, first + 50))
        assert sender.listen()
    for batch in range(12):
        numbers = range(number, number + 50)
        sent |= set(numbers)
        mine += numbers
        number += 50
        sender.send(numbers)
        if harness.acknowledges and (batch < 8 or is_last):
            assert sender.listen()
    if harness.acknowledges:
        safe |= sender.confirmed
        assert len(sender.confirmed) >= 400
    else:
        wanted = len(mine) if is_last else 400
        wait_for(lambda: server.status()["sources"]["net"]["accepted"] - before >= wanted, "some to be counted")
        safe |= set(mine[: server.status()["sources"]["net"]["accepted"] - before])
    sender.close()
    return number


def _connected(harness: SourceHarness, port: int) -> Sender | None:
    try:
        return harness.connect(("127.0.0.1", port))
    except OSError:
        return None


def _exported(server: Server, harness: SourceHarness) -> list[int]:
    with server.http.stream("GET", "/v1/export", params={"query": OURS}, timeout=120) as answer:
        return [harness.number_of(json.loads(line)["metadata"]) for line in answer.iter_lines() if line]
