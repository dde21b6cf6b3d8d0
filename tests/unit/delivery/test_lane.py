"""Lanes: every event gets one outcome, under failures, restarts and operators."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.delivery import HANDLE, LaneBench, numbers, run_until
from tallystick.delivery.cut import BatchLimits
from tallystick.delivery.operations import Operations
from tallystick.delivery.state import VERSION, LaneState, LaneStateFile
from tallystick.durable import set_observer
from tallystick.errors import DestinationUnavailableError, FormatRefusedError, TransientError
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.destination import MemoryDestination

OTHER = "bbbbbbbbbbbbbbbb"


def expected_ids(count: int, tenant: str = "acme") -> list[str]:
    return [f"{tenant}-{index}" for index in range(count)]


async def test_everything_sealed_is_delivered_once_in_order(bench: LaneBench) -> None:
    """Order of acceptance is order at the destination, and the account balances."""
    bench.world.add(950)
    destination = MemoryDestination()
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == expected_ids(950)
    assert numbers(lane) == {"delivered": 950, "filtered": {}, "dead": {}, "next": 950}


async def test_a_restart_goes_on_where_the_last_run_stopped(bench: LaneBench) -> None:
    """A new lane over the same state delivers only what is new."""
    destination = MemoryDestination()
    bench.world.add(10)
    await bench.drain(bench.lane(destination))
    bench.world.add(5)
    await bench.drain(bench.lane(destination))
    assert destination.ids() == expected_ids(15)


async def test_a_retry_sends_identical_bytes_under_an_identical_name(bench: LaneBench) -> None:
    """Whatever fails, the same cut comes again with the same digest."""
    bench.world.add(3)
    destination = MemoryDestination()
    destination.script = [Answer(AnswerKind.RETRY, reason="down"), Answer(AnswerKind.THROTTLE, retry_after_s=0.01)]
    await bench.drain(bench.lane(destination))
    assert len(destination.attempts) == 3
    assert len({(cut.name, cut.body) for cut in destination.attempts}) == 1


async def test_a_cut_stored_before_a_stop_is_sent_again_identically_after_it(bench: LaneBench) -> None:
    """The cut record fixes borders and bytes: more events that were sealed meanwhile do not change it."""
    bench.world.add(7)
    down = MemoryDestination()
    down.is_up = False
    lane = bench.lane(down)
    await bench.drain(lane, until=lambda: len(down.attempts) >= 1)
    bench.world.add(50)
    destination = MemoryDestination()
    await bench.drain(bench.lane(destination))
    assert destination.attempts[0].body == down.attempts[0].body
    assert destination.attempts[0].name == down.attempts[0].name
    assert destination.ids() == expected_ids(57)


async def test_a_lost_reply_ends_in_one_copy(bench: LaneBench) -> None:
    """A destination that keeps names gets the cut twice and takes it once."""
    bench.world.add(20)
    destination = MemoryDestination()
    destination.lose_replies = 1
    await bench.drain(bench.lane(destination))
    assert destination.ids() == expected_ids(20)
    assert len(destination.attempts) == 2


async def test_a_filtered_event_is_counted_by_name_and_explained(bench: LaneBench) -> None:
    """`where` lets through what matches, and the rest is filtered, not gone."""
    bench.world.add(100, action=lambda index: "role.grant" if index % 10 == 0 else "health.check")
    destination = MemoryDestination()
    lane = bench.lane(destination, where="action:role.*")
    async with _running(lane):
        await _until(lambda: bench.is_drained(lane))
        operations = _operations(bench, lane)
        assert numbers(lane) == {"delivered": 10, "filtered": {"where": 90}, "dead": {}, "next": 100}
        assert (await operations.explain(HANDLE, 20))["d"]["outcome"] == "delivered"
        assert (await operations.explain(HANDLE, 21))["d"]["outcome"] == "filtered"
    assert destination.ids() == [f"acme-{index}" for index in range(0, 100, 10)]


async def test_a_range_without_any_match_is_settled_without_sending(bench: LaneBench) -> None:
    """When nothing passes the filter the destination is not asked."""
    bench.world.add(40)
    destination = MemoryDestination()
    lane = bench.lane(destination, where="action:never.this")
    await bench.drain(lane)
    assert destination.attempts == []
    assert numbers(lane)["filtered"] == {"where": 40}


async def test_a_cut_that_is_too_large_is_halved_until_it_fits(bench: LaneBench) -> None:
    """SPLIT halves; all events arrive in order, once."""
    bench.world.add(100)
    destination = MemoryDestination()
    destination.events_max = 13
    await bench.drain(bench.lane(destination))
    assert destination.ids() == expected_ids(100)
    assert all(len(cut.lines) <= 13 for cut in destination.cuts.values())


@pytest.mark.parametrize("count", [3, 9])
async def test_nothing_behind_a_split_cut_overtakes_its_halves(bench: LaneBench, count: int) -> None:
    """Small cuts behind it, its own later half too, wait until all of the earlier ones are settled (P4)."""
    bench.world.add(count)
    destination = MemoryDestination()
    destination.events_max = 1 if count == 3 else 2
    await bench.drain(bench.lane(destination, limits=BatchLimits(7, 1 << 20, 0.0)))
    assert destination.ids() == expected_ids(count)


async def test_a_single_event_that_is_too_large_is_dead_lettered(bench: LaneBench) -> None:
    """Splitting ends at one event, which becomes a dead letter with the destination's reason."""
    bench.world.add(1)
    destination = MemoryDestination()
    destination.events_max = 0
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert numbers(lane)["dead"] == {"too_large": 1}
    [filed] = lane.letters.read("d")
    assert (filed.letter.index, filed.letter.reason, filed.status) == (0, "too_large", "open")


