"""`POST /v1/logs`: what is stored, what is rejected and told, and every refusal as a google.rpc.Status."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from support.otlp import log_record, log_request, numbered
from tallystick.config import load_config
from tallystick.errors import ConfigError, OverloadedError
from tallystick.http.limits import BodyReader
from tallystick.journal.frame import FrameType
from tallystick.plugin import SourceContext
from tallystick.protocols.otlp_wire import encode_field
from tallystick.query.evaluate import compile_query
from tallystick.sources.doors import DoorParts
from tallystick.sources.otlp import KIND
from tallystick.sources.otlp_grpc import peer_host
from tallystick.sources.plan import build_plans

from .conftest import Answer, Rig

PROTOBUF = "application/x-protobuf"


async def post(rig: Rig, body: bytes, media: str = PROTOBUF, path: str = "/v1/logs", **options: Any) -> Answer:
    return await rig.call(path, body, media=media, **options)


def told(answer: Answer) -> tuple[int, str]:
    """Rejected records and the message, out of a success in protobuf."""
    assert (answer.status, answer.headers["content-type"]) == (200, PROTOBUF), answer.body
    partial = ExportLogsServiceResponse.FromString(answer.body).partial_success
    return partial.rejected_log_records, partial.error_message


def status_of(answer: Answer) -> Status:
    assert answer.headers["content-type"] == PROTOBUF
    return Status.FromString(answer.body)


async def test_records_become_events(rig: Rig) -> None:
    """The answer is an empty success; each record is one durable event of the source `otlp`, in order."""
    answer = await post(rig, numbered(0, 3).SerializeToString())
    assert (told(answer), answer.body) == ((0, ""), b"")
    events = rig.events()
    assert [event["metadata"]["body"].split()[1] for event in events] == ["0", "1", "2"]
    assert {(event["source"]["name"], event["source"]["type"], event["ingest"]["mapping"]) for event in events} == {("otlp",) * 3}


async def test_json_is_answered_in_json(rig: Rig) -> None:
    """An empty object for a whole success, text for 64-bit numbers where records were rejected."""
    good = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]}
    answer = await post(rig, msgspec.json.encode(good), "application/json; charset=utf-8")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")
    good["resourceLogs"][0]["scopeLogs"][0]["logRecords"].append({"body": {"stringValue": "a\0"}})  # type: ignore[arg-type]
    partial = (await post(rig, msgspec.json.encode(good), "application/json")).json()["partialSuccess"]
    assert partial["rejectedLogRecords"] == "1"
    assert "record 2" in partial["errorMessage"]
    assert len(rig.events()) == 2


@pytest.mark.parametrize(
    ("body", "media"), [(b"", PROTOBUF), (b"{}", "application/json"), (log_request().SerializeToString(), PROTOBUF)]
)
async def test_an_empty_request_is_a_success(rig: Rig, body: bytes, media: str) -> None:
    """And stores nothing."""
    answer = await post(rig, body, media)
    assert (answer.status, answer.body) == (200, b"{}" if media == "application/json" else b"")
    assert rig.frames(FrameType.EVENTS) == []


async def test_three_good_records_and_one_too_large(rig: Rig) -> None:
    """Three are stored, the one is in the quarantine and told: one commit, a success."""
    request = log_request(*(log_record("x" * size) for size in (5, 70_000, 6, 7)))
    rejected, message = told(await post(rig, request.SerializeToString()))
    assert rejected == 1
    assert "record 2: the event has 70" in message
    assert [len(event["metadata"]["body"]) for event in rig.events()] == [5, 6, 7]
    (record,) = rig.records(FrameType.QUARANTINED)
    assert (record["source"], record["code"], record["line"], record["tenant"]) == ("otlp", "event_too_large", 2, "default")


async def test_what_is_quarantined_can_be_sent_in_again(rig: Rig) -> None:
    """It is a request of its own, in OTLP's JSON form, with its resource."""
    twice = log_record("x", {"a": 1})
    twice.attributes.append(twice.attributes[0])
    assert told(await post(rig, log_request(twice, resource={"service.name": "shop"}).SerializeToString()))[0] == 1
    (record,) = rig.records(FrameType.QUARANTINED)
    data = msgspec.json.decode(msgspec.convert(record["data"], bytes))
    assert record["code"] == "key_duplicate"
    del data["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"][1]
    body = msgspec.json.encode({"source": "otlp", "tenant": "default", "records": [msgspec.json.encode(data).decode()]})
    assert (await rig.accept("/records", body, app=rig.inner))["accepted"] == 1
    assert rig.events()[0]["actor"] == {"type": "service", "id": "shop"}


