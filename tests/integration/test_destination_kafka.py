"""Destination `kafka` against a real broker: what the contract does not ask."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from contract.servers import KafkaHarness
from support.delivery import make_cut, make_line
from support.kafka_broker import PASSWORD, USER, KafkaBroker
from tallystick.config import Duration
from tallystick.destinations.kafka import KafkaDestination
from tallystick.plugin import AnswerKind
from tallystick.sources.kafka_login import SaslSettings
from tallystick.sources.remote import RemoteTlsSettings


@pytest.fixture
def harness(kafka_broker: KafkaBroker) -> KafkaHarness:
    return KafkaHarness(kafka_broker)


def lines(first: int, count: int) -> list[bytes]:
    return [make_line(index) for index in range(first, first + count)]


async def test_records_carry_key_line_and_proof(kafka_broker: KafkaBroker) -> None:
    """The value is the canonical line, the key the value at a path, the headers say which part of which log it is, over TLS with a login."""
    harness = KafkaHarness(kafka_broker, partitions=3)
    secure = {
        "servers": (kafka_broker.secure_address,),
        "sasl": SaslSettings(mechanism="SCRAM-SHA-512", user=USER, password=PASSWORD),
        "tls": RemoteTlsSettings(ca=str(kafka_broker.directory / "ca.pem")),
    }
    destination = KafkaDestination("d", harness.settings(key="actor.id", **secure))
    cut = make_cut(destination, lines(4, 9), 4)
    answer = await destination.send(cut)
    assert answer.where.startswith(f"kafka:{harness.topic}#at=")
    found = {message.value(): message for message in harness.records()}
    assert set(found) == set(cut.lines)
    headers = dict(found[cut.lines[1]].headers())
    assert headers["tallystick-id"] == b"acme-5"
    assert headers["tallystick-index"] == b"5"
    assert headers["tallystick-range"] == b"4-12"
    assert headers["tallystick-log"].decode() == cut.origin
    assert headers["tallystick-checkpoint"].decode() == cut.checkpoint
    assert headers["content-type"] == b"application/json"
    by_key = {}
    for message in found.values():
        assert message.key().decode() == json.loads(message.value())["actor"]["id"]
        by_key.setdefault(message.key(), set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in by_key.values())
    await destination.close()


async def test_a_refused_login_parks(harness: KafkaHarness) -> None:
    """The broker says no; nobody but the operator can change that."""
    secure = {
        "servers": (harness.broker.secure_address,),
        "sasl": SaslSettings(mechanism="SCRAM-SHA-512", user=USER, password="wrong"),
        "tls": RemoteTlsSettings(ca=str(harness.broker.directory / "ca.pem")),
    }
    destination = KafkaDestination("d", harness.settings(timeout=Duration("2s"), **secure))
    answer = await destination.send(make_cut(destination, lines(0, 1)))
    assert answer.kind is AnswerKind.PARK, answer
    await destination.close()


async def test_a_commit_whose_answer_was_lost_is_read_back(harness: KafkaHarness) -> None:
    """Among records of others, with and without a mark of the last settled cut; what is not there is sent."""
    destination = harness.make()
    first = make_cut(destination, lines(0, 3))
    commit = destination._commit

    def lose(producer: Producer) -> None:
        commit(producer)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    destination._commit = lose  # type: ignore[method-assign]
    assert (await destination.send(first)).kind is AnswerKind.RETRY
    harness.broker.send(harness.topic, [b"another's"])
    destination._commit = commit  # type: ignore[method-assign]
    answer = await destination.send(first)
    assert answer.kind is AnswerKind.DELIVERED
    assert answer.where.endswith("&0=0-2")
    destination._commit = lose  # type: ignore[method-assign]
    second = make_cut(destination, lines(3, 2), 3, after=answer.where)
    assert (await destination.send(second)).kind is AnswerKind.RETRY
    assert await destination.find(destination.place(second), second.sha256) is True
    assert await destination.find(destination.place(make_cut(destination, lines(9, 1), 9)), "") is False
    await destination.close()
    again = harness.make()
    assert (await again.send(second)).kind is AnswerKind.DELIVERED
    assert (await again.send(make_cut(again, lines(5, 1), 5))).kind is AnswerKind.DELIVERED
    values = [message.value() for message in harness.records() if message.value() != b"another's"]
    assert values == lines(0, 6)
    await again.close()


async def test_an_attempt_that_nobody_waits_for_any_more_is_read_back(harness: KafkaHarness) -> None:
    """Its task was cancelled, its thread went on and committed: the same destination sends the cut again, and it is there once."""
    destination = harness.make()
    await destination.send(make_cut(destination, lines(0, 1)))
    commit, is_committing, may_commit = destination._commit, threading.Event(), threading.Event()

    def hold(producer: Producer) -> None:
        is_committing.set()
        assert may_commit.wait(20)
        commit(producer)

    destination._commit = hold  # type: ignore[method-assign]
    cut = make_cut(destination, lines(1, 2), 1)
    attempt = asyncio.create_task(destination.send(cut))
    assert await asyncio.to_thread(is_committing.wait, 20)
    attempt.cancel()
    await asyncio.wait([attempt])
    may_commit.set()
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    await destination.close()


async def test_a_replay_of_a_settled_cut_is_sent(harness: KafkaHarness) -> None:
    """Though the same records lie at the end of the topic that is read back: those are settled, and somebody wants them again."""
    destination = harness.make()
    cut = make_cut(destination, lines(0, 2))
    answer = await destination.send(cut)
    await destination.close()
    again = harness.make()
    assert (await again.send(make_cut(again, lines(0, 2), after=answer.where))).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0", "acme-1"] * 2
    await again.close()


async def test_an_aborted_attempt_is_not_taken_for_a_delivery(harness: KafkaHarness) -> None:
    """The process ends before the commit: its records are in the topic, undone, and the cut is sent again."""
    destination = harness.make()
    cut = make_cut(destination, lines(0, 3))

    def fail(producer: Producer) -> None:
        raise KafkaException(KafkaError(KafkaError._FAIL))

    destination._commit = fail  # type: ignore[method-assign]
    assert (await destination.send(cut)).kind is AnswerKind.RETRY
    again = harness.make()
    assert (await again.send(cut)).kind is AnswerKind.DELIVERED
    found = harness.records()
    assert [message.value() for message in found] == lines(0, 3)
    assert found[0].offset() == 4  # after three records and the mark of their abort
    await destination.close()
    await again.close()


async def test_a_transaction_of_somebody_else_hides_nothing(harness: KafkaHarness) -> None:
    """While another producer's transaction is open the end cannot be read: no guess, a retry, until it ends."""
    other = Producer({"bootstrap.servers": harness.broker.address, "transactional.id": f"other-{harness.topic}"})
    await asyncio.to_thread(other.init_transactions, 20)
    other.begin_transaction()
    other.produce(harness.topic, b"another's")
    assert await asyncio.to_thread(other.flush, 20) == 0
    destination = KafkaDestination("d", harness.settings(timeout=Duration("2s")))
    cut = make_cut(destination, lines(0, 1))
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.RETRY
    assert "another producer" in answer.reason
    await asyncio.to_thread(other.abort_transaction, 20)
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0"]
    await destination.close()


async def test_an_event_too_large_for_the_topic_is_split_off(harness: KafkaHarness) -> None:
    """Told by the client or by the broker; nothing of the cut stays visible."""
    topic = harness.broker.new_topic(**{"max.message.bytes": "2000"})
    large = make_line(0, action="x" * 3_000)
    destination = KafkaDestination("d", harness.settings(topic=topic, compression="none"))
    answer = await destination.send(make_cut(destination, [large]))
    assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "too_large")
    assert (await destination.send(make_cut(destination, [make_line(1)], 1))).kind is AnswerKind.DELIVERED
    await destination.close()