async def test_a_refused_event_does_not_hold_up_the_others(bench: LaneBench) -> None:
    """Partial success is settled per event."""
    bench.world.add(30)
    destination = MemoryDestination()
    destination.refuse = lambda line: b'"acme-17"' in line
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == [event for event in expected_ids(30) if event != "acme-17"]
    assert numbers(lane) == {"delivered": 29, "filtered": {}, "dead": {"refused": 1}, "next": 30}
    assert [filed.letter.event_id for filed in lane.letters.read("d")] == ["acme-17"]


async def test_lost_and_expired_events_are_dead_lettered_without_content(bench: LaneBench) -> None:
    """What cannot be read any more has a reason and an index, and the rest goes on."""
    bench.world.add(10)
    bench.world.gone = {(HANDLE, 3): "lost", (HANDLE, 4): "expired"}
    destination = MemoryDestination()
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert numbers(lane) == {"delivered": 8, "filtered": {}, "dead": {"lost": 1, "expired": 1}, "next": 10}
    assert [(filed.letter.index, filed.letter.event_id) for filed in lane.letters.read("d")] == [(3, ""), (4, "")]


async def test_events_that_cannot_be_read_now_are_waited_for(bench: LaneBench) -> None:
    """A reader's transient trouble costs time, no event."""
    bench.world.add(10)
    bench.world.errors = [TransientError("not yet"), DestinationUnavailableError("store down")]
    destination = MemoryDestination()
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == expected_ids(10)


async def test_a_parked_destination_is_probed_and_goes_on_by_itself(bench: LaneBench) -> None:
    """PARK stops sending; a probe that is answered well ends it."""
    bench.world.add(5)
    destination = MemoryDestination()
    destination.script = [Answer(AnswerKind.PARK, reason="HTTP 401")]
    destination.probe_answer = Answer(AnswerKind.PARK, reason="HTTP 401")
    lane = bench.lane(destination)
    async with _running(lane):
        await _until(lambda: lane.sender.state == "parked")
        assert lane.sender.reason == "HTTP 401"
        attempts = len(destination.attempts)
        destination.probe_answer = Answer(AnswerKind.DELIVERED)
        await _until(lambda: bench.is_drained(lane))
        assert attempts == 1
        assert lane.sender.state == "running"
    assert destination.ids() == expected_ids(5)


