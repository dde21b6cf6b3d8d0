"""The collector's doors: tokens, channels, acknowledgements, and what becomes of events."""

from __future__ import annotations

import base64
import dataclasses
import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.config import load_config
from tallystick.errors import OverloadedError
from tallystick.journal.frame import FrameType
from tallystick.query.evaluate import compile_query
from tallystick.sources.hec_acks import AckIds
from tallystick.sources.plan import build_plans
from tallystick.sources.routes import build_routes
from tallystick.sources.tally import SourceTallies

from .conftest import Answer, Rig

PATH = "/services/collector"
CHANNEL = "0aeeac95-ac74-4aa9-b30d-6c4c0ac581ba"
OK = {"text": "Success", "code": 0}


async def post(rig: Rig, body: bytes = b'{"event":"a"}', path: str = "/event", **options: Any) -> Answer:
    headers = [("authorization", options.pop("token", f"Splunk {rig.secret}")), *options.pop("headers", ())]
    return await rig.call(PATH + path, body, media=None, authorization=False, headers=headers, **options)


def code_of(answer: Answer) -> tuple[int, int]:
    return answer.status, answer.json()["code"]


def reconfigure(rig: Rig, tmp_path: Path, text: str) -> None:
    """Give the rig the sources of another configuration."""
    path = tmp_path / "other.toml"
    path.write_text(text)
    plans = build_plans(load_config(path), compile_query)
    rig.service.plans = plans
    rig.service.tallies = SourceTallies((plan.name, plan.type) for plan in plans.values())
    rig.front = dataclasses.replace(rig.front, routes=build_routes(rig.parts, plans))


@pytest.mark.parametrize("path", ["", "/event", "/event/1.0"])
async def test_events_are_stored(rig: Rig, path: str) -> None:
    """The answer is Splunk's, the event has what the object said, and the index chose no tenant."""
    body = (
        b'{"time":1772618400.25,"host":"web-1","source":"app","sourcetype":"_json","index":"other","fields":{"r":"eu"},'
        b'"event":{"action":"user.login","user":"u_1","ip":"192.0.2.1","n":1.50}}{"event":"a line of text"}'
    )
    answer = await post(rig, body, path)
    assert (answer.status, answer.json()) == (200, OK)
    first, second = rig.events()
    assert (first["action"], first["actor"]) == ("user.login", {"type": "user", "id": "u_1"})
    assert (first["occurred_at"], first["context"]) == ("2026-03-04T10:00:00.250000Z", {"ip": "192.0.2.1"})
    head = {"host": "web-1", "source": "app", "sourcetype": "_json", "index": "other", "fields": {"r": "eu"}}
    assert first["metadata"] == {"n": 1.5, "hec": head}
    assert first["source"] == {"name": "hec", "type": "hec", "credential": rig.secret.split("_")[1]}
    assert (second["action"], second["actor"]) == ("hec.record", {"type": "system", "id": "192.0.2.7"})
    assert second["metadata"] == {"message": "a line of text"}
    assert "raw" not in first


async def test_lines_of_a_raw_body_are_events(rig: Rig) -> None:
    """One a line; the query string says where they come from."""
    body = b"Accepted publickey for ann\r\n\nnext line\n"
    answer = await post(rig, body, "/raw?host=web-2&source=auth.log&sourcetype=linux_secure&time=1772618400")
    assert answer.json() == OK
    first, second = rig.events()
    assert first["metadata"] == {
        "message": "Accepted publickey for ann",
        "hec": {"host": "web-2", "source": "auth.log", "sourcetype": "linux_secure"},
    }
    assert (first["actor"]["id"], first["occurred_at"]) == ("web-2", "2026-03-04T10:00:00.000000Z")
    assert second["metadata"]["message"] == "next line"


async def test_a_compressed_body(rig: Rig) -> None:
    """gzip, as forwarders send it."""
    answer = await post(rig, gzip.compress(b'{"event":"a"}'), headers=[("content-encoding", "gzip")])
    assert answer.json() == OK


