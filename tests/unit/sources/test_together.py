"""Small requests that share one commit: one fate each, and the work of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from tallystick.config import load_config
from tallystick.errors import OutcomeUnknownError, OverloadedError
from tallystick.http.host import HostCheck
from tallystick.journal.entries import Append, Committed
from tallystick.journal.frame import FrameType
from tallystick.sources.quota import Quotas
from tallystick.sources.together import Ticket, Together

from .conftest import Rig, event, ndjson

NDJSON = b"application/x-ndjson"
JSON = b"application/json"


@dataclass
class Request:
    """What the door sees of a request, and what became of it: ``answered`` or ``declined``."""

    ticket: Any
    body: bytes
    answered: Any = None
    declined: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, body: bytes) -> None:
        assert self.answered is None
        assert not self.declined
        self.answered = msgspec.json.decode(body)
        self.done.set()

    def hang_up(self) -> None:
        assert self.answered is None
        self.answered = "nothing"
        self.done.set()

    def decline(self) -> None:
        assert self.answered is None
        assert not self.declined
        self.declined += 1
        self.done.set()


def head(secret: str, media: bytes = NDJSON, **more: str) -> dict[bytes, bytes]:
    lines = {b"host": b"127.0.0.1:8420", b"authorization": f"Bearer {secret}".encode(), b"content-type": media}
    return lines | {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}


@pytest.fixture
def door(rig: Rig) -> Together:
    rig.access.verify(head(rig.secret)[b"authorization"])
    return Together(rig.parts, HostCheck(rig.config.server))


async def send(door: Together, rig: Rig, *bodies: bytes, secret: str = "", media: bytes = NDJSON) -> list[Request]:
    """All bodies in one turn of the loop."""
    ticket = door.ticket(b"/v1/events", head(secret or rig.secret, media))
    assert ticket is not None
    requests = [Request(ticket, body) for body in bodies]
    for request in requests:
        door.take(request)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        for request in requests:
            await request.done.wait()
    return requests


async def test_requests_of_one_turn_are_one_frame_and_have_an_answer_each(rig: Rig, door: Together) -> None:
    """Ranges follow one another, roots are those of each request alone, and ids are each request's own."""
    bodies = [ndjson(event(action=f"a.{n}"), event(action=f"b.{n}")) for n in range(3)]
    found = await send(door, rig, *bodies)
    assert len(rig.frames(FrameType.EVENTS)) == 1
    stored = rig.events()
    for n, request in enumerate(found):
        (receipt,) = request.answered["receipts"]
        assert receipt["ranges"] == [[2 * n, 2]]
        assert request.answered["accepted"] == 2
        assert request.answered["ids"] == [stored[2 * n]["id"], stored[2 * n + 1]["id"]]
        assert [item["action"] for item in stored[2 * n : 2 * n + 2]] == [f"a.{n}", f"b.{n}"]
    assert rig.service.tallies.page()["events"]["accepted"] == 6


async def test_an_answer_is_the_one_that_a_request_alone_would_get(rig: Rig, door: Together) -> None:
    """Repeated alone through the ordinary door, a request with ids gets the same ranges and root, as duplicates."""
    bodies = [ndjson(event(id=f"x{n}"), event(id=f"y{n}")) for n in range(3)]
    found = await send(door, rig, *bodies)
    for body, request in zip(bodies, found, strict=True):
        again = await rig.accept(body=body)
        assert (again["accepted"], again["duplicates"]) == (0, 2)
        (first,), (second,) = request.answered["receipts"], again["receipts"]
        assert [first[name] for name in ("log", "ranges", "batch_root")] == [
            second[name] for name in ("log", "ranges", "batch_root")
        ]
        assert "ids" not in request.answered


async def test_a_fault_is_its_own_requests_alone(rig: Rig, door: Together) -> None:
    """Invalid events, a conflict and an empty body are declined; their neighbours are accepted as if nothing was."""
    await rig.accept(body=ndjson(event(id="taken")))
    bodies = [
        ndjson(event(id="a")),
        b'{"action":"no.actor"}',
        ndjson(event(id="taken", reason="other content")),
        ndjson(event(id="b"), {"action": "x", "actor": "u", "bogus": 1}),
        b"",
        ndjson(event(id="c")),
    ]
    found = await send(door, rig, *bodies)
    assert [request.declined for request in found] == [0, 1, 1, 1, 1, 0]
    assert [item["id"] for item in rig.events()] == ["taken", "a", "c"]
    assert found[5].answered["receipts"][0]["ranges"] == [[2, 1]]


async def test_the_same_event_twice_in_one_turn_is_stored_once(rig: Rig, door: Together) -> None:
    """The second sender is told that it is a duplicate, at the first one's position."""
    body = ndjson(event(id="once"))
    first, second = await send(door, rig, body, body)
    assert (first.answered["accepted"], second.answered["duplicates"]) == (1, 1)
    assert first.answered["receipts"] == second.answered["receipts"]
    assert len(rig.events()) == 1


async def test_tenants_of_one_key_are_kept_apart(rig: Rig, door: Together) -> None:
    """One request may name several tenants; each gets its receipt, and made ids come in the order of the request."""
    one = ndjson(event(tenant="acme", action="a.1"), event(tenant="beta", action="a.2"), event(tenant="acme", action="a.3"))
    found = await send(door, rig, one, ndjson(event(tenant="beta", action="a.4")))
    assert sorted(receipt["ranges"][0] for receipt in found[0].answered["receipts"]) == [[0, 1], [0, 2]]
    assert found[1].answered["receipts"][0]["ranges"] == [[1, 1]]
    by_id = {item["id"]: item["action"] for tenant in ("acme", "beta") for item in rig.events(tenant)}
    assert [by_id[name] for name in found[0].answered["ids"]] == ["a.1", "a.2", "a.3"]
    assert [by_id[name] for name in found[1].answered["ids"]] == ["a.4"]