async def test_a_pause_survives_a_restart_and_resume_drains(bench: LaneBench) -> None:
    """Paused is durable, and the operator's resume ends it."""
    bench.world.add(5)
    destination = MemoryDestination()
    lane = bench.lane(destination)
    async with _running(lane):
        await _operations(bench, lane).pause("d")
    destination.attempts.clear()
    bench.world.add(5)
    lane = bench.lane(destination)
    async with _running(lane):
        await _until(lambda: lane.sender.state == "paused")
        await _operations(bench, lane).resume("d")
        await _until(lambda: bench.is_drained(lane))
    assert destination.ids() == expected_ids(10)


async def test_replaying_a_dead_letter_redeems_it_in_the_account(bench: LaneBench) -> None:
    """The event moves from dead-lettered to delivered, the revision rises, and a second replay does nothing."""
    bench.world.add(6)
    destination = MemoryDestination()
    destination.refuse = lambda line: b'"acme-2"' in line
    lane = bench.lane(destination)
    async with _running(lane):
        await _until(lambda: bench.is_drained(lane))
        destination.refuse = lambda line: False
        operations = _operations(bench, lane)
        assert await operations.handle("replay", {"letters": ["d:0"]}) == {"events": 1}
        await _until(lambda: bench.is_drained(lane) and numbers(lane)["delivered"] == 6)
        assert await operations.handle("replay", {"letters": ["d:0"]}) == {"events": 0}
        assert (await operations.explain(HANDLE, 2))["d"]["outcome"] == "delivered"
    assert numbers(lane)["dead"] == {}
    assert lane.state.accounts[HANDLE].revision == 1
    assert [filed.status for filed in lane.letters.read("d")] == ["replayed"]


async def test_one_failing_tenant_holds_back_no_other(bench: LaneBench) -> None:
    """A cut that is never accepted keeps its own slot; the other tenant's events go out."""
    bench.world.add(5)
    bench.world.add(5, tenant="other", handle=OTHER)

    class Poisoned(MemoryDestination):
        async def send(self, cut):  # type: ignore[no-untyped-def]
            if cut.tenant == "acme":
                self.attempts.append(cut)
                raise DestinationUnavailableError("500 for this one")
            return await super().send(cut)

    destination = Poisoned()
    lane = bench.lane(destination)
    await bench.drain(lane, until=lambda: destination.ids() == expected_ids(5, "other") and len(destination.attempts) > 4)
    assert lane.state.accounts[HANDLE].delivered == 0


async def test_a_cut_whose_bytes_changed_is_looked_up_then_voided_and_cut_again(bench: LaneBench) -> None:
    """An event expired between storing the cut and sending it: the old name is looked up, not there, and a new cut replaces it."""
    bench.world.add(10)
    down = MemoryDestination()
    down.is_up = False
    await bench.drain(bench.lane(down), until=lambda: len(down.attempts) >= 1)
    bench.world.gone = {(HANDLE, 4): "expired"}
    destination = MemoryDestination()
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == [event for event in expected_ids(10) if event != "acme-4"]
    assert numbers(lane) == {"delivered": 9, "filtered": {}, "dead": {"expired": 1}, "next": 10}


async def test_a_cut_whose_bytes_changed_but_which_arrived_is_settled(bench: LaneBench) -> None:
    """The old name is at the destination: its events count as delivered, though they cannot be read any more."""
    bench.world.add(10)
    destination = MemoryDestination()
    destination.lose_replies = 1_000
    await bench.drain(bench.lane(destination), until=lambda: len(destination.attempts) >= 1)
    destination.lose_replies = 0
    bench.world.gone = {(HANDLE, 4): "expired"}
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == expected_ids(10)
    assert numbers(lane)["delivered"] == 10


async def test_a_destination_that_cannot_be_asked_is_asked_again(bench: LaneBench) -> None:
    """Whatever it raises when the old name is looked up: nothing is voided, the lane says why it waits, and goes on when it answers."""

    class Silent(MemoryDestination):
        failures = 2

        async def find(self, place: str, sha256: str) -> bool | None:
            if self.failures:
                self.failures -= 1
                raise LookupError("no answer")
            return await super().find(place, sha256)

    bench.world.add(10)
    destination = Silent()
    destination.lose_replies = 1_000
    await bench.drain(bench.lane(destination), until=lambda: len(destination.attempts) >= 1)
    destination.lose_replies = 0
    bench.world.gone = {(HANDLE, 4): "expired"}
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.failures == 0
    assert numbers(lane)["delivered"] == 10


