"""The forward destination, against a receiver that fluent-logger, Fluentd's own client, is happy with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from fluent import sender

from support.delivery import make_cut, make_line
from support.server import wait_for
from tallystick.config import Duration
from tallystick.destinations.encodings.forward_chunk import ForwardChunk, chunk_of
from tallystick.destinations.encodings.json import make
from tallystick.destinations.forward import ForwardDestination, ForwardSettings
from tallystick.errors import ConfigError
from tallystick.plugin import AnswerKind
from tallystick.testing.forward import ForwardReceiver

LINES = [make_line(index) for index in range(4)]


@pytest.fixture
def receiver() -> Iterator[ForwardReceiver]:
    with ForwardReceiver() as running:
        yield running


def make_destination(receiver: ForwardReceiver, **changes: Any) -> ForwardDestination:
    mine = {"host": "127.0.0.1", "port": receiver.port, "ack_timeout": Duration("5s")}
    return ForwardDestination("fluent", ForwardSettings(**(mine | changes)))


def test_the_receiver_takes_what_fluentds_own_client_sends(receiver: ForwardReceiver) -> None:
    """A record with its tag and time."""
    client = sender.FluentSender("app", host="127.0.0.1", port=receiver.port)
    assert client.emit_with_time("login", 1_772_600_767, {"user": "ann"})
    wait_for(lambda: bool(receiver.entries), "an entry")
    client.close()
    assert receiver.entries == [("app.login", 1_772_600_767, {"user": "ann"})]


async def test_a_cut_is_a_chunk_with_its_times(receiver: ForwardReceiver) -> None:
    """Records are the canonical members; times have nanoseconds; two cuts share a connection, one chunk after the other."""
    destination = make_destination(receiver)
    for first in (0, 2):
        answer = await destination.send(make_cut(destination, LINES[first : first + 2], first))
        assert answer.kind is AnswerKind.DELIVERED
        assert answer.where.endswith(f"chunk {receiver.chunks[-1]}")
    await destination.close()
    assert [record for _, _, record in receiver.entries] == [json.loads(line) for line in LINES]
    assert {(tag, time) for tag, time, _ in receiver.entries} == {
        ("tallystick.acme", msgpack.ExtType(0, struct.pack(">II", 1_772_600_767, 0)))
    }
    assert len(set(receiver.chunks)) == 2


async def test_what_is_not_acknowledged_comes_again_under_its_name(receiver: ForwardReceiver) -> None:
    """Taken without a word: a retry, and the next attempt bears the same chunk."""
    receiver.acks = False
    destination = make_destination(receiver, ack_timeout=Duration("100ms"))
    cut = make_cut(destination, LINES)
    answer = await destination.send(cut)
    assert (answer.kind, answer.reason) == (AnswerKind.RETRY, "no ack within 0.1 s")
    receiver.acks = True
    await destination.close()
    patient = make_destination(receiver)
    assert (await patient.send(cut)).kind is AnswerKind.DELIVERED
    assert receiver.chunks == [chunk_of(cut.body)] * 2
    await patient.close()


async def test_a_connection_that_was_closed_is_a_retry(receiver: ForwardReceiver) -> None:
    """Closed at once, and nobody there."""
    receiver.is_up = False
    destination = make_destination(receiver)
    assert (await destination.send(make_cut(destination, LINES))).kind is AnswerKind.RETRY
    await destination.close()


async def test_the_handshake_proves_the_key_both_ways(receiver: ForwardReceiver) -> None:
    """The right key goes in, a wrong one parks, and none at all where the server asks for one parks with what to do."""
    receiver.shared_key = "a key that both know"
    for key, kind, words in (
        ("a key that both know", AnswerKind.DELIVERED, ""),
        ("another", AnswerKind.PARK, "shared_key mismatch"),
        (None, AnswerKind.PARK, "asks for a shared key"),
    ):
        destination = make_destination(receiver, shared_key=key, hostname="us")
        answer = await destination.send(make_cut(destination, LINES))
        assert (answer.kind, words in answer.reason) == (kind, True)
        await destination.close()
    assert len(receiver.entries) == 4


def test_every_line_has_an_entry() -> None:
    """Integers beyond 64 bits become text, times beyond an EventTime the time of receipt."""
    event = json.loads(LINES[0]) | {"occurred_at": "1960-01-01T00:00:00.000000Z", "metadata": {"n": [1 << 70], "m": -1}}
    late = event | {"occurred_at": "2200-01-01T00:00:00.000000Z"}
    lines = [json.dumps(one, separators=(",", ":")).encode() for one in (event, late)]
    body = ForwardChunk(make({}), "t").encode(lines, origin="o", first_index=0, last_index=1)
    assert body == ForwardChunk(make({}), "t").encode(lines, origin="o", first_index=0, last_index=1)
    receiver = ForwardReceiver()
    receiver._take(msgpack.unpackb(body))
    receiver._server.server_close()
    assert [record["metadata"] for _, _, record in receiver.entries] == [{"n": [str(1 << 70)], "m": -1}] * 2
    assert {time.data for _, time, _ in receiver.entries} == {struct.pack(">II", 1_772_600_768, 0)}


@pytest.mark.parametrize("changes", [{"host": "logs.example.com"}, {"username": "u"}, {"username": "u", "password": "p"}])
def test_settings_that_cannot_work_are_refused(receiver: ForwardReceiver, changes: dict[str, Any]) -> None:
    """In the clear to another machine, half a user, a user without a handshake."""
    with pytest.raises(ConfigError):
        ForwardSettings(**({"host": "127.0.0.1"} | changes)).check()