@pytest.mark.parametrize("scheme", ["Splunk", "splunk", "Bearer", "Basic"])
async def test_a_token_in_each_form(rig: Rig, scheme: str) -> None:
    """As Splunk takes it: with its own scheme, as a bearer token, or as the password of Basic."""
    secret = base64.b64encode(f"x:{rig.secret}".encode()).decode() if scheme == "Basic" else rig.secret
    assert code_of(await post(rig, token=f"{scheme} {secret}")) == (200, 0)


async def test_tokens_that_are_not_right(rig: Rig) -> None:
    """Each with the code that tells a client's owner what to look at; nothing is stored."""
    assert code_of(await rig.call(f"{PATH}/event", b"{}", authorization=False)) == (401, 2)
    assert code_of(await rig.call(f"{PATH}/event?token={rig.secret}", b"{}", authorization=False)) == (400, 16)
    for token in ("Digest x", rig.secret, "Basic !", "Basic ü"):
        assert code_of(await post(rig, token=token)) == (401, 3)
    for token in ("Splunk 00000000-0000-0000-0000-000000000000", "Splunk ts_nobody00_" + "x" * 43, "Splunk "):
        assert code_of(await post(rig, token=token)) == (403, 4)
    assert code_of(await post(rig, token=f"Splunk {rig.secret_for(permissions=('read',))}")) == (403, 1)
    assert rig.frames(FrameType.EVENTS) == []


async def test_too_many_wrong_tokens_are_told_to_wait(rig: Rig) -> None:
    """429 with the time, as at the other doors."""
    answers = [await post(rig, token="Splunk ts_nobody00_" + "x" * 43) for _ in range(6)]
    assert [answer.status for answer in answers] == [403] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", {"text": "No data", "code": 5}),
        (b"x", {"text": "Invalid data format", "code": 6, "invalid-event-number": 0}),
        (b'{"event":"good"}{"event":', {"text": "Invalid data format", "code": 6, "invalid-event-number": 1}),
        (b'{"event":"good"}{"time":1}', {"text": "Event field is required", "code": 12, "invalid-event-number": 1}),
        (b'{"event":"good"}{"event":""}', {"text": "Event field cannot be blank", "code": 13, "invalid-event-number": 1}),
        (b'{"event":"a","fields":{"a":{}}}', {"text": "Error in handling indexed fields", "code": 15, "invalid-event-number": 0}),
    ],
)
async def test_a_wrong_form_is_refused_whole(rig: Rig, body: bytes, answer: dict[str, Any]) -> None:
    """With Splunk's code and the number of the event; nothing of the request is stored."""
    found = await post(rig, body)
    assert (found.status, found.json()) == (400, answer)
    assert rig.frames(FrameType.EVENTS) == rig.frames(FrameType.QUARANTINED) == []


async def test_what_is_well_formed_and_no_event_is_quarantined(rig: Rig) -> None:
    """The good ones are stored, the answer is success and names the others; asked for, that holds for wrong forms too."""
    answer = await post(rig, b'{"event":"good"}{"event":{"a":1,"a":2},"host":"h"}{"event":"good"}')
    assert (answer.status, answer.json()["code"]) == (200, 0)
    assert [(bad["line"], bad["code"]) for bad in answer.json()["quarantined"]] == [(2, "key_duplicate")]
    assert len(rig.events()) == 2
    (record,) = rig.records(FrameType.QUARANTINED)
    assert base64.b64decode(record["data"]) == b'{"event":{"a":1,"a":2},"host":"h"}'
    kept = await post(rig, b'{"event":"good"}{"event":""}', "/event?on_invalid=quarantine")
    assert [bad["line"] for bad in kept.json()["quarantined"]] == [2]
    refused = await post(rig, b'{"event":"good"}{"event":{"a":1,"a":2}}', "/event?on_invalid=reject")
    assert (code_of(refused), refused.json()["invalid-event-number"]) == ((422, 6), 1)
    assert code_of(await post(rig, path="/event?on_invalid=maybe")) == (400, 6)