async def test_a_request_that_is_sent_again_is_stored_once(rig: Rig) -> None:
    """Its records have ids made of their content; the answer is a success again."""
    body = numbered(0, 5).SerializeToString()
    for _ in range(2):
        assert told(await post(rig, body)) == (0, "")
    assert len(rig.events()) == 5


async def test_an_id_of_the_senders_with_other_content_is_rejected(rig: Rig) -> None:
    """It is kept in the quarantine as `id_conflict`, and the answer says so."""
    for body in ("a", "b"):
        answer = await post(rig, log_request(log_record(body, {"log.record.uid": "u1"})).SerializeToString())
    assert told(answer)[0] == 1
    assert "id_conflict" in told(answer)[1]
    assert [event["metadata"]["body"] for event in rig.events()] == ["a"]
    assert rig.records(FrameType.QUARANTINED)[0]["code"] == "id_conflict"


async def test_secrets_are_redacted_as_everywhere(rig: Rig) -> None:
    """In attributes and in the body."""
    await post(rig, log_request(log_record({"password": "x1"}, {"db.password": "y1"})).SerializeToString())
    (event,) = rig.events()
    assert event["metadata"]["body"] == {"password": "[REDACTED:secret]"}
    assert event["metadata"]["attributes"] == {"db.password": "[REDACTED:secret]"}


@pytest.mark.parametrize("body", [b"\xff" * 40, numbered(0, 1).SerializeToString()[:-1], b"\x08\x01", encode_field(1, b"\x10\x01")])
async def test_what_is_no_request_is_400_with_a_status(rig: Rig, body: bytes) -> None:
    """Garbage, cut, wrong wire types: INVALID_ARGUMENT, nothing to retry."""
    answer = await post(rig, body)
    status = status_of(answer)
    assert (answer.status, status.code, list(status.details)) == (400, 3, [])
    assert "(otlp_invalid)" in status.message
    assert rig.frames(FrameType.EVENTS) == rig.frames(FrameType.QUARANTINED) == []


async def test_refusals_have_the_encoding_of_the_request(rig: Rig) -> None:
    """Bad JSON, a body of too many records, a wrong key, another tenant's source, a wrong method, an unknown type."""
    bad = await post(rig, b"{", "application/json")
    assert (bad.status, bad.json()["code"], bad.headers["content-type"]) == (400, 3, "application/json")
    many = await post(rig, numbered(0, 51).SerializeToString())
    assert (many.status, status_of(many).code) == (413, 8)
    wrong = await post(rig, b"", secret="ts_no_" + "x" * 43)
    assert (wrong.status, status_of(wrong).code) == (401, 16)
    reader = await post(rig, b"", secret=rig.secret_for(permissions=["read"]))
    assert (reader.status, status_of(reader).code) == (403, 7)
    assert (await post(rig, b"", method="GET")).status == 405
    odd = await post(rig, b"", "text/html")
    assert (odd.status, odd.headers["content-type"], odd.headers["accept"]) == (
        415,
        "application/json",
        f"{PROTOBUF}, application/json",
    )
    assert (await post(rig, b"", path="/v1/logs?on_invalid=reject")).status == 400
    assert (await post(rig, b"", headers=[("content-encoding", "br")])).status == 415


