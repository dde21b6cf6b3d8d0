"""Destination `nats` against a real server: what the contract does not ask."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from contract.servers import NatsHarness
from support.delivery import HANDLE, make_cut, make_line
from support.nats_server import LOGINS, NatsServer
from tallystick.destinations.nats import NatsDestination
from tallystick.plugin import Answer, AnswerKind, Cut


@pytest.fixture
def harness(nats_server: NatsServer) -> NatsHarness:
    return NatsHarness(nats_server)


def lines(first: int, count: int) -> list[bytes]:
    return [make_line(index) for index in range(first, first + count)]


async def deliver(destination: NatsDestination, cut: Cut) -> Answer:
    """As the dispatcher does: again, until it is done."""
    while (answer := await destination.send(cut)).kind is AnswerKind.RETRY:
        pass
    return answer


async def test_messages_carry_name_line_and_proof(harness: NatsHarness) -> None:
    """The subject names the tenant, the message its event; the headers say which part of which log it is."""
    destination = harness.make()
    cut = make_cut(destination, lines(4, 3), 4)
    answer = await destination.send(cut)
    assert answer.where == f"nats:{harness.stream}#1-3"
    found = harness.messages()
    assert [message.data for message in found] == list(cut.lines)
    assert {message.subject for message in found} == {f"{harness.stream}.acme"}
    headers = found[1].headers
    assert headers["Nats-Msg-Id"] == f"{HANDLE}:5"
    assert headers["Tallystick-Index"] == "5"
    assert headers["Tallystick-Range"] == "4-6"
    assert headers["Tallystick-Log"] == cut.origin
    assert base64.b64decode(headers["Tallystick-Checkpoint"]).decode() == cut.checkpoint
    await destination.close()


async def test_a_cut_that_arrived_in_part_is_completed_after_the_window(harness: NatsHarness) -> None:
    """Some messages are there from an attempt whose answers were lost, others write too, and the stream has forgotten the names."""
    harness.shorten_window()
    destination = harness.make()
    before = await deliver(destination, make_cut(destination, lines(0, 2)))
    cut = make_cut(destination, lines(2, 4), 2, after=before.where)
    await destination.close()

    async def publish(client: Any) -> None:
        stream = client.jetstream()
        for index in (2, 4):
            await stream.publish(f"{harness.stream}.acme", make_line(index), headers={"Nats-Msg-Id": f"{HANDLE}:{index}"})
        await stream.publish(f"{harness.stream}.other", b"{}")
        await asyncio.sleep(0.5)  # the window is time itself
        again = await stream.publish(f"{harness.stream}.other", b"{}", headers={"Nats-Msg-Id": f"{HANDLE}:4"})
        assert not again.duplicate

    harness.talk(publish)
    restarted = harness.make()
    assert (await deliver(restarted, cut)).kind is AnswerKind.DELIVERED
    bodies = [message.data for message in harness.messages() if message.data != b"{}"]
    assert sorted(bodies) == lines(0, 6)
    await restarted.close()


async def test_acknowledgements_that_are_lost_lead_to_one_copy(harness: NatsHarness) -> None:
    """The connection breaks before any came: a retry, which finds the messages, without a mark and with one."""
    destination = harness.make()
    acknowledged = destination._acknowledged

    async def lose(waiting: Any) -> Any:
        await acknowledged(waiting)
        raise nats.errors.ConnectionClosedError

    cut = make_cut(destination, lines(0, 3))
    destination._acknowledged = lose  # type: ignore[method-assign]
    assert (await destination.send(cut)).kind is AnswerKind.RETRY
    destination._acknowledged = acknowledged  # type: ignore[method-assign]
    answer = await destination.send(cut)
    assert (answer.kind, answer.where) == (AnswerKind.DELIVERED, f"nats:{harness.stream}#1-3")
    second = make_cut(destination, lines(3, 2), 3, after=answer.where)
    destination._acknowledged = lose  # type: ignore[method-assign]
    assert (await destination.send(second)).kind is AnswerKind.RETRY
    destination._acknowledged = acknowledged  # type: ignore[method-assign]
    assert (await destination.send(second)).where == f"nats:{harness.stream}#4-5"
    assert harness.ids() == [f"acme-{index}" for index in range(5)]
    assert await destination.find(destination.place(second), second.sha256) is True
    assert await destination.find(destination.place(make_cut(destination, lines(4, 2), 4)), "") is False  # one of two
    await destination.close()


async def test_a_server_that_dies_is_noticed_at_once(tmp_path: Path) -> None:
    """Acknowledgements that cannot come any more are not waited for."""
    server = NatsServer(tmp_path, LOGINS).start()
    harness = NatsHarness(server)
    destination = harness.make()
    await destination.send(make_cut(destination, lines(0, 1)))
    acknowledged = destination._acknowledged

    async def die(waiting: Any) -> Any:
        server.kill()
        return await acknowledged(waiting)

    server.stop()
    destination._acknowledged = die  # type: ignore[method-assign]
    async with asyncio.timeout(5):  # of ten that the destination would wait
        answer = await destination.send(make_cut(destination, lines(1, 1), 1))
    assert answer.kind is AnswerKind.RETRY
    await destination.close()


async def test_a_message_too_large_is_refused_alone(harness: NatsHarness) -> None:
    """By the stream's limit; the others arrive."""
    harness.talk(lambda client: client.jsm().update_stream(**harness.config | {"max_msg_size": 3_000}))
    destination = harness.make()
    answer = await destination.send(make_cut(destination, [make_line(0), make_line(1, action="x" * 4_000), make_line(2)]))
    assert (answer.kind, answer.reason, list(answer.refused)) == (AnswerKind.DELIVERED, "too_large", [1])
    assert harness.ids() == ["acme-0", "acme-2"]
    await destination.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "uthorization"),
        ({"user": "bound"}, "ermissions"),
        ({"subject": "elsewhere.{tenant}"}, "no stream"),
        ({"timeout": None}, "duplicate window"),
    ],
)
async def test_what_the_operator_must_mend_parks(harness: NatsHarness, changes: dict[str, Any], words: str) -> None:
    """A login or a permission that is refused, a subject that the stream has not, a window that is too short."""
    if "timeout" in changes:
        harness.talk(lambda client: client.jsm().update_stream(**harness.config | {"duplicate_window": 0.3}))
        changes = {}
    if changes.get("user"):
        changes = changes | {"timeout": type(harness.timeout)("1s")}
    destination = NatsDestination("d", harness.settings(**changes))
    answer = await destination.send(make_cut(destination, lines(0, 1)))
    assert answer.kind is AnswerKind.PARK, answer
    assert words in answer.reason
    assert harness.ids() == []
    await destination.close()