@pytest.mark.parametrize("damage", [1, 2])
@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_damaged_state_file_repeats_but_never_skips(bench: LaneBench, damage: int, is_gone: bool) -> None:
    """One bad generation falls back to the other; with both bad the history of settled cuts brings the cursor back."""
    bench.world.add(250)
    destination = MemoryDestination()
    await bench.drain(bench.lane(destination))
    slots = sorted((bench.data_dir / "cursors").glob("delivery-d.*"), key=lambda path: path.stat().st_mtime_ns)
    for slot in slots[-damage:]:
        slot.unlink() if is_gone else slot.write_bytes(b"rubbish")
    bench.world.add(50)
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert destination.ids() == expected_ids(300)
    assert numbers(lane)["delivered"] == 300


async def test_a_state_of_a_newer_version_is_refused_and_left_alone(bench: LaneBench) -> None:
    """Nothing is sent and no byte is written: an older program does not understand it."""
    bench.world.add(5)
    newer = LaneState(version=VERSION + 1, next_cut=3)
    LaneStateFile(bench.data_dir, "d").save(newer)
    before = {path: path.read_bytes() for path in (bench.data_dir / "cursors").glob("delivery-d.*")}
    destination = MemoryDestination()
    lane = bench.lane(destination)
    with pytest.raises(FormatRefusedError, match=f"version {VERSION + 1}"):
        await bench.drain(lane)
    assert destination.attempts == []
    assert before == {path: path.read_bytes() for path in (bench.data_dir / "cursors").glob("delivery-d.*")}


class _Crash(BaseException):
    """Stands for the end of the process at a durable step."""


async def test_a_crash_at_any_durable_step_ends_exactly_once(bench: LaneBench) -> None:
    """The process dies before the n-th durable step, for every n; the next run completes, with one copy of each event."""
    bench.world.add(60)
    destination = MemoryDestination()
    destination.refuse = lambda line: b'"acme-33"' in line
    crashes = 0
    for step in range(1, 60):
        countdown = [step]

        def observe(operation: str, path: Path | None, fd: int, countdown: list[int] = countdown) -> None:
            countdown[0] -= 1
            if countdown[0] == 0:
                raise _Crash

        lane = bench.lane(destination, limits=BatchLimits(7, 1 << 20, 0.0))
        set_observer(observe)
        try:
            await run_until(lane, lambda lane=lane: bench.is_drained(lane), 20)
            finished = True
        except _Crash:
            finished = False
            crashes += 1
        finally:
            set_observer(None)
        if finished:
            break
    lane = bench.lane(destination)
    await bench.drain(lane)
    assert crashes >= 5
    assert destination.ids() == [event for event in expected_ids(60) if event != "acme-33"]
    assert numbers(lane) == {"delivered": 59, "filtered": {}, "dead": {"refused": 1}, "next": 60}
    assert [filed.letter.index for filed in lane.letters.read("d")] == [33]


async def test_a_full_disk_sends_nothing_and_heals(bench: LaneBench) -> None:
    """While the state cannot be stored no cut is sent; when it can, delivery goes on."""
    bench.world.add(10)
    destination = MemoryDestination()
    lane = bench.lane(destination)
    is_full = True

    def observe(operation: str, path: Path | None, fd: int) -> None:
        if is_full and operation == "write":
            raise OSError(28, "No space left on device")

    set_observer(observe)
    try:
        async with _running(lane):
            await _until(lambda: "No space" in lane.trouble)
            assert destination.attempts == []
            is_full = False
            await _until(lambda: bench.is_drained(lane))
    finally:
        set_observer(None)
    assert destination.ids() == expected_ids(10)


async def test_a_stop_in_the_moment_of_news_is_heard(bench: LaneBench) -> None:
    """Cancelled while what it waits for arrives: the lane ends all the same."""
    bench.world.add(4)
    lane = bench.lane(MemoryDestination())
    async with _running(lane) as task:
        await _until(lambda: bench.is_drained(lane) and not lane.news.is_set())
        await asyncio.sleep(0.05)  # into the wait for news
        lane.news.set()
        await asyncio.sleep(0)  # the waiter has it, the lane not yet
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([task])
    assert task.cancelled()


