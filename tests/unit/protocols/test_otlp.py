"""OTLP requests: what is read, what is one record's fault, what refuses the body; protobuf and JSON say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from support.otlp import TIME_NS, any_value, log_record, log_request, numbered
from tallystick.errors import EventInvalidError
from tallystick.protocols.otlp import LogGroup, LogRecord, decode_protobuf
from tallystick.protocols.otlp_json import decode_json
from tallystick.protocols.otlp_values import AttributeReader, _short, plain
from tallystick.protocols.otlp_wire import PART_BYTES, OtlpInvalidError, TooManyRecordsError, encode_field

DEPTH, MANY = 29, 100_000


def protobuf(request: ExportLogsServiceRequest | bytes, depth: int = DEPTH, many: int = MANY) -> list[LogGroup]:
    body = request if isinstance(request, bytes) else request.SerializeToString()
    return list(decode_protobuf(body, depth, many))


def from_json(body: Any, depth: int = DEPTH, many: int = MANY) -> list[LogGroup]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(decode_json(text, depth, many))


def only(groups: list[LogGroup]) -> LogRecord:
    ((record,),) = [group.records for group in groups]
    assert isinstance(record, LogRecord), record
    return record


def fault(groups: list[LogGroup]) -> str:
    ((record,),) = [group.records for group in groups]
    assert isinstance(record, EventInvalidError), record
    return record.code


def as_json(request: ExportLogsServiceRequest) -> bytes:
    """The request in OTLP's JSON, written by another hand: the library's JSON, with ids in hexadecimal."""
    made = json_format.MessageToDict(request, use_integers_for_enums=True)
    for logs, proto_logs in zip(made.get("resourceLogs", []), request.resource_logs, strict=True):
        for scope, proto_scope in zip(logs.get("scopeLogs", []), proto_logs.scope_logs, strict=True):
            for record, proto in zip(scope.get("logRecords", []), proto_scope.log_records, strict=True):
                for name, value in (("traceId", proto.trace_id), ("spanId", proto.span_id)):
                    if value:
                        record[name] = value.hex()
    return json.dumps(made, allow_nan=False).encode()


def test_every_kind_of_value_becomes_its_json() -> None:
    """Text, numbers, booleans, bytes, lists, objects, nothing; doubles that JSON lacks become texts."""
    attributes = {
        "text": "a", "empty": "", "int": -(2**63), "zero": 0, "double": 1.5, "nan": float("nan"), "inf": float("-inf"), "yes": True,
        "no": False, "bytes": b"\x00\xff", "list": [1, "x", [True], {}], "object": {"a": {"b": [None]}}, "none": None,
    }  # fmt: skip
    record = only(protobuf(log_request(log_record({"text": "said"}, attributes, event_name="e", flags=1))))
    assert record.attributes == attributes | {"nan": "NaN", "inf": "-Infinity", "bytes": "AP8="}
    assert (record.body, record.event_name, record.time_ns, record.flags) == ({"text": "said"}, "e", TIME_NS, 1)


def test_json_says_the_same_as_protobuf() -> None:
    """Every field of a record, its resource and its scope, over both encodings."""
    request = numbered(7, 3)
    request.resource_logs[0].scope_logs[0].scope.version = "2"
    request.resource_logs[0].schema_url = "https://opentelemetry.io/schemas/1.30.0"
    request.resource_logs[0].resource.dropped_attributes_count = 3
    (one,), (other,) = protobuf(request), from_json(as_json(request))
    assert one.records == other.records
    assert (one.origin.resource, one.origin.scope) == (other.origin.resource, other.origin.scope)
    assert one.origin.resource["attributes"]["service.name"] == "checkout"


def test_an_empty_request_has_no_records() -> None:
    """No bytes, no resources, resources without scopes, scopes without records."""
    assert protobuf(b"") == protobuf(log_request()) == []
    for body in ({}, {"resourceLogs": None}, {"resourceLogs": [{}]}, {"resourceLogs": [{"scopeLogs": [{"logRecords": []}]}]}):
        assert from_json(body) == []


def test_fields_that_are_not_known_are_skipped() -> None:
    """In both encodings and at every level; what is known is read all the same."""
    body = encode_field(15, b"later") + log_request(log_record("x")).SerializeToString()
    record = log_record("x").SerializeToString() + encode_field(100, b"later")
    assert only(protobuf(body)).body == "x"
    assert only(protobuf(wrapped(record))).body == "x"
    later = {
        "resourceLogs": [{"new": 1, "scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}, "new": {"a": [1]}}]}]}],
        "n": 0,
    }
    assert only(from_json(later)).body == "x"
    assert only(from_json({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"event_name": "x"}]}]}]})).event_name == ""


def wrapped(record: bytes) -> bytes:
    """A record's bytes as a request."""
    return encode_field(1, encode_field(2, encode_field(2, record)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff" * 40, id="garbage"),
        pytest.param(b"{}", id="json as protobuf"),
        pytest.param(log_request(log_record("x")).SerializeToString()[:-1], id="cut"),
        pytest.param(b"\x08\x01", id="wrong wire type: a number for resource_logs"),
        pytest.param(encode_field(1, b"\x10\x01"), id="wrong wire type: a number for scope_logs"),
        pytest.param(encode_field(1, encode_field(2, b"\x10\x01")), id="wrong wire type: a number for log_records"),
        pytest.param(wrapped(b"\x08\x01"), id="wrong wire type: a varint for the time"),
        pytest.param(wrapped(b"\x28\x01"), id="wrong wire type: a number for the body"),
        pytest.param(wrapped(encode_field(5, b"\x08\x01")), id="wrong wire type: a number for the body's text"),
        pytest.param(wrapped(encode_field(6, b"\x08\x01")), id="wrong wire type: a number for a key"),
        pytest.param(wrapped(encode_field(6, encode_field(1, b"k") + b"\x10\x01")), id="wrong wire type: a number for a value"),
        pytest.param(wrapped(encode_field(5, encode_field(1, b"\xed\xa0\x80"))), id="text that is not UTF-8"),
    ],
)
def test_what_is_no_request_in_protobuf_is_refused(body: bytes) -> None:
    """As a whole: a known field of a wrong wire type would else be skipped, and the record with it."""
    with pytest.raises(OtlpInvalidError):
        protobuf(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b'{"resourceLogs":[', b'{"resourceLogs":{}}', b'{"resourceLogs":[5]}',
        b'{"resourceLogs":[],"resourceLogs":[]}', b'{"resourceLogs":[{"scopeLogs":[],"scopeLogs":[]}]}',
    ],
)  # fmt: skip
def test_what_is_no_request_in_json_is_refused(body: bytes) -> None:
    """Not JSON, another shape, and a key twice, of which a lenient reader would lose one."""
    with pytest.raises(OtlpInvalidError):
        from_json(body)


