"""`POST /v1/audit`: receipts, sending again, conflicts, refusals of the whole request, chains."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.audit import LOGIN, audit_record
from support.otlp import log_request
from tallystick.config import load_config
from tallystick.errors import ConfigError, OverloadedError
from tallystick.evidence.receipt import open_receipt
from tallystick.journal.frame import FrameType
from tallystick.protocols.audit_record import Sequence
from tallystick.query.evaluate import compile_query
from tallystick.sources.audit_batch import Chains
from tallystick.sources.plan import build_plans

from .conftest import Answer, Rig

PROTOBUF = "application/x-protobuf"


async def post(rig: Rig, *records: Any, **options: Any) -> Answer:
    return await rig.call("/v1/audit", log_request(*records).SerializeToString(), media=PROTOBUF, **options)


async def test_one_record_gets_a_receipt(rig: Rig) -> None:
    """The draft's members, the place in our log and a signed note; the hash is that of the event's `raw`."""
    answer = await post(rig, audit_record(body="done"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    receipt = answer.json()
    (event,) = rig.events()
    assert receipt["record_id"] == event["id"] == LOGIN["audit.record.id"]
    assert receipt["status"] == "delivered_all_sinks"
    assert receipt["integrity_hash"] == hashlib.sha256(event["raw"].encode()).hexdigest()
    assert re.fullmatch(r"\d{19}", receipt["sink_timestamp"])
    assert receipt["sink_status_map"] == {"tallystick": {"delivery_status": "success"}}
    assert (receipt["verify_status"], receipt["index"]) == ("deferred", 0)
    note = open_receipt(receipt["receipts"][0]["signed"], [rig.vkey])
    assert (note.ranges, note.origin) == (((0, 1),), receipt["log"])
    assert event["enrichment"]["audit"]["integrity_hash"] == receipt["integrity_hash"]
    assert (event["action"], event["actor"], event["outcome"]) == ("user.login.success", {"type": "user", "id": "u8472"}, "success")
    assert event["targets"] == [{"type": "http.endpoint", "id": "/api/auth/session"}]
    assert event["metadata"]["attributes"]["audit.action"] == "LOGIN"


async def test_several_records_are_answered_by_id(rig: Rig) -> None:
    """One map, one signed note for all; JSON is taken as Protobuf is, and hashes are the same."""
    answer = (await post(rig, audit_record("a"), audit_record("b"))).json()
    assert (answer["status"], answer["sink_status_aggregate"]) == ("delivered_all_sinks", "success")
    assert {name: record["index"] for name, record in answer["record_status_map"].items()} == {"a": 0, "b": 1}
    assert len(answer["receipts"]) == 1
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in (LOGIN | {"audit.record.id": "a"}).items()]
    record = {
        "timeUnixNano": "1714041600000000000", "observedTimeUnixNano": 1714041600001000000, "eventName": "user.login.success",
        "attributes": attributes,
    }  # fmt: skip
    body = msgspec.json.encode({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    again = (await rig.call("/v1/audit", body, media="application/json")).json()
    assert again["integrity_hash"] == answer["record_status_map"]["a"]["integrity_hash"]
    assert again["index"] == 0
    assert len(rig.events()) == 2


async def test_sending_again_is_a_success_and_other_content_a_conflict(rig: Rig) -> None:
    """Same id and content: the first place; same id, other content: 409 for the whole request, and nothing of it is stored."""
    first = (await post(rig, audit_record("a"))).json()
    again = (await post(rig, audit_record("a"))).json()
    assert {**again, "sink_timestamp": ""} | {"receipts": []} == {**first, "sink_timestamp": ""} | {"receipts": []}
    conflict = await post(rig, audit_record("b"), audit_record("a", audit__outcome="failure"))
    assert conflict.status == 409
    assert conflict.json()["record_status_map"] == {
        "a": {"record_id": "a", "status": "rejected_conflict", "reason": "record 2: its id was used before with other content"}
    }
    assert [event["id"] for event in rig.events()] == ["a"]
    assert rig.records(FrameType.QUARANTINED) == []


async def test_a_request_with_a_bad_record_is_refused_whole(rig: Rig) -> None:
    """400 with the record and the field; the good ones are not stored and nothing is quarantined."""
    answer = await post(rig, audit_record("good"), audit_record("bad", drop="audit.outcome"))
    assert answer.status == 400
    body = answer.json()
    assert (body["status"], list(body["record_status_map"])) == ("rejected_schema_invalid", ["bad"])
    assert body["record_status_map"]["bad"]["reason"] == "record 2: `audit.outcome` is missing"
    single = await post(rig, audit_record("bad", drop="audit.actor.id"))
    assert (single.status, single.json()["record_id"]) == (400, "bad")
    assert rig.frames(FrameType.EVENTS) == rig.frames(FrameType.QUARANTINED) == []


async def test_other_refusals_are_in_the_drafts_words(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no OTLP, too large, and for now: with `retry_after`."""
    assert (await post(rig, audit_record(), secret="ts_no_" + "x" * 43)).json()["status"] == "rejected_authz"
    bad = await rig.call("/v1/audit", b"\xff", media=PROTOBUF)
    assert (bad.status, bad.json()["status"]) == (400, "rejected_schema_invalid")
    large = await post(rig, audit_record(body="x" * 70_000))
    assert (large.status, "bytes" in large.json()["reason"]) == (400, True)

    async def full(_: Any) -> Any:
        raise OverloadedError("full", retry_after_s=3)

    monkeypatch.setattr(rig.service.journal, "append", full)
    busy = await post(rig, audit_record())
    assert (busy.status, busy.json()["status"], busy.json()["retry_after"]) == (503, "unavailable", 3)


