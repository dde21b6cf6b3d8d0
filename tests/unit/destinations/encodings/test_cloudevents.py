"""CloudEvents going out: our own door reads them again."""

from __future__ import annotations

import json

from hypothesis import given, settings

from support.event_corpus import LINES, hard_lines
from tallystick.destinations.encodings import make_encoder, records_of
from tallystick.protocols import cloudevents

RANGE = {"origin": "o", "first_index": 0, "last_index": 0}


def check(line: bytes) -> None:
    """The attributes are texts that are not empty, and the data are the canonical line, byte for byte."""
    (record,) = records_of(make_encoder("cloudevents").encode([line], **RANGE))
    assert record.endswith(b'"data":' + line + b"}")
    event, said = json.loads(record), json.loads(line)
    assert all(isinstance(value, str) and value for name, value in event.items() if name != "data")
    assert (event["specversion"], event["id"], event["type"], event["source"]) == (
        "1.0",
        said["id"],
        said["action"],
        "urn:tallystick:acme",
    )


def test_hard_events_are_cloudevents() -> None:
    """Controls, other scripts, very long and empty members."""
    for line in hard_lines():
        check(line)


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_any_event_is_one(line: bytes) -> None:
    """Whatever a sender wrote."""
    check(line)


def test_a_batch_is_read_by_our_own_door() -> None:
    """Several in one array, under the media type of the specification."""
    encoder = make_encoder("cloudevents", framing="envelope")
    lines = hard_lines()
    records = cloudevents.read(encoder.content_type, {}, encoder.encode(lines, **RANGE))
    assert [json.loads(record)["id"] for record in records] == [json.loads(line)["id"] for line in lines]
    assert encoder.name == "cloudevents_batch"
