"""A source's way in, over a real journal: patience, halves, the quarantine, gaps."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from tallystick.errors import NotAcceptingError, OverloadedError
from tallystick.event import Actor, Event
from tallystick.journal.frame import FrameType
from tallystick.plugin import Decoded, Fault, Record, Sender
from tallystick.sources.inlet import Inlet
from tallystick.sources.plan import SourcePlan
from tallystick.transforms import load_mappings

from .conftest import Rig

PLAN = SourcePlan("stream", "test", None, load_mappings()["generic"], (), "quarantine")
NATIVE = SourcePlan("stream", "test", None, None, (), "quarantine")


def inlet(rig: Rig, plan: SourcePlan = PLAN, give_up: asyncio.Event | None = None) -> Inlet:
    rig.service.plans = {**rig.service.plans, plan.name: plan}
    rig.service.tallies.add(plan.name, plan.type)
    return Inlet(rig.service, plan, give_up or asyncio.Event())


def records(*members: dict[str, Any]) -> list[Record]:
    return [Record(msgspec.json.encode(one), line, "192.0.2.9") for line, one in enumerate(members, 1)]


async def test_records_are_durable_when_the_commit_returns(rig: Rig) -> None:
    """Mapped, in order, for the tenant `default`, with the source's name and no credential."""
    taken = await inlet(rig).commit_records(records({"n": 1}, {"n": 2}))
    assert (taken.accepted, taken.quarantined) == (2, 0)
    found = rig.events()
    assert [one["metadata"]["n"] for one in found] == [1, 2]
    assert found[0]["source"] == {"name": "stream", "type": "test"}
    assert found[0]["actor"]["id"] == "192.0.2.9"


async def test_a_decoded_batch_keeps_its_events_and_its_faults(rig: Rig) -> None:
    """Events of the source's own decoder are stored with their sender; what is none goes to the quarantine with place and reason."""
    event = Event(action="syslog.record", actor=Actor(type="system", id="h"))
    decoded = Decoded([event], [b"<1>x"], [1], [Fault(2, "odd", "what is this", b"???")])
    taken = await inlet(rig).commit_decoded(lambda: decoded, 7, Sender("cert:web-1", ("acme",)), "192.0.2.9")
    assert (taken.accepted, taken.quarantined) == (1, 1)
    assert rig.events("acme")[0]["source"]["credential"] == "cert:web-1"
    (bad,) = rig.records(FrameType.QUARANTINED)
    assert (bad["line"], bad["code"], bad["peer"], bad["tenant"]) == (2, "odd", "192.0.2.9", "acme")
    assert base64.b64decode(bad["data"]) == b"???"


async def test_what_is_refused_for_now_is_tried_until_it_is_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal refuses twice: the commit waits, says why meanwhile, and stores each event once."""
    way, append, refusals = inlet(rig), rig.service.journal.append, [1, 1]
    seen = []

    async def refusing(request: Any) -> Any:
        seen.append(way.pushback)
        if refusals:
            refusals.pop()
            raise OverloadedError("dialled")
        return await append(request)

    monkeypatch.setattr(rig.service.journal, "append", refusing)
    await way.commit_records(records({"n": 1}, {"n": 2}))
    assert seen == ["", "dialled", "dialled"]
    assert way.pushback == ""
    assert [one["metadata"]["n"] for one in rig.events()] == [1, 2]


async def test_the_stop_ends_the_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that cannot be made before the server ends says so, and nothing was stored."""
    give_up = asyncio.Event()
    way = inlet(rig, give_up=give_up)

    async def refusing(request: Any) -> Any:
        give_up.set()
        raise OverloadedError("dialled")

    monkeypatch.setattr(rig.service.journal, "append", refusing)
    with pytest.raises(NotAcceptingError, match="dialled"):
        await way.commit_records(records({"n": 1}))
    assert rig.frames(FrameType.EVENTS) == []


async def test_one_record_of_a_foreign_tenant_holds_nobody_up(rig: Rig) -> None:
    """Among native events one names another tenant: it goes to the quarantine, the others are stored in order."""
    own = {"action": "a.b", "actor": "u"}
    sent = records(*({**own, "reason": str(n)} for n in range(3)), {**own, "tenant": "globex"}, {**own, "reason": "4"})
    taken = await inlet(rig, NATIVE).commit_records(sent)
    assert (taken.accepted, taken.quarantined) == (4, 1)
    assert [one["reason"] for one in rig.events()] == ["0", "1", "2", "4"]
    (bad,) = rig.records(FrameType.QUARANTINED)
    assert (bad["code"], bad["line"], bad["tenant"]) == ("tenant_forbidden", 4, "default")
    assert rig.service.tenants.get("globex") is None


async def test_more_events_than_a_request_may_have_are_stored_in_parts(rig: Rig) -> None:
    """The limit on events in one commit (50 here) is kept by halves; a single container past it goes to the quarantine."""
    taken = await inlet(rig).commit_records(records(*({"n": n} for n in range(120))))
    assert taken.accepted == 120
    assert [one["metadata"]["n"] for one in rig.events()] == list(range(120))
    container = Record(msgspec.json.encode([{"n": n} for n in range(60)]))
    assert (await inlet(rig).commit_records([container])).quarantined == 1
    assert [bad["code"] for bad in rig.records(FrameType.QUARANTINED)] == ["too_many_events"]


async def test_a_gap_is_in_the_account_once(rig: Rig) -> None:
    """Told twice under one id it is one entry of the tenant's account."""
    way = inlet(rig)
    for _ in range(2):
        await way.record_gap("udp:1", {"reason": "udp_dropped", "count": 7})
    (entry,) = rig.records(FrameType.ACCOUNT)
    assert entry["entry"] == {"type": "gap", "source": "stream", "reason": "udp_dropped", "count": 7}
    assert entry["tenant"] == "default"


async def test_a_record_without_an_id_is_named_by_its_place(rig: Rig) -> None:
    """Read again from the same place it is a duplicate; a record with an id of its own keeps it, mapped or native."""
    plain = [Record(msgspec.json.encode({"n": n}), n, "orders", f"orders:0:{n}.abc") for n in (1, 2)]
    own = Record(msgspec.json.encode({"id": "mine", "action": "a.b", "actor": "u"}), 1, "", "orders:0:3.abc")
    native = Record(msgspec.json.encode({"action": "a.b", "actor": "u"}), 2, "", "orders:0:4.abc")
    assert (await inlet(rig).commit_records(plain)).accepted == 2
    assert (await inlet(rig).commit_records(plain)).duplicates == 2
    assert (await inlet(rig, NATIVE).commit_records([own, native])).accepted == 2
    assert [one["id"] for one in rig.events()] == ["orders:0:1.abc", "orders:0:2.abc", "mine", "orders:0:4.abc"]


async def test_equal_records_at_two_places_are_two_events(rig: Rig) -> None:
    """The place counts, not the digest, though the records have a time; the events of one container are told apart by number."""
    same = msgspec.json.encode({"time": "2026-03-01T10:00:00Z", "n": 1})
    pair = Record(b"[" + same + b"," + same + b"]", 1, "", "orders:0:3.abc")
    records_ = [Record(same, 1, "", "orders:0:1.abc"), Record(same, 2, "", "orders:0:2.abc"), pair]
    assert (await inlet(rig).commit_records(records_)).accepted == 4
    assert [one["id"] for one in rig.events()] == ["orders:0:1.abc", "orders:0:2.abc", "orders:0:3.abc", "orders:0:3.abc.2"]