@pytest.mark.parametrize(
    "record",
    [
        '{"body":{"stringValue":"a","intValue":"1"}}', '{"body":{"stringValue":5}}', '{"body":{"intValue":"x"}}',
        '{"body":{"intValue":"9223372036854775808"}}', '{"body":{"doubleValue":"much"}}', '{"body":{"bytesValue":"*"}}',
        '{"timeUnixNano":"-1"}', '{"timeUnixNano":"18446744073709551616"}', '{"timeUnixNano":1.5}', '{"traceId":"xyz"}',
        '{"flags":-1}', '{"severityNumber":"SEVERITY_NUMBER_INFO"}', '{"attributes":{}}', '{"eventName":"a","eventName":"b"}',
        '{"eventName":"\\ud800"}', '{"body":{"doubleValue":1e400}}',
    ],
)  # fmt: skip
def test_a_record_that_is_not_otlp_refuses_the_body(record: str) -> None:
    """Wrong types, numbers out of range, several values at once, a key twice, half a surrogate pair."""
    with pytest.raises(OtlpInvalidError):
        from_json(f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}'.encode())


def test_json_takes_what_its_rules_allow() -> None:
    """Integers as text or numbers, both alphabets of base64, ids in either case, null for what is not set."""
    record = {
        "timeUnixNano": TIME_NS, "observedTimeUnixNano": str(TIME_NS), "traceId": "ABCDEF" + "0" * 26, "spanId": None, "body": None,
        "attributes": [
            {"key": "a", "value": {"intValue": 5}}, {"key": "b", "value": {"bytesValue": "-_8"}}, {"key": "c", "value": None},
            {"key": "d", "value": {"doubleValue": "Infinity"}}, {"key": "e", "value": {"doubleValue": "2.5"}},
            {"key": "f", "value": {"arrayValue": {}}}, {"key": "g", "value": {"kvlistValue": {}}}, {"key": "h", "value": {"doubleValue": 3}},
        ],
    }  # fmt: skip
    read = only(from_json({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}))
    assert read.attributes == {"a": 5, "b": "+/8=", "c": None, "d": "Infinity", "e": 2.5, "f": [], "g": {}, "h": 3.0}
    assert (read.time_ns, read.observed_ns, read.trace_id[:6], read.span_id) == (TIME_NS, TIME_NS, "abcdef", "")


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"k": value}
    return value


