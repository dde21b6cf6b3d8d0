"""Audit records: what is required of them, and the two canonical forms, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.audit import audit_record
from support.otlp import log_record, log_request
from tallystick.errors import EventInvalidError
from tallystick.protocols.audit_record import COLLECTOR, DRAFT, AuditRecord, Sequence
from tallystick.protocols.otlp import decode_protobuf


def read(record: Any) -> AuditRecord:
    (group,) = decode_protobuf(log_request(record).SerializeToString(), 29, 10)
    return AuditRecord.of(group.as_request(group.encoded[0]))


def test_the_drafts_form_of_its_example() -> None:
    """Members sorted, values tagged by type, times as text; nothing that is not set."""
    record = audit_record(
        drop="session.id",
        count=5,
        large=2**53 + 1,
        edge=2**53,
        half=0.5,
        yes=True,
        raw=b"\x01\xff",
        fields={"trace_id": b"\xab" * 16},
    )
    assert read(record).canonical() == (
        b'{"attributes":{"audit.action":{"stringValue":"LOGIN"},"audit.actor.id":{"stringValue":"u8472"},'
        b'"audit.actor.type":{"stringValue":"user"},"audit.outcome":{"stringValue":"success"},'
        b'"audit.record.id":{"stringValue":"a1b2c3d4-e5f6-7890-abcd-ef1234567890"},"audit.schema.version":{"stringValue":"1.0.0"},'
        b'"audit.source.id":{"stringValue":"203.0.113.42"},"audit.source.type":{"stringValue":"ipv4"},'
        b'"audit.target.id":{"stringValue":"/api/auth/session"},"audit.target.type":{"stringValue":"http.endpoint"},'
        b'"count":{"intValue":5},"edge":{"intValue":9007199254740992},"half":{"doubleValue":0.5},'
        b'"large":{"intValue":"9007199254740993"},"raw":{"bytesValue":"Af8="},"tls.version":{"stringValue":"TLSv1.3"},'
        b'"yes":{"boolValue":true}},"event_name":"user.login.success","observed_timestamp":"1714041600001000000",'
        b'"timestamp":"1714041600000000000","trace_id":"abababababababababababababababab"}'
    )


def test_the_collectors_form_differs_in_integers_and_text_bodies() -> None:
    """All integers as text, a body that is text plain; other bodies are tagged in both, and lists and maps hold tagged values."""
    record = log_record("hello", {"n": 5, "l": [1, {"k": "v"}]}, event_name="e")
    assert b'"body":"hello"' in read(record).canonical(COLLECTOR)
    assert b'"l":[{"intValue":"1"},{"k":{"stringValue":"v"}}],"n":{"intValue":"5"}' in read(record).canonical(COLLECTOR)
    assert b'"body":{"stringValue":"hello"}' in read(record).canonical(DRAFT)
    assert b'"l":[{"intValue":1},{"k":{"stringValue":"v"}}],"n":{"intValue":5}' in read(record).canonical(DRAFT)
    assert b'"body":{"a":{"intValue":"1"}}' in read(log_record({"a": 1})).canonical(COLLECTOR)


def test_the_signed_part_is_without_the_proof() -> None:
    """Every attribute `audit.integrity.*` is left out of it, and is in the whole."""
    record = audit_record(audit__integrity__value="cHJvb2Y=", audit__integrity__signer="producer")
    assert read(record).canonical(is_signed_part=True) == read(audit_record()).canonical()
    assert b"audit.integrity.signer" in read(record).canonical()


def test_a_body_that_is_empty_is_not_one_that_is_absent() -> None:
    """The draft asks for that; severity is in no form."""
    assert read(audit_record(body="")).canonical() != read(audit_record()).canonical()
    assert read(audit_record(fields={"severity_number": 9})).canonical() == read(audit_record()).canonical()


def test_json_in_any_of_its_spellings_has_one_canonical_form() -> None:
    """Integers as text or numbers, either base64, ids in either case."""
    spellings = (
        '{"timeUnixNano":"5","traceId":"AB00","attributes":[{"key":"i","value":{"intValue":"7"}},{"key":"b","value":{"bytesValue":"-_8"}}]}',
        '{"timeUnixNano":5,"traceId":"ab00","attributes":[{"key":"i","value":{"intValue":7}},{"key":"b","value":{"bytesValue":"+/8="}}]}',
    )
    forms = {
        AuditRecord.of(f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{text}]}}]}}]}}'.encode()).canonical()
        for text in spellings
    }
    assert forms == {b'{"attributes":{"b":{"bytesValue":"+/8="},"i":{"intValue":7}},"timestamp":"5","trace_id":"ab00"}'}


@pytest.mark.parametrize(
    ("record", "pointer"),
    [
        (audit_record(fields={"time_unix_nano": 0}), "/Timestamp"),
        (audit_record(fields={"event_name": ""}), "/EventName"),
        *((audit_record(drop=name), f"/{name}") for name in ("audit.record.id", "audit.actor.id", "audit.actor.type", "audit.action", "audit.outcome")),
        (audit_record(audit__actor__id=7), "/audit.actor.id"),
        (audit_record(audit__actor__type="robot"), "/audit.actor.type"),
        (audit_record(audit__outcome="maybe"), "/audit.outcome"),
        (audit_record("not an id!"), "/audit.record.id"),
        (audit_record("x" * 129), "/audit.record.id"),
    ],
)  # fmt: skip
def test_what_a_record_lacks_is_named(record: Any, pointer: str) -> None:
    """The draft's required fields, as text, with the words it allows."""
    with pytest.raises(EventInvalidError) as caught:
        read(record).require()
    assert caught.value.pointer == pointer


def test_a_place_in_a_sequence_needs_a_stream() -> None:
    """Without one, nobody can tell whose numbers they are."""
    assert Sequence.of(read(audit_record(audit__sequence__number=1))) is None
    found = Sequence.of(read(audit_record(audit__sequence__number=3, audit__sequence__stream_id="s", audit__sequence__end=True)))
    assert found == Sequence("s", 3, "", is_end=True)


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _told_apart(value: Any) -> Any:
    """The value with its type at every level; minus nought is nought, as JCS has it."""
    match value:
        case dict():
            return {key: _told_apart(one) for key, one in value.items()}
        case list():
            return [_told_apart(one) for one in value]
        case float():
            return ("float", repr(value + 0.0))
    return (type(value).__name__, repr(value))


@settings(max_examples=200, deadline=None)
@given(_values, _values)
def test_two_values_have_the_same_form_only_when_they_are_the_same(one: Any, other: Any) -> None:
    """In both forms, as a body and as an attribute; each form is JSON."""
    for form in (DRAFT, COLLECTOR):
        texts = [read(log_record(value, {"v": value})).canonical(form) for value in (one, other)]
        assert all(json.loads(text) for text in texts)
        assert (texts[0] == texts[1]) == (_told_apart(one) == _told_apart(other))