async def test_a_quarantined_record_can_be_replayed_as_what_it_was(rig: Rig) -> None:
    """An object of `/event` with its host and time, a line of `/raw` as a line."""
    records = ['{"event":{"user":"u_1"},"host":"web-1","time":1772618400}', "a line"]
    done = await rig.call(
        "/records", msgspec.json.encode({"source": "hec", "tenant": "default", "records": records}), app=rig.inner
    )
    assert (done.status, done.json()["accepted"]) == (200, 2)
    first, second = rig.events()
    assert (first["actor"]["id"], first["occurred_at"]) == ("u_1", "2026-03-04T10:00:00.000000Z")
    assert (first["metadata"]["hec"], second["metadata"]) == ({"host": "web-1"}, {"message": "a line"})


async def test_repeats_are_merged_by_the_events_own_id(rig: Rig) -> None:
    """An event that names itself is stored once; two equal ones without a name are two events."""
    body = b'{"time":1,"event":{"id":"e-1","n":1}}{"time":1,"event":{"n":2}}{"time":1,"event":{"n":2}}'
    for _ in range(2):
        assert (await post(rig, body)).json() == OK
    assert [event["metadata"].get("n") for event in rig.events()] == [1, 2, 2, 2, 2]


async def test_acknowledgements(rig: Rig) -> None:
    """A request on a channel gets an id, which is true on that channel, for that token, and nowhere else; it stays true."""
    channel = [("x-splunk-request-channel", CHANNEL)]
    first = (await post(rig, headers=channel)).json()
    second = (await post(rig, path=f"/event?channel={CHANNEL.upper()}")).json()
    assert first == {**OK, "ackId": first["ackId"]}
    assert first["ackId"] != second["ackId"]
    asked = msgspec.json.encode({"acks": [first["ackId"], second["ackId"], first["ackId"] + 1, 0, -1, 2**60]})
    for _ in range(2):
        answer = await post(rig, asked, "/ack", headers=channel)
        found = list(answer.json()["acks"].values())
        assert (answer.status, found[:3], any(found[2:])) == (200, [True, True, False], False)
    other = await post(rig, asked, f"/ack/1.0?channel={CHANNEL[:-1]}b")
    assert not any(other.json()["acks"].values())
    others = await post(rig, asked, "/ack", headers=channel, token=f"Splunk {rig.secret_for()}")
    assert not any(others.json()["acks"].values())
    assert (await post(rig)).json() == OK