async def test_pushback_is_retryable(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and a RetryInfo in the Status, in both encodings."""

    async def full(_: Any) -> Any:
        raise OverloadedError("full", retry_after_s=3)

    monkeypatch.setattr(rig.service.journal, "append", full)
    answer = await post(rig, numbered(0, 1).SerializeToString())
    status = status_of(answer)
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert (answer.status, status.code, answer.headers["retry-after"], info.retry_delay.seconds) == (503, 14, "3", 3)
    record = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"eventName": "x"}]}]}]}
    detail = (await post(rig, msgspec.json.encode(record), "application/json")).json()["details"][0]
    assert detail == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}


async def test_gzip_is_read_and_bombs_are_refused(rig: Rig) -> None:
    """The body is decompressed within its limits; what grows past them is 413 with a Status."""
    assert told(await post(rig, gzip.compress(numbered(0, 4).SerializeToString()), headers=[("content-encoding", "gzip")])) == (
        0,
        "",
    )
    assert len(rig.events()) == 4
    bomb = await post(rig, gzip.compress(bytes(100 * 2**20)), headers=[("content-encoding", "gzip")])
    assert (bomb.status, status_of(bomb).code) == (413, 8)


async def test_the_tenant_is_the_credentials(rig: Rig) -> None:
    """Whatever attributes say."""
    request = log_request(log_record("x", {"tenant": "other"}), resource={"tenant": "other", "service.namespace": "other"})
    await post(rig, request.SerializeToString(), secret=rig.secret_for("acme"))
    assert [event["tenant"] for event in rig.events("acme")] == ["acme"]
    assert rig.service.tenants.get("other") is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('listen = "0.0.0.0:4317"', "can be reached from outside"),
        ('listen = "4317"', "is no IP address and port"),
        ('listen = "127.0.0.1:99999"', "is no IP address and port"),
        ('tls = { cert = "a", key = "b" }', "which is not set"),
        ('listen = "127.0.0.1:4317"\ntls = { cert = "none.pem", key = "none.key" }', "cannot be used"),
        ('mapping = "generic"', "unknown key `mapping`"),
        ("calls = 0", "calls"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_line(tmp_path: Path, table: str, words: str) -> None:
    """Before any port opens."""
    path = tmp_path / "tallystick.toml"
    path.write_text(f'[sources.otlp]\ntype = "otlp"\n{table}\n')
    with pytest.raises(ConfigError, match=words) as caught:
        build_plans(load_config(path), compile_query)
    assert re.search(r"tallystick.toml:\d", str(caught.value))


def test_a_listener_is_made_only_where_one_is_asked_for(rig: Rig, tmp_path: Path) -> None:
    """The way in names it; off loopback it may be with `insecure`."""
    path = tmp_path / "other.toml"
    path.write_text('[sources.shop]\ntype = "otlp"\nlisten = "0.0.0.0:4317"\ninsecure = true\n')
    plans = build_plans(load_config(path), compile_query)
    assert (KIND.way(plans["otlp"]), KIND.way(plans["shop"])) == ("POST /v1/logs", "POST /v1/in/shop/v1/logs, gRPC on 0.0.0.0:4317")
    assert KIND.listener is not None
    context = SourceContext("shop", tmp_path, tmp_path, rig.config.limits)
    parts = DoorParts(rig.service, rig.access, BodyReader(rig.config.limits), None, rig.logins, rig.keys.derive, list)  # type: ignore[arg-type]
    assert KIND.listener(parts, plans["otlp"], context) is None
    assert KIND.listener(parts, plans["shop"], context) is not None


def test_peers_of_grpc_are_addresses() -> None:
    """As HTTP names them; what is no address is nothing."""
    found = [peer_host(peer) for peer in ("ipv4:127.0.0.1:4317", "ipv6:%5B::1%5D:4317", "unix:/x", "")]
    assert found == ["127.0.0.1", "::1", "", ""]
