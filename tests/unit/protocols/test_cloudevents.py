"""CloudEvents in their three modes become our events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tallystick.errors import EventInvalidError
from tallystick.event.codec import EventReader, ReadBatch
from tallystick.protocols import cloudevents

DATA = {"action": "user.login", "actor": "u_1", "metadata": {"n": 1}}
ENVELOPE = {"specversion": "1.0", "id": "e-1", "source": "/app", "type": "com.example.login", "time": "2026-03-04T10:00:00Z"}


def read(media_type: str, body: Any, headers: dict[bytes, bytes] | None = None) -> ReadBatch:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return EventReader().read_records(cloudevents.read(media_type, headers or {}, data))


def structured(**more: Any) -> dict[str, Any]:
    batch = read(cloudevents.STRUCTURED, {**ENVELOPE, **more})
    assert not batch.errors
    return json.loads(batch.contents[0])


def test_envelope_fills_what_data_leaves_out() -> None:
    """Id and time come from the envelope; what data says itself stays, and the envelope's rest is kept."""
    event = structured(data=DATA, partitionkey="p")
    assert (event["id"], event["occurred_at"], event["action"], event["actor"]) == ("e-1", ENVELOPE["time"], "user.login", "u_1")
    assert event["metadata"] == {
        "n": 1,
        "cloudevents": {"source": "/app", "partitionkey": "p", "type": "com.example.login"},
    }
    own = structured(data={**DATA, "id": "mine", "occurred_at": "2026-01-01T00:00:00Z"})
    assert (own["id"], own["occurred_at"]) == ("mine", "2026-01-01T00:00:00Z")
    assert own["metadata"]["cloudevents"]["id"] == "e-1"


def test_type_is_the_action_and_subject_the_target_when_data_has_none() -> None:
    """Type and subject stand in for action and targets."""
    event = structured(data={"actor": "u_1"}, subject="doc/7")
    assert event["action"] == "com.example.login"
    assert event["targets"] == [{"type": "subject", "id": "doc/7"}]


def test_other_documents_are_kept_whole() -> None:
    """Data that is no event of ours becomes metadata, with the source as actor."""
    event = structured(data={"amount": 12.50, "currency": "EUR"})
    assert event["actor"] == {"type": "service", "id": "/app"}
    assert event["metadata"]["data"] == {"amount": 12.5, "currency": "EUR"}
    assert structured()["actor"]["id"] == "/app"


def test_an_id_of_another_form_is_kept_beside() -> None:
    """An id that ours cannot be is not lost and not bent."""
    event = structured(id="order 7/é", data=DATA)
    assert "id" not in event
    assert event["metadata"]["cloudevents"]["id"] == "order 7/é"


def test_batch_gives_one_event_each() -> None:
    """A batch is an array of structured events; an empty one is empty."""
    body = [{**ENVELOPE, "id": f"e-{n}", "data": DATA} for n in range(3)]
    assert [event.id for event in read(cloudevents.BATCH, body).events] == ["e-0", "e-1", "e-2"]
    assert read(cloudevents.BATCH, []) == ReadBatch()


def test_binary_mode_reads_headers() -> None:
    """Attributes come from ce- headers, percent-decoded; data is the body, byte for byte."""
    headers = {b"ce-" + name.encode(): value.encode() for name, value in ENVELOPE.items()} | {b"ce-subject": b"caf%C3%A9"}
    body = b'{"actor":"u_1","metadata":{"n":1.0}}'
    batch = read("application/json", body, headers)
    event = json.loads(batch.contents[0])
    assert (event["id"], event["action"], event["targets"][0]["id"]) == ("e-1", "com.example.login", "café")
    assert b'"n":1.0' in batch.contents[0]


def test_strictness_reaches_into_data() -> None:
    """What the reader refuses in an event it refuses inside an envelope."""
    with pytest.raises(EventInvalidError) as caught:
        read(
            cloudevents.STRUCTURED,
            b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"actor":"u","metadata":{"a":1,"a":2}}}',
        )
    assert (caught.value.code, caught.value.pointer) == ("key_duplicate", "/data/metadata/a")
    assert read(cloudevents.STRUCTURED, {**ENVELOPE, "data": {**DATA, "zz": 1}}).errors[0].code == "key_unknown"
    assert read(cloudevents.STRUCTURED, {**ENVELOPE, "data": {"actor": "u", "metadata": 5}}).errors[0].pointer == "/metadata"


@pytest.mark.parametrize(
    ("media_type", "body", "code", "pointer"),
    [
        (cloudevents.STRUCTURED, b"{", "json_invalid", ""),
        (cloudevents.STRUCTURED, b"[]", "event_not_object", ""),
        (cloudevents.STRUCTURED, b"{}", "field_missing", "/id"),
        (cloudevents.STRUCTURED, b'{"id":"1","source":"s","specversion":"0.3","type":"t"}', "field_invalid", "/specversion"),
        (cloudevents.STRUCTURED, b'{"id":"1","source":"s","specversion":"1.0","type":"no action"}', "field_invalid", "/type"),
        (cloudevents.STRUCTURED, b'{"id":"1","id":"2","source":"s","specversion":"1.0","type":"t"}', "key_duplicate", "/id"),
        (cloudevents.STRUCTURED, b'{"id":"1","source":"s","specversion":"1.0","type":"t","data_base64":"AA=="}', "data_not_json", "/data_base64"),
        (cloudevents.BATCH, b"{", "event_not_object", ""),
        (cloudevents.BATCH, b"{}", "event_not_object", ""),
        (cloudevents.BATCH, b"[1]", "event_not_object", ""),
        ("text/plain", b"hello", "data_not_json", ""),
    ],
)  # fmt: skip
def test_faults_are_named(media_type: str, body: bytes, code: str, pointer: str) -> None:
    """Each fault of an envelope has its code and place."""
    with pytest.raises(EventInvalidError) as caught:
        read(media_type, body)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
