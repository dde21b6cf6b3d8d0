"""The server's fields in canonical lines: two ways, the same bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.event import Source, stamp
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.stamp import Stamp, splice_lines

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