async def test_keys_are_kept_apart(rig: Rig, door: Together) -> None:
    """Two keys in one turn are two commits, each under its own credential and tenant."""
    other = rig.secret_for("acme")
    for secret in (other, rig.secret):
        rig.access.verify(f"Bearer {secret}".encode())
    mine, theirs = await asyncio.gather(send(door, rig, ndjson(event())), send(door, rig, ndjson(event()), secret=other))
    assert mine[0].answered["accepted"] == theirs[0].answered["accepted"] == 1
    assert len(rig.events("acme")) == len(rig.events()) == 1
    assert rig.events("acme")[0]["source"]["credential"] != rig.events()[0]["source"]["credential"]


async def test_a_tenant_that_is_not_the_keys_is_declined(rig: Rig, door: Together) -> None:
    """So that the ordinary door can answer 403."""
    other = rig.secret_for("acme")
    rig.access.verify(f"Bearer {other}".encode())
    (request,) = await send(door, rig, ndjson(event(tenant="beta")), secret=other)
    assert request.declined


async def test_pushback_declines_all(rig: Rig, door: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is then told 503 by the ordinary way, which also knows when to try again."""

    async def refuse(_: Any) -> Any:
        raise OverloadedError("full")

    monkeypatch.setattr(rig.service.journal, "append", refuse)
    assert [request.declined for request in await send(door, rig, ndjson(event()), ndjson(event()))] == [1, 1]


async def test_one_object_is_taken_and_an_array_is_not(rig: Rig, door: Together) -> None:
    """With ``application/json``; a pretty printed object is fine."""
    pretty = msgspec.json.format(msgspec.json.encode(event()), indent=2)
    found = await send(door, rig, pretty, b" [" + msgspec.json.encode(event()) + b"]", media=JSON)
    assert [request.declined for request in found] == [0, 1]
    assert found[0].answered["accepted"] == 1


async def test_filters_are_counted_for_the_request_they_hit(rig: Rig, tmp_path: Any) -> None:
    """What a filter takes away is in that request's answer, and in the account."""
    from tallystick.query.evaluate import compile_query
    from tallystick.sources.plan import build_plans

    path = tmp_path / "filtering.toml"
    text = (tmp_path / "tallystick.toml").read_text().replace('transforms = ["secrets"]', 'transforms = ["noise"]')
    path.write_text(text)
    rig.service.plans = build_plans(load_config(path), compile_query)
    rig.access.verify(head(rig.secret)[b"authorization"])
    door = Together(rig.parts, HostCheck(rig.config.server))
    noise = event(action="health.check")
    found = await send(door, rig, ndjson(event(), noise), ndjson(noise), ndjson(event()))
    assert [(item.answered["accepted"], item.answered["filtered"]) for item in found] == [(1, 1), (0, 1), (1, 0)]
    assert sum(record["count"] for record in rig.records(FrameType.FILTERED)) == 2


async def test_heads_that_need_a_second_look_get_no_ticket(rig: Rig, door: Together) -> None:
    """Other targets, types, hosts, keys not seen or revoked, keyed requests, CloudEvents: all go the ordinary way."""
    assert isinstance(door.ticket(b"/v1/events", head(rig.secret)), Ticket)
    reader = rig.secret_for("acme", permissions=("read",))
    rig.access.verify(f"Bearer {reader}".encode())
    assert door.ticket(b"/v1/events?on_invalid=quarantine", head(rig.secret)) is None
    assert door.ticket(b"/v1/in/github", head(rig.secret)) is None
    assert door.ticket(b"/v1/events", head(rig.secret, b"text/plain")) is None
    assert door.ticket(b"/v1/events", head(rig.secret, idempotency_key="k")) is None
    assert door.ticket(b"/v1/events", head(rig.secret, ce_specversion="1.0")) is None
    assert door.ticket(b"/v1/events", head(rig.secret) | {b"host": b"evil.example"}) is None
    assert door.ticket(b"/v1/events", head(reader)) is None
    assert door.ticket(b"/v1/events", head(rig.secret_for("acme"))) is None  # not seen yet
    rig.access.revoke(rig.secret.split("_")[1])
    assert door.ticket(b"/v1/events", head(rig.secret)) is None


async def test_quotas_send_everything_the_ordinary_way(rig: Rig, door: Together) -> None:
    """There each request is charged by itself."""
    limits = msgspec.structs.replace(rig.config.limits, key_events_per_second=5)
    rig.service.quotas = Quotas(limits)
    assert door.ticket(b"/v1/events", head(rig.secret)) is None


async def test_when_the_outcome_is_unknown_nobody_is_answered_or_tried_again(rig: Rig, door: Together) -> None:
    """The events may be stored: to send them once more under new ids would store them twice."""

    class Gone:
        async def append(self, request: Append) -> Committed:
            raise OutcomeUnknownError("the writer ended")

    rig.service.journal = Gone()
    found = await send(door, rig, ndjson(event()), ndjson(event()))
    assert [(request.answered, request.declined) for request in found] == [("nothing", 0)] * 2
