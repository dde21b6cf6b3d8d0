"""What every encoding keeps, whatever its form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.event_corpus import LINES, hard_lines
from tallystick.destinations.encodings import ENCODINGS, make_encoder, records_of
from tallystick.destinations.encodings.registry import find_encoding
from tallystick.errors import ConfigError

RANGE = {"origin": "audit.example.com/log/aaaaaaaaaaaaaaaa", "first_index": 3, "last_index": 5}
BY_EVENT = sorted(name for name, kind in ENCODINGS.items() if kind.shape in ("json", "text"))
JSON = [name for name in BY_EVENT if ENCODINGS[name].shape == "json"]


def encode(name: str, lines: list[bytes]) -> list[bytes]:
    return records_of(make_encoder(name).encode(lines, **RANGE))


def check_records(name: str, lines: list[bytes]) -> None:
    """One record an event, each with tenant and id, the same alone as in company, and the same again from another encoder."""
    records = encode(name, lines)
    assert len(records) == len(lines)
    assert records == [encode(name, [line])[0] for line in lines]
    for line, record in zip(lines, records, strict=True):
        event = json.loads(line)
        assert event["id"].encode() in record
        assert event["tenant"].encode() in record
        record.decode()
        if name in JSON:
            assert isinstance(json.loads(record), dict)


@pytest.mark.parametrize("name", BY_EVENT)
def test_hard_events_have_one_record_each(name: str) -> None:
    """Control characters, escapes, other scripts, very long and empty members."""
    check_records(name, hard_lines())


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=3), st.sampled_from(BY_EVENT))
def test_any_event_has_one_record(lines: list[bytes], name: str) -> None:
    """Encoding never fails, whatever a sender wrote."""
    check_records(name, lines)


@pytest.mark.parametrize("name", JSON)
def test_an_envelope_holds_the_records_and_the_range(name: str) -> None:
    """What a webhook gets: the same records, and which part of which log they are, unless the encoding has a batch of its own."""
    lines = hard_lines()
    body = json.loads(make_encoder(name, framing="envelope").encode(lines, **RANGE))
    records = [json.loads(record) for record in encode(name, lines)]
    if ENCODINGS[name].batch_type:
        assert body == records
        return
    assert body["events"] == records
    assert body["range"] == {"log": RANGE["origin"], "first_index": 3, "last_index": 5}


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_name_and_version_say_what_the_bytes_depend_on(name: str) -> None:
    """They are stored with each cut."""
    encoder = make_encoder(name, "zstd")
    assert encoder.name.startswith(name)
    assert encoder.version
    assert encoder.suffix.startswith(".")


def test_an_encoding_that_cannot_be_carried_is_refused() -> None:
    """The error names those that can be."""
    with pytest.raises(ConfigError, match="cannot carry") as caught:
        find_encoding("json", ("text",))
    assert "docs/encodings.md" in str(caught.value.hint)


PAGE = (Path(__file__).parents[4] / "docs" / "encodings.md").read_text("utf-8")


def block(text: str) -> str:
    """The first fenced block."""
    return text.partition("\n```")[2].partition("\n")[2].partition("\n```")[0]


@pytest.mark.parametrize("name", sorted(set(BY_EVENT) - {"json"}))
def test_the_example_on_the_page_is_what_comes_out(name: str) -> None:
    """Every encoding has a section, with its form of the one event that the page begins with."""
    (record,) = encode(name, [block(PAGE).encode()])
    section = PAGE.partition(f"\n## `{name}`")[2].partition("\n## ")[0]
    example = block(section[section.rindex("\n```", 0, section.rindex("\n```")) :])
    assert (json.loads(example) == json.loads(record)) if name in JSON else (example == record.decode())
    assert f"\n| `{name}` | {ENCODINGS[name].shape} |" in PAGE
