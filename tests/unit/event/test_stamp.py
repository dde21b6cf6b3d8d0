"""The server's fields in canonical lines: two ways, the same bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tallystick.event import Actor, Event, Ingest, Source, stamp
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.stamp import Stamp, splice_lines, texts_of

RECEIVED = "2026-03-04T10:00:00.000000Z"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
TIMES = st.sampled_from(["2026-03-04T10:00:00.123456Z", "1970-01-01T00:00:00.000000Z", "2026-03-05T10:00:00.000000Z"])
EVENTS = st.fixed_dictionaries(
    {"action": st.just("user.login"), "actor": st.fixed_dictionaries({"type": st.just("user"), "id": TEXTS})},
    optional={
        "id": st.sampled_from(["a", "occurred_at", "A.b:c-d_1"]),
        "occurred_at": TIMES,
        "outcome": st.sampled_from(["success", "denied"]),
        "reason": TEXTS | st.just('"occurred_at":"2026-03-04T10:00:00.123456Z",'),
        "metadata": st.dictionaries(TEXTS, TEXTS | st.integers(0, 9) | st.none(), max_size=2),
        "targets": st.lists(st.fixed_dictionaries({"type": TEXTS, "id": TEXTS}), max_size=2),
    },
)


def a_stamp(**changes: Any) -> Stamp:
    given: dict[str, Any] = {
        "tenant": "acme",
        "received_at": RECEIVED,
        "source": Source(name="events", type="http", credential="k1"),
    }
    return Stamp(**given | changes)


@pytest.fixture(autouse=True)
def even_salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Salts that are the same each time."""
    monkeypatch.setattr(stamp, "_salts", lambda count: "".join(f"{n:016x}" for n in range(count)))


@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, "generic"]))
def test_spliced_lines_are_the_encoded_ones(records: list[dict[str, Any]], names_tenant: bool, mapping: str | None) -> None:
    """Whatever was said, the line put together from pieces equals the one that is encoded; else it is not put together."""
    if names_tenant:
        records = [{"tenant": "acme", **record} for record in records]
    body = msgspec.json.Encoder().encode_lines(records)
    first, second = EventReader().read(body, "ndjson"), EventReader().read(body, "ndjson")
    assert not first.errors
    here = a_stamp(mapping=mapping, config="c0ffee")
    encoded = encode_lines(first.events, here)
    here.ids._next = 0
    spliced = splice_lines(second.events, second.said, here)
    is_plain = all("occurred_at" in record and "outcome" in record for record in records)
    assert (spliced is not None) == is_plain
    if spliced is not None:
        assert spliced == encoded
        assert [event.id for event in second.events] == [json.loads(line)["id"] for line in spliced]


MADE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("A.b:c-d_1"),
        "occurred_at": TIMES,
        "outcome": st.just("unknown"),
        "raw": TEXTS,
        "reason": TEXTS,
        "severity": st.just(3),
        "ingest": st.sampled_from(
            [{}, {"mapping": "generic"}, {"mapping": "other"}, {"mapping": "generic", "flags": ["time_invalid"]}]
        ),
    },
)
USUAL = {"occurred_at": RECEIVED, "outcome": "success", "ingest": {"mapping": "generic"}}


def made(record: dict[str, Any]) -> Event:
    """An event as a mapping makes it."""
    ingest = {"ingest": Ingest(**record["ingest"])} if "ingest" in record else {}
    return Event(
        action="a.b", actor=Actor(type="user", id="u"), metadata=Raw(b'{"ingest":{"mapping":"generic"}}'), **(record | ingest)
    )


@given(st.lists(MADE | st.just(USUAL), min_size=1, max_size=4), st.sampled_from([None, "generic"]))
def test_lines_of_mapped_events_are_the_same_either_way(records: list[dict[str, Any]], mapping: str | None) -> None:
    """With or without the text of the events at hand, and whatever their mapping has set of the server's members."""
    here = a_stamp(mapping=mapping, config="c0ffee")
    encoded = encode_lines([made(record) for record in records], here)
    here.ids._next = 0
    events = [made(record) for record in records]
    assert encode_lines(events, here, said=texts_of(events)) == encoded


def test_the_usual_mapped_events_are_spliced() -> None:
    """They are many: their lines are put together from the text that was searched for secrets."""
    events = [made(USUAL)] * 2
    lines = splice_lines(events, texts_of(events), a_stamp(mapping="generic"))
    assert lines is not None
    assert [json.loads(line)["ingest"]["mapping"] for line in lines] == ["generic"] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": "u_1"},
        {"occurred_at": "2026-03-04T10:00:00Z"},
        {"occurred_at": "2026-03-04T10:00:00"},
        {"occurred_at": "1969-12-31T23:59:59.000000Z"},
        {"occurred_at": "2026-03-05T10:00:00.000001Z"},
    ],
)
def test_what_was_changed_or_needs_a_flag_is_encoded(changes: dict[str, Any]) -> None:
    """A plain actor, another form of time, an implausible one: the line is not what was said, and shows it."""
    record = {"occurred_at": RECEIVED, "action": "a.b", "actor": {"type": "user", "id": "u"}, "outcome": "success", **changes}
    batch = EventReader().read(msgspec.json.encode(record), "object")
    assert splice_lines(batch.events, batch.said, a_stamp()) is None
    (line,) = map(json.loads, encode_lines(batch.events, a_stamp(), said=batch.said))
    assert line["actor"]["type"] == "user"
    assert len(line["occurred_at"]) == len(RECEIVED)


def test_one_body_in_parts_knows_what_was_said_of_all_or_is_not_trusted() -> None:
    """When one part had to be read the slow way, the shorter list is not taken for the whole."""
    record = {"occurred_at": RECEIVED, "action": "a.b", "actor": {"type": "user", "id": "u"}, "outcome": "success"}
    large = {**record, "reason": "x" * 2_000}
    spaced = json.dumps({**record, "reason": "é"}).encode()
    body = b"\n".join([msgspec.json.encode(large)] * 600 + [spaced, msgspec.json.encode(record), b"{"])
    batch = EventReader().read(body, "ndjson")
    assert 0 < len(batch.said) < len(batch.events)
    lines = encode_lines(batch.events, a_stamp(), said=batch.said)
    assert [json.loads(line).get("reason") for line in lines[-2:]] == ["é", None]
