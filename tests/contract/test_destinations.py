"""The contract that every destination keeps, the in-memory one included."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.destinations import Harness, make_harness
from contract.receivers import RECEIVERS
from contract.servers import SERVERS, make_server_harness
from support.delivery import HANDLE, LaneBench, World, make_cut, make_line
from support.moto import S3Server, run_s3_server
from support.webhook_receiver import WebhookReceiver, run_webhook_receiver
from tallystick.delivery.cut import BatchLimits
from tallystick.delivery.lane import Lane
from tallystick.delivery.reconcile import reconcile_page
from tallystick.plugin import AnswerKind
from tallystick.privacy.keys import KeyStore

READ_BACK = ["opensearch", "postgresql"]
"""Kinds that tell single events apart when they are read back, and whose harness can tamper with them."""
KINDS = ["memory", "file", "directory", "s3", "webhook", *RECEIVERS, *SERVERS]


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


@pytest.fixture(scope="module")
def s3(stack: ExitStack) -> Callable[[], S3Server]:
    return functools.cache(lambda: stack.enter_context(run_s3_server()))


@pytest.fixture(scope="module")
def receiver(stack: ExitStack) -> Callable[[], WebhookReceiver]:
    return functools.cache(lambda: stack.enter_context(run_webhook_receiver()))


@pytest.fixture(params=KINDS)
def harness(
    request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[], S3Server], receiver: Callable[[], WebhookReceiver]
) -> Iterator[Harness]:
    if request.param in SERVERS:
        yield make_server_harness(request.param, tmp_path, request.getfixturevalue(SERVERS[request.param]))
        return
    if request.param in RECEIVERS:
        make_receiver, make = RECEIVERS[request.param]
        with make_receiver() as own:
            yield make(own)
        return
    yield make_harness(request.param, tmp_path, s3, receiver)


@pytest.fixture
def bench(tmp_path: Path) -> LaneBench:
    return LaneBench(tmp_path / "data", World(), KeyStore.create(tmp_path / "data.keys"))


def ids(first: int, count: int) -> list[str]:
    return [f"acme-{index}" for index in range(first, first + count)]


def lines(first: int, count: int) -> list[bytes]:
    return [make_line(index) for index in range(first, first + count)]


async def test_cuts_arrive_whole_and_in_order(harness: Harness) -> None:
    """Two cuts one after the other: every event, in order, and an answer that says where."""
    destination = harness.make()
    first = await destination.send(make_cut(destination, lines(0, 5)))
    second = await destination.send(make_cut(destination, lines(5, 5), 5, after=first.where))
    assert (first.kind, second.kind) == (AnswerKind.DELIVERED, AnswerKind.DELIVERED)
    assert first.where
    assert first.where != second.where
    assert harness.ids() == ids(0, 10)
    await destination.close()


async def test_a_lost_answer_and_a_restart_leave_one_copy(harness: Harness) -> None:
    """The cut took effect but its answer was lost; a new instance sends the same cut and the other side has it once."""
    destination = harness.make()
    before = await destination.send(make_cut(destination, lines(0, 3)))
    cut = make_cut(destination, lines(3, 4), 3, after=before.where)
    await destination.send(cut)
    await destination.close()
    restarted = harness.make()
    answer = await restarted.send(cut)
    assert answer.kind is AnswerKind.DELIVERED
    assert harness.ids() == ids(0, 7)
    await restarted.close()


async def test_a_passing_failure_is_no_outcome_and_the_retry_completes(harness: Harness) -> None:
    """RETRY (or an error, which is the same) while broken; the same cut is delivered once it is healed."""
    with harness.broken() as make:
        destination = make()
        cut = make_cut(destination, lines(0, 4))
        try:
            kind = (await destination.send(cut)).kind
        except Exception:
            kind = AnswerKind.RETRY
        assert kind is AnswerKind.RETRY
        await destination.close()
    destination = harness.make()
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ids(0, 4)
    await destination.close()


async def test_what_somebody_must_mend_parks(harness: Harness) -> None:
    """PARK with a reason, and nothing is lost: the same cut goes through afterwards."""
    with harness.parked() as make:
        destination = make()
        cut = make_cut(destination, lines(0, 2))
        answer = await destination.send(cut)
        assert answer.kind is AnswerKind.PARK
        assert answer.reason
        await destination.close()
    destination = harness.make()
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ids(0, 2)
    await destination.close()


async def test_a_probe_leaves_no_event(harness: Harness) -> None:
    """Probing a healthy destination says so and delivers nothing."""
    destination = harness.make()
    assert (await destination.probe()).kind is AnswerKind.DELIVERED
    await destination.send(make_cut(destination, lines(0, 1)))
    assert harness.ids() == ids(0, 1)
    await destination.close()


async def test_a_lane_drains_into_it_over_a_restart(harness: Harness, bench: LaneBench) -> None:
    """Through the real lane: broken at first, stopped, started anew, and in the end each event once and in order."""
    bench.world.add(30)
    limits = BatchLimits(8, 1 << 20, 0.0)
    with harness.broken() as make:
        lane = bench.lane(make(), limits=limits)
        await bench.drain(lane, until=lambda: bool(lane.sender.reason))
    destination = harness.make()
    await bench.drain(bench.lane(destination, limits=limits))
    bench.world.add(12)
    await bench.drain(bench.lane(destination, limits=limits))
    assert harness.ids() == ids(0, 42)
    await destination.close()


async def test_it_declares_its_guarantee_and_answers(harness: Harness) -> None:
    """Each destination publishes what it promises and how it reads answers."""
    destination = harness.make()
    assert destination.guarantee.startswith(("exactly once", "at least once", "best effort"))
    assert destination.answers
    assert destination.window >= 1
    await destination.close()


@pytest.mark.parametrize("harness", READ_BACK, indirect=True)
async def test_what_was_tampered_with_is_named_and_what_is_missing_comes_back(harness: Harness, bench: LaneBench) -> None:
    """One event removed and one altered behind our back: exactly those are named; a repair brings the first back, and changes nothing else."""
    bench.world.add(30)
    destination = harness.make()
    lane = bench.lane(destination, limits=BatchLimits(8, 1 << 20, 0.0), where="NOT actor:u_3")
    async with bench.draining(lane):
        assert await reconcile(lane) == []
        before = harness.content()
        harness.remove("acme-9")
        harness.alter("acme-20")
        assert await reconcile(lane) == [("changed", [20], False), ("missing", [9], False)]
        tampered = harness.content()
        assert await reconcile(lane, is_repairing=True) == [("changed", [20], False), ("missing", [9], True)]
        assert harness.content() == tampered | {"acme-9": before["acme-9"]}
        assert await reconcile(lane) == [("changed", [20], False)]
        harness.remove("acme-20")
        await reconcile(lane, is_repairing=True)
        assert await reconcile(lane) == []
        assert harness.content() == before
        strangers = harness.add_stranger()
        assert await reconcile(lane, is_repairing=True) == ([("extra", strangers, False)] if strangers else [])
    await destination.close()


async def reconcile(lane: Lane, *, is_repairing: bool = False) -> list[tuple[str, list[int], bool]]:
    """What a whole walk finds: kind, indexes, whether it was repaired."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = await reconcile_page(lane, HANDLE, after, is_repairing=is_repairing)
        assert page["uncompared"] == 0
        found += page["findings"]
        if (after := page["next"]) is None:
            return sorted((one["kind"], one.get("indexes", []), one.get("is_repaired", False)) for one in found)
