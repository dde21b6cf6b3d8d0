"""From log records to events: what fills the envelope, what stays, which id an event gets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ProtoRecord

from support.otlp import TIME_NS, log_record, log_request, numbered
from tallystick.event import Event
from tallystick.event.codec import Stamp, encode_lines
from tallystick.event.model import Source
from tallystick.protocols.otlp import decode_protobuf
from tallystick.transforms.otlp import OtlpDecoded, OtlpMapping

MAPPING = OtlpMapping()


def read(*records: ProtoRecord, peer: str = "192.0.2.7", **shared: Any) -> OtlpDecoded:
    body = log_request(*records, **shared).SerializeToString()
    return MAPPING.map_groups(decode_protobuf(body, MAPPING.value_depth, 1_000), peer)


def event(body: Any = None, attributes: dict[str, Any] | None = None, shared: dict[str, Any] | None = None, **fields: Any) -> Any:
    """The one event of a record, as plain values."""
    found = read(log_record(body, attributes, **fields), **shared or {})
    assert not found.faults
    return msgspec.json.decode(msgspec.json.encode(found.events[0]))


def test_a_plain_record_keeps_all_it_has() -> None:
    """Body, attributes, severity, exact times, flags, resource and scope are in metadata; trace and span in the context."""
    made = event(
        {"said": ["a", 1]},
        {"k": "v", "list": [True]},
        shared={"resource": {"service.name": "shop", "n": 1}, "scope": "lib"},
        time_unix_nano=TIME_NS + 123_456_789,
        observed_time_unix_nano=TIME_NS + 5,
        severity_number=13,
        severity_text="WARN",
        trace_id=b"\x01" * 16,
        span_id=b"\x02" * 8,
        flags=1,
        dropped_attributes_count=2,
    )
    assert made.pop("id").startswith("otlp.")
    assert made == {
        "occurred_at": "2024-04-25T10:40:00.123456Z",
        "action": "otlp.record",
        "severity": 3,
        "actor": {"type": "service", "id": "shop"},
        "outcome": "unknown",
        "context": {"trace_id": "01" * 16, "span_id": "02" * 8},
        "metadata": {
            "body": {"said": ["a", 1]},
            "observed_time_unix_nano": str(TIME_NS + 5),
            "time_unix_nano": str(TIME_NS + 123_456_789),
            "severity_text": "WARN",
            "severity_number": 13,
            "attributes": {"k": "v", "list": [True]},
            "dropped_attributes_count": 2,
            "flags": 1,
            "resource": {"attributes": {"service.name": "shop", "n": 1}},
            "scope": {"name": "lib"},
        },
    }


def test_an_audit_record_fills_the_envelope() -> None:
    """What moved as it is is not kept twice; what an event cannot hold stays an attribute."""
    made = event(
        None,
        {
            "audit.record.id": "a1b2", "audit.actor.id": "u8472", "audit.actor.type": "service", "audit.action": "LOGIN",
            "audit.outcome": "failure", "audit.target.id": "/api/session", "audit.target.type": "http.endpoint",
            "audit.source.id": "203.0.113.42", "session.id": "s1", "request.id": "r1", "user_agent.original": "curl/8",
            "user.name": "Ana", "user.email": "ana@example.com", "tls.version": "1.3",
        },
        event_name="user.login",
    )  # fmt: skip
    assert made == {
        "id": "a1b2",
        "occurred_at": "2024-04-25T10:40:00.000000Z",
        "action": "user.login",
        "actor": {"type": "service", "id": "u8472", "name": "Ana", "email": "ana@example.com"},
        "targets": [{"type": "http.endpoint", "id": "/api/session"}],
        "outcome": "failure",
        "context": {"ip": "203.0.113.42", "user_agent": "curl/8", "session_id": "s1", "request_id": "r1"},
        "metadata": {"attributes": {"audit.action": "LOGIN", "tls.version": "1.3"}},
    }


@pytest.mark.parametrize(
    ("attributes", "resource", "actor"),
    [
        ({"enduser.id": "e", "user.id": "u"}, {}, {"type": "user", "id": "e"}),
        ({"user.id": "u", "user.name": "Ana"}, {}, {"type": "user", "id": "u", "name": "Ana"}),
        ({"user.name": "Ana"}, {}, {"type": "user", "id": "Ana"}),
        ({"user.id": ""}, {"service.name": "shop"}, {"type": "service", "id": "shop"}),
        ({"user.id": 7}, {"host.name": "web-7"}, {"type": "system", "id": "web-7"}),
        ({}, {}, {"type": "system", "id": "192.0.2.7"}),
        ({"audit.actor.id": "x", "audit.actor.type": "robot"}, {}, {"type": "user", "id": "x"}),
    ],
)
def test_the_actor_is_who_the_record_names_else_who_emitted_it(
    attributes: dict[str, Any], resource: dict[str, Any], actor: dict[str, str]
) -> None:
    """By the order of the table; a type that is no type of ours stays an attribute."""
    made = event(None, attributes, shared={"resource": resource})
    assert made["actor"] == actor
    if "audit.actor.type" in attributes:
        assert made["metadata"]["attributes"] == {"audit.actor.type": "robot"}


@pytest.mark.parametrize(
    ("fields", "action", "rest"),
    [
        ({"event_name": "a.b", "attributes": {"event.name": "c"}}, "a.b", {"attributes": {"event.name": "c"}}),
        ({"attributes": {"event.name": "c.d", "audit.action": "E"}}, "c.d", {"attributes": {"audit.action": "E"}}),
        ({"attributes": {"audit.action": "EXPORT"}}, "EXPORT", {}),
        ({"event_name": "no action", "attributes": {"event.name": ["x"]}}, "otlp.record",
         {"event_name": "no action", "attributes": {"event.name": ["x"]}}),
    ],
)  # fmt: skip
def test_the_action_is_the_name_of_the_event(fields: dict[str, Any], action: str, rest: dict[str, Any]) -> None:
    """In one of the three ways to give it; a name that no action can be is kept beside."""
    made = event(None, fields.pop("attributes", None), **fields)
    assert (made["action"], made.get("metadata", {})) == (action, rest)


def test_severities_go_by_their_ranges() -> None:
    """Trace to info, warn, error, worse, fatal; what OpenTelemetry does not know has none of ours but is kept."""
    found = {number: event(severity_number=number).get("severity") for number in (0, 1, 8, 9, 12, 13, 16, 17, 18, 20, 21, 24, 25)}
    assert found == {0: None, 1: 1, 8: 1, 9: 1, 12: 1, 13: 3, 16: 3, 17: 4, 18: 5, 20: 5, 21: 6, 24: 6, 25: None}
    assert event(severity_number=25)["metadata"] == {"severity_number": 25}


def test_addresses_are_taken_when_they_are_ip_addresses() -> None:
    """Names, ports and zones stay attributes; the next candidate gets its turn."""
    for text in ("10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"):
        assert event(None, {"client.address": text})["context"] == {"ip": text}
    made = event(None, {"client.address": "web.example.com", "source.address": "10.0.0.2"})
    assert made["context"] == {"ip": "10.0.0.2"}
    assert made["metadata"]["attributes"] == {"client.address": "web.example.com"}
    assert "context" not in event(
        None, {"client.address": "10.0.0.1:80", "source.address": "fe80::1%eth0", "audit.source.id": "1.2"}
    )


def test_ids_of_traces_that_are_all_zero_are_none() -> None:
    """As W3C has it."""
    assert "context" not in event(trace_id=bytes(16), span_id=bytes(8))


def test_the_time_is_the_records_else_that_of_its_observation() -> None:
    """Without either there is none, and the id is made by the server; the latest time that fits 64 bits is read too."""
    assert event(time_unix_nano=0, observed_time_unix_nano=TIME_NS)["occurred_at"] == "2024-04-25T10:40:00.000000Z"
    bare = event("x", time_unix_nano=0)
    assert "occurred_at" not in bare
    assert "id" not in bare
    assert event(time_unix_nano=2**64 - 1)["occurred_at"] == "2554-07-21T23:34:33.709551Z"


def test_an_id_is_the_records_own_or_names_its_content() -> None:
    """The same record, resource and scope give the same id; any difference another; a record twice in one request is two."""
    assert event(None, {"log.record.uid": "01ARZ3"})["id"] == "01ARZ3"
    odd = event(None, {"log.record.uid": "not an id!"})
    assert odd["metadata"]["attributes"] == {"log.record.uid": "not an id!"}
    record = log_record("x", {"user.id": "u"})

    def ids(*records: ProtoRecord, **shared: Any) -> list[Any]:
        return [made.id for made in read(*records, **shared).events]

    (name,) = ids(record)
    assert ids(record) == [name]
    assert ids(record, record, log_record("y")) == [name, f"{name}.2", ids(log_record("y"))[0]]
    others = [*ids(record, resource={"a": 1}), *ids(record, scope="s"), *ids(log_record("x", {"user.id": "v"}))]
    assert len({name, *others}) == 4


def test_a_text_with_nul_is_its_records_fault() -> None:
    """Wherever it stands, also where the text would have moved to the envelope; in the resource it is every record's."""
    for record in (
        log_record("a\0"),
        log_record(None, {"user.id": "u\0"}),
        log_record(None, {"a\0": 1}),
        log_record(event_name="a\0"),
    ):
        found = read(log_record("good"), record)
        assert [(fault.line, fault.code) for fault in found.faults] == [(2, "string_invalid")]
        assert found.lines == [1]
    assert len(read(log_record("a"), log_record("b"), resource={"service.name": "x\0"}).faults) == 2
    assert event("what JSON writes as \\u0000", {"path": "C:\\u0000"})["metadata"]["body"].endswith("\\u0000")