def test_a_record_with_a_key_twice_or_too_deep_is_bad_alone() -> None:
    """Its neighbours are good; both encodings name the same faults. A resource's fault is that of all its records."""
    twice = log_record("x")
    twice.attributes.extend([KeyValue(key="k", value=any_value("1")), KeyValue(key="k", value=any_value("2"))])
    inside = log_record("x")
    inside.attributes.append(KeyValue(key="o", value=any_value({"k": 1})))
    inside.attributes[0].value.kvlist_value.values.append(KeyValue(key="k", value=any_value(2)))
    request = log_request(
        log_record("a"), twice, inside, log_record("x", {"a": nested(DEPTH + 1)}), log_record("x", {"a": nested(DEPTH)})
    )
    for groups in (protobuf(request), from_json(as_json(request))):
        codes = [getattr(record, "code", "") for group in groups for record in group.records]
        assert codes == ["", "key_duplicate", "key_duplicate", "depth_exceeded", ""]
    bad = log_request(log_record("a"))
    bad.resource_logs[0].resource.attributes.extend(twice.attributes)
    assert fault(protobuf(bad)) == fault(from_json(as_json(bad))) == "key_duplicate"


def test_each_record_can_be_sent_again_alone() -> None:
    """As a request in JSON, with its resource and scope; the library reads the same out of it."""
    request = numbered(1, 2)
    request.resource_logs[0].scope_logs[0].log_records[1].attributes.extend(
        log_record(None, {"n": float("nan"), "b": b"\x01", "l": [1, {"a": None}], "t": True}).attributes
    )
    for groups in (protobuf(request), from_json(as_json(request))):
        (group,) = groups
        again = [from_json(group.as_request(encoded)) for encoded in group.encoded]
        assert [only(one) for one in again] == group.records
        assert [one[0].origin.resource for one in again] == [group.origin.resource] * 2
        assert [one[0].origin.scope for one in again] == [group.origin.scope] * 2


def test_a_large_request_is_read_in_parts() -> None:
    """Several resources, scopes and records over a MiB each give what they give one by one, in order, whatever stands between."""
    request = ExportLogsServiceRequest()
    for number in range(3):
        part = numbered(number * 5_000, 5_000, {"service.name": f"s{number}"})
        request.MergeFrom(part)
    request.resource_logs.add().scope_logs.add().log_records.add(event_name="last")
    body = request.SerializeToString() + encode_field(9, b"unknown")
    groups = protobuf(body)
    assert len(body) > 3 * PART_BYTES
    assert len(groups) > 3
    names = [record.event_name for group in groups for record in group.records if isinstance(record, LogRecord)]
    assert names == ["invoice.approve"] * 15_000 + ["last"]
    traces = [int(record.trace_id or "0", 16) for group in groups for record in group.records if isinstance(record, LogRecord)]
    assert traces == [*range(15_000), 0]
    services = {group.origin.resource.get("attributes", {}).get("service.name") for group in groups}
    assert services == {"s0", "s1", "s2", None}
    assert [record for group in from_json(as_json(request)) for record in group.records] == [
        record for group in groups for record in group.records
    ]


def test_a_record_that_no_event_can_hold_is_not_looked_into() -> None:
    """It is too large, by itself, and can still be given back whole."""
    request = log_request(log_record("a"), log_record("x" * (PART_BYTES + 1)), log_record("b"), resource={"service.name": "s"})
    groups = protobuf(request)
    assert [_said(record) for group in groups for record in group.records] == ["a", "event_too_large", "b"]
    (long_group,) = [group for group in groups if isinstance(group.records[0], EventInvalidError)]
    again = ExportLogsServiceRequest.FromString(long_group.as_request(long_group.encoded[0]))
    assert again.resource_logs[0].scope_logs[0].log_records[0] == request.resource_logs[0].scope_logs[0].log_records[1]
    assert again.resource_logs[0].resource == request.resource_logs[0].resource
    assert fault(from_json(as_json(log_request(log_record("x" * PART_BYTES))))) == "event_too_large"


def _said(record: LogRecord | EventInvalidError) -> Any:
    return record.code if isinstance(record, EventInvalidError) else record.body


def test_more_records_than_the_limit_are_refused_before_they_are_made() -> None:
    """In both encodings; a body of nothing but empty records costs no more than the limit."""
    with pytest.raises(TooManyRecordsError):
        protobuf(numbered(0, 11), many=10)
    with pytest.raises(TooManyRecordsError):
        from_json(as_json(numbered(0, 11)), many=10)
    with pytest.raises(TooManyRecordsError):
        protobuf(encode_field(1, encode_field(2, b"\x12\x00" * 2_000_000)), many=1_000)