async def test_no_acknowledgement_id_before_the_events_are_durable(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is refused gives out nothing: the client is told that the server is busy, and when to come again."""

    async def refuse(request: Any) -> None:
        raise OverloadedError("full", retry_after_s=2)

    monkeypatch.setattr(rig.service.journal, "append", refuse)
    answer = await post(rig, headers=[("x-splunk-request-channel", CHANNEL)])
    assert (answer.status, answer.json(), answer.headers["retry-after"]) == (503, {"text": "Server is busy", "code": 9}, "2")


async def test_channels_that_are_not_right(rig: Rig, tmp_path: Path) -> None:
    """`/ack` needs one, events need one where the source says so, and it must be a GUID."""
    assert code_of(await post(rig, b'{"acks":[1]}', "/ack")) == (400, 10)
    assert code_of(await post(rig, path="/event?channel=1")) == (400, 11)
    assert code_of(await post(rig, b"{}", f"/ack?channel={CHANNEL}")) == (400, 6)
    many = msgspec.json.encode({"acks": list(range(10_001))})
    assert (await post(rig, many, f"/ack?channel={CHANNEL}")).status == 413
    reconfigure(rig, tmp_path, '[sources.hec]\ntype = "hec"\nacks = "required"')
    assert code_of(await post(rig)) == (400, 10)
    reconfigure(rig, tmp_path, '[sources.hec]\ntype = "hec"\nacks = "off"')
    assert (await post(rig, path=f"/event?channel={CHANNEL}")).json() == OK
    assert code_of(await post(rig, b'{"acks":[1]}', f"/ack?channel={CHANNEL}")) == (400, 14)


async def test_health_needs_no_token(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes 17 and 18."""
    for path in ("/health", "/health/1.0"):
        assert code_of(await rig.call(PATH + path, method="GET", authorization=False)) == (200, 17)
    monkeypatch.setattr(rig.service.journal, "status", lambda: {"accepting": False})
    assert code_of(await rig.call(f"{PATH}/health", method="GET", authorization=False)) == (503, 18)


async def test_other_refusals_are_told_in_the_same_form(rig: Rig) -> None:
    """A method, an encoding, a number of events, a parameter, a tenant that are not taken."""
    wrong = await post(rig, method="PUT")
    assert (wrong.status, wrong.headers["allow"], wrong.json()["code"]) == (405, "POST", 6)
    assert code_of(await post(rig, headers=[("content-encoding", "br")])) == (415, 6)
    assert code_of(await post(rig, b'{"event":"a"}' * 51)) == (413, 6)
    assert code_of(await post(rig, path="/event?host=a%00b")) == (400, 6)
    assert code_of(await post(rig, token=f"Splunk {rig.secret_for('a', 'b')}")) == (403, 4)


async def test_a_source_of_another_name_and_native_events(rig: Rig, tmp_path: Path) -> None:
    """It has its own paths, tenant and mapping; a native event keeps its members, and the object's beside them."""
    text = '[sources.apps]\ntype = "hec"\nmapping = "native"\ntenant = "acme"\n[sources.gh]\ntype = "hec"\nmapping = "github_audit"\nkeep_raw = true'
    reconfigure(rig, tmp_path, text)
    native = {"id": "n-1", "action": "role.grant", "actor": "u_1", "metadata": {"hec": 1}}
    body = msgspec.json.encode({"time": 1772618400, "host": "h", "event": native}) + b'{"event":{"action":"x"}}{"event":"{}"}'
    answer = await rig.call(f"/v1/in/apps{PATH}/event", body, headers=[])
    assert [(bad["line"], bad["code"], bad["pointer"]) for bad in answer.json()["quarantined"]] == [
        (2, "field_missing", "/event/actor"),
        (3, "field_missing", "/event/action"),
    ]
    (event,) = rig.events("acme")
    assert (event["id"], event["occurred_at"], event["metadata"]) == (
        "n-1",
        "2026-03-04T10:00:00.000000Z",
        {"hec": 1, "hec_": {"host": "h"}},
    )
    github = b'{"time":1,"event":{"action":"repo.create","actor":"cat","@timestamp":1772618400000,"_document_id":"d"}}'
    assert (await rig.call(f"/v1/in/gh{PATH}/event", github)).json() == OK
    (event,) = rig.events()
    assert (event["action"], event["occurred_at"], event["raw"]) == ("repo.create", "2026-03-04T10:00:00.000000Z", github.decode())


async def test_a_containers_records_are_each_an_event(rig: Rig, tmp_path: Path) -> None:
    """One object may carry a file of records, where the mapping opens it."""
    reconfigure(rig, tmp_path, '[sources.trail]\ntype = "hec"\nmapping = "aws_cloudtrail"')
    record = {"eventName": "A", "eventSource": "iam.amazonaws.com", "eventTime": "2026-03-04T10:00:00Z", "eventID": "1"}
    body = msgspec.json.encode({"event": {"Records": [record, {**record, "eventID": "2"}, {"x": 1}]}})
    answer = await rig.call(f"/v1/in/trail{PATH}", body)
    assert [(bad["line"], bad["code"]) for bad in answer.json()["quarantined"]] == [(1, "record_unknown")]
    assert [event["action"] for event in rig.events()] == ["iam.A", "iam.A"]
    assert [base64.b64decode(record["data"]) for record in rig.records(FrameType.QUARANTINED)] == [b'{"x":1}']


@given(credential=st.text(), channel=st.text(), ack=st.integers(-(2**70), 2**70))
def test_only_ids_that_were_given_out_are_known(credential: str, channel: str, ack: int) -> None:
    """On their own channel, to their own token, after a restart too."""
    acks = AckIds(b"k" * 32)
    given_out = acks.issue("token", "channel")
    again = AckIds(b"k" * 32)
    assert again.check("token", "channel", given_out)
    assert 0 <= given_out < 2**53
    assert again.check(credential, channel, given_out) == ((credential, channel) == ("token", "channel"))
    assert not again.check("token", "channel", ack)
    assert not AckIds(b"o" * 32).check("token", "channel", given_out)