def test_a_fault_has_its_record_as_a_request_that_can_be_mapped_again() -> None:
    """The quarantine's form; so has every event, for conflicts that come out later."""
    found = read(log_record("a"), log_record("b\0"), resource={"service.name": "shop"})
    again = MAPPING.map_batch([found.faults[0].record])
    assert [problem.code for problem in again.problems] == ["string_invalid"]
    (event_again,) = MAPPING.map_batch([found.records[0]]).events
    assert event_again.actor == found.events[0].actor
    assert event_again.metadata == found.events[0].metadata
    assert [problem.code for problem in MAPPING.map_batch([b"no request"]).problems] == ["otlp_invalid"]


def test_every_event_has_a_canonical_line() -> None:
    """Lines of a thousand ordinary records are valid and read back as they are."""
    found = MAPPING.map_groups(decode_protobuf(numbered(0, 1000).SerializeToString(), 29, 1000))
    stamp = Stamp("acme", "2024-04-25T10:41:00.000000Z", Source(name="otlp", type="otlp"), mapping="otlp")
    lines = encode_lines(found.events, stamp, said=found.said)
    decoder = msgspec.json.Decoder(Event)
    assert [msgspec.json.encode(decoder.decode(line)) for line in lines] == lines
    assert len(set(found.contents)) == len({made.id for made in found.events}) == 1000