def test_a_large_body_that_is_cut_or_odd_is_refused() -> None:
    """By the cutter itself: cut fields, numbers without an end, wire types that are not used, a head that is too long."""
    large = numbered(0, 6_000).SerializeToString()
    scope = numbered(0, 6_000).resource_logs[0].scope_logs[0].SerializeToString()
    for body in (
        large[:-1], large + b"\x0b", large + b"\x80" * 11, large + b"\x00", large + b"\x08\x01", b"\x0a" + b"\xff" * 9 + b"\x01" + large,
        encode_field(1, encode_field(1, b"\x0a" * PART_BYTES) + encode_field(2, scope)), encode_field(1, encode_field(2, scope) + b"\x10\x01"),
    ):  # fmt: skip
        with pytest.raises(OtlpInvalidError):
            protobuf(body)


_pairs = st.builds(
    lambda key, value: KeyValue(key=key, value=any_value(value)).SerializeToString(),
    st.text(max_size=9),
    st.text(max_size=9) | st.floats() | st.integers(-9, 9),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | _pairs, st.data())
def test_short_attributes_are_read_as_the_library_reads_them(pair: bytes, data: st.DataObject) -> None:
    """Whole, damaged or no attribute at all: whatever the quick way reads, the library reads the same, with nothing beside it."""
    damaged = bytearray(pair)
    if data.draw(st.booleans()) and pair:
        damaged[data.draw(st.integers(0, len(pair) - 1))] = data.draw(st.integers(0, 255))
    found = _short(bytes(damaged))
    if found is not None:
        message = KeyValue.FromString(bytes(damaged))
        assert found == (message.key, plain(message.value, DEPTH))
        assert len(UnknownFieldSet(message)) == len(UnknownFieldSet(message.value)) == 0


def test_what_is_known_of_attributes_is_bounded() -> None:
    """Many different ones do not stay; what is read is the same before and after."""
    first = protobuf(numbered(0, 3))
    protobuf(log_request(*(log_record(None, {f"key {number}": 1, "n": number}) for number in range(10_000))))
    assert len(AttributeReader(DEPTH).known) <= 8_192
    assert protobuf(numbered(0, 3))[0].records == first[0].records


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _texts | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_records = st.builds(
    log_record,
    _values,
    st.dictionaries(_texts, _values, max_size=4),
    time_unix_nano=st.integers(0, 2**64 - 1),
    observed_time_unix_nano=st.integers(0, 2**64 - 1),
    severity_number=st.integers(0, 24),
    severity_text=_texts,
    event_name=_texts,
    flags=st.integers(0, 2**32 - 1),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    trace_id=st.binary(max_size=17),
    span_id=st.binary(max_size=9),
)
_requests = st.builds(
    lambda records, resource, scope: log_request(*records, resource=resource, scope=scope),
    st.lists(_records, min_size=1, max_size=3),
    st.dictionaries(_texts, _values, max_size=3),
    _texts,
)


@settings(max_examples=150, deadline=None)
@given(_requests)
def test_any_request_reads_alike_in_both_encodings_and_again_alone(request: ExportLogsServiceRequest) -> None:
    """Whatever a client may put into it."""
    (one,), (other,) = protobuf(request), from_json(as_json(request))
    assert one.records == other.records
    assert (one.origin.resource, one.origin.scope) == (other.origin.resource, other.origin.scope)
    again = [only(from_json(one.as_request(encoded))) for encoded in one.encoded]
    assert again == one.records


@settings(max_examples=300, deadline=1000)
@given(_requests, st.data())
def test_damaged_requests_are_refused_or_read_and_nothing_else(request: ExportLogsServiceRequest, data: st.DataObject) -> None:
    """Bytes changed, cut, put in: no exception but ours, in either encoding."""
    for text, decode in ((request.SerializeToString(), decode_protobuf), (as_json(request), decode_json)):
        body = bytearray(text)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(body)))
            body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        try:
            for group in decode(bytes(body), DEPTH, MANY):
                assert len(group.records) == len(group.encoded)
        except OtlpInvalidError:
            continue


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_and_nothing_else(body: bytes) -> None:
    """Also by the cutter, which a body of this size does not reach by itself."""
    for decode in (decode_protobuf, decode_json):
        try:
            list(decode(body, DEPTH, MANY))
        except OtlpInvalidError:
            continue