class _running:  # noqa: N801 - reads as a statement
    """Runs a lane while the block lasts."""

    def __init__(self, lane) -> None:  # type: ignore[no-untyped-def]
        self.lane = lane

    async def __aenter__(self) -> asyncio.Task[None]:
        self.task: asyncio.Task[None] = asyncio.create_task(self.lane.run())
        await asyncio.sleep(0)
        return self.task

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.lane.close()


async def _until(is_done, timeout_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(timeout_s):
        while not is_done():
            await asyncio.sleep(0.005)


def _operations(bench: LaneBench, lane) -> Operations:  # type: ignore[no-untyped-def]
    handles = {name: handle for handle, name in bench.world.names.items()}
    return Operations({"d": lane}, lane.letters, handles.get, dict)


async def test_a_range_is_sent_again_without_changing_the_account(bench: LaneBench) -> None:
    """A replay of settled events goes out in cuts of its own; counts stay, and pending events are left to their own cuts."""
    bench.world.add(10)
    destination = MemoryDestination()
    lane = bench.lane(destination)
    async with _running(lane):
        await _until(lambda: bench.is_drained(lane))
        before = numbers(lane)
        result = await _operations(bench, lane).handle(
            "replay", {"destination": "d", "tenant": "acme", "first_index": 4, "last_index": 50}
        )
        await _until(lambda: bench.is_drained(lane))
        assert result == {"events": 6}
        assert numbers(lane) == before
    assert [cut.indexes[0] for cut in destination.attempts][-1] == 4


async def test_a_voided_cut_is_named_in_the_history(bench: LaneBench) -> None:
    """What was given up stays on record with its own name, and explain looks past it."""
    bench.world.add(4)
    down = MemoryDestination()
    down.is_up = False
    await bench.drain(bench.lane(down), until=lambda: len(down.attempts) >= 1)
    bench.world.gone = {(HANDLE, 1): "lost"}
    lane = bench.lane(MemoryDestination())
    async with _running(lane):
        await _until(lambda: bench.is_drained(lane))
        explained = (await _operations(bench, lane).explain(HANDLE, 2))["d"]
        assert explained["outcome"] == "delivered"
        lost = (await _operations(bench, lane).explain(HANDLE, 1))["d"]
        assert (lost["outcome"], lost["reason"]) == ("dead_lettered", "lost")


async def test_a_split_that_takes_long_does_not_lose_its_halves(bench: LaneBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While halves are made, other cuts settle and rounds are stored; the halves go into the round that comes then."""
    bench.world.add(8)
    bench.world.add(3, tenant="other", handle=OTHER)
    destination = MemoryDestination()
    destination.events_max = 4
    lane = bench.lane(destination)
    plan_halves = lane._plan_halves
    settled_meanwhile = asyncio.Event()

    async def in_thread(work, *arguments):  # type: ignore[no-untyped-def]
        if work is slow:
            await settled_meanwhile.wait()
            return plan_halves(*arguments)
        return await original(work, *arguments)

    def slow(planned):  # type: ignore[no-untyped-def]
        raise AssertionError("taken by in_thread")

    original = lane.in_thread
    monkeypatch.setattr(lane, "_plan_halves", slow)
    monkeypatch.setattr(lane, "in_thread", in_thread)
    async with _running(lane):
        await _until(lambda: OTHER in lane.state.accounts and lane.state.accounts[OTHER].delivered == 3)
        settled_meanwhile.set()
        await _until(lambda: bench.is_drained(lane))
    assert sorted(destination.ids()) == sorted(expected_ids(8) + expected_ids(3, "other"))


async def test_the_oracle_sees_a_destination_that_cheats(bench: LaneBench) -> None:
    """Negative control: one that appends without looking doubles events after a lost answer, and this suite would notice."""
    bench.world.add(20)

    class Cheater(MemoryDestination):
        async def send(self, cut):  # type: ignore[no-untyped-def]
            self.order.append(cut.name)
            return await super().send(cut)

    destination = Cheater()
    destination.lose_replies = 1
    await bench.drain(bench.lane(destination))
    assert destination.ids() != expected_ids(20)