async def test_an_empty_request_has_an_empty_answer(rig: Rig) -> None:
    """Nothing to be done, and done."""
    answer = await post(rig)
    assert (answer.status, answer.json()["record_status_map"]) == (200, {})


async def test_a_sequence_becomes_the_producers_and_is_checked(rig: Rig) -> None:
    """Gaps, broken chains and what comes after the end are flagged and told; the records are stored all the same."""

    def link(number: int, previous: str = "", **more: Any) -> Any:
        extra = {"audit__sequence__number": number, "audit__sequence__stream_id": "s1", **more}
        if previous:
            extra["audit__sequence__previous_hash"] = previous
        return audit_record(f"r{number}", **extra)

    first = (await post(rig, link(1))).json()
    good = (await post(rig, link(2, first["integrity_hash"]))).json()
    gap = (await post(rig, link(4, "00"))).json()
    broken = (await post(rig, link(5, "11"), link(6, "22"))).json()
    await post(rig, link(7, audit__sequence__end=True))
    late = (await post(rig, link(8))).json()
    assert "reason" in good
    assert "audit_" not in good["reason"]
    assert gap["reason"].startswith("audit_sequence_gap")
    assert all(record["reason"].startswith("audit_chain_broken") for record in broken["record_status_map"].values())
    assert late["reason"].startswith("audit_after_end")
    events = rig.events()
    assert [event["producer"] for event in events[:2]] == [{"id": "s1", "epoch": 0, "seq": number} for number in (1, 2)]
    assert [event["ingest"].get("flags") for event in events] == [
        None, None, ["audit_sequence_gap"], ["audit_chain_broken"], ["audit_chain_broken"], None, ["audit_after_end"],
    ]  # fmt: skip


def test_chains_are_remembered_within_bounds() -> None:
    """The oldest stream is forgotten first; one owner's streams are not another's; without room nothing is judged."""
    chains = Chains(2)
    for name in ("a", "b", "c"):
        chains.note("k", [(Sequence(name, 1, "", is_end=False), "h")])
    late = [(Sequence(name, 9, "", is_end=False), "h") for name in ("a", "b", "c")]
    assert list(chains.check("k", late)) == [[], ["audit_sequence_gap"], ["audit_sequence_gap"]]
    assert list(chains.check("other", late)) == [[], [], []]
    assert list(chains.check("k", [(Sequence("b", 1, "", is_end=False), "h")])) == [["audit_sequence_repeat"]]
    none = Chains(0)
    none.note("k", late)
    assert list(none.check("k", late)) == [[], [], []]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('verify = "required"', "no key is trusted"),
        ('trusted = ["none.pem"]', "cannot be used"),
        ('trusted = ["bad.pem"]', "cannot be used"),
        ('hmac_key = "c2hvcnQ="', "16 bytes or more"),
        ('verify = "sometimes"', "verify"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_line(tmp_path: Path, table: str, words: str) -> None:
    """Before anything is served."""
    (tmp_path / "bad.pem").write_text("no key")
    path = tmp_path / "tallystick.toml"
    path.write_text(f'[sources.audit]\ntype = "audit"\n{table}\n')
    with pytest.raises(ConfigError, match=words) as caught:
        build_plans(load_config(path), compile_query)
    assert re.search(r"tallystick.toml:3", str(caught.value))


def test_a_secret_of_hmac_is_read_from_a_file(tmp_path: Path) -> None:
    """As every secret is."""
    secret = tmp_path / "hmac.key"
    secret.write_text(base64.b64encode(b"0123456789abcdef").decode())
    secret.chmod(0o600)
    path = tmp_path / "tallystick.toml"
    path.write_text('[sources.audit]\ntype = "audit"\nverify = "required"\nhmac_key = { file = "hmac.key" }\n')
    mapping: Any = build_plans(load_config(path), compile_query)["audit"].mapping
    assert [key.name for key in mapping.reader.keys] == ["hmac"]
