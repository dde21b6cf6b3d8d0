"""Groups of records mapped member by member: what comes out is what comes of them record by record."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.event import times
from tallystick.plugin import Carrier
from tallystick.transforms import MapOptions, Mapping, MapResult, load_mappings
from tallystick.transforms.columns import Columns, Group

_NAMES = (
    "action",
    "event_type",
    "user",
    "user_id",
    "id",
    "timestamp",
    "time",
    "ip",
    "client_ip",
    "outcome",
    "result",
    "reason",
    "email",
    "x",
)
_TEXTS = st.sampled_from(
    [
        "u_1",
        "u_2",
        "",
        "-",
        "ok",
        "denied",
        "weird",
        "192.0.2.1",
        "192.0.2.1:443",
        "a.b",
        "not an action",
        "2026-03-04T10:00:00Z",
        "04/03/2026",
        "é\u0000",
    ]
)
_VALUES = st.one_of(_TEXTS, st.integers(0, 3), st.none(), st.just({"a": 1}))
_SHAPES = st.lists(st.sampled_from(_NAMES), max_size=5, unique=True)
_TIMES = st.sampled_from([None, times.ParsedTime("2026-03-04T10:00:00.000000Z"), times.ParsedTime(None, ("time_invalid",))])
_CARRIERS = st.builds(Carrier, st.sampled_from(["", "web-1"]), _TIMES, st.sampled_from([{}, {"hec": {"host": "h"}}, {"x": 1}]))


FORMS = """
name = "forms"
[time]
from = ["timestamp", { path = "time", form = "%d/%m/%Y" }, { template = "{x} {id}" }]
[envelope]
action = [{ path = "action", as = "slug" }, { path = "event_type", as = "action" }, { var = "source_record" }]
reason = [{ path = "reason", as = "said" }]
[actor]
type = { const = "user" }
id = [{ path = "user", as = "said" }, "user_id", { var = "peer" }]
[context]
ip = [{ path = "ip", as = "endpoint" }, { path = "client_ip", as = "ip" }]
"""


def mapping_of(name: str) -> Mapping:
    """One that is shipped, or one of many forms, which may read what the carrier says as well."""
    if not name.startswith("forms"):
        return load_mappings()[name]
    return Mapping({**tomllib.loads(FORMS), "parse": {"carrier": name == "forms of the carrier"}})


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[bytes, Carrier]]:
    """Runs of records of a few shapes, whose members are mostly texts; lines of text among them."""
    found: list[tuple[bytes, Carrier]] = []
    for _ in range(draw(st.integers(1, 3))):
        names, carrier = draw(_SHAPES), draw(_CARRIERS)
        for _ in range(draw(st.integers(1, 6))):
            values = {name: draw(_TEXTS if draw(st.integers(0, 9)) else _VALUES) for name in names}
            text = (
                json.dumps(values).encode()
                if draw(st.integers(0, 5))
                else draw(st.sampled_from([b" a line ", b"\xff", b"[1]", b'{"a":1.50}']))
            )
            found.append((text, carrier if draw(st.booleans()) else draw(_CARRIERS)))
    return found


def shown(result: MapResult) -> Any:
    """Everything of a result, comparable."""
    events = [msgspec.json.encode(event) for event in result.events]
    return events, result.contents, list(result.positions), result.problems


def one_by_one(mapping: Mapping, batch: list[tuple[bytes, Carrier]], options: MapOptions) -> MapResult:
    whole = MapResult()
    for position, (record, carrier) in enumerate(batch):
        part = mapping.map_batch([record], [carrier], options)
        whole.events += part.events
        whole.contents += part.contents
        whole.positions = [*whole.positions, *([position] * len(part.events))]
        whole.problems += [problem._replace(position=position) for problem in part.problems]
    return whole


@settings(max_examples=300)
@given(batch=batches(), keep_raw=st.booleans(), names_by_digest=st.booleans())
@pytest.mark.parametrize("name", ["generic", "github_audit", "forms", "forms of the carrier"])
def test_a_batch_is_its_records(name: str, batch: list[tuple[bytes, Carrier]], keep_raw: bool, names_by_digest: bool) -> None:
    """In order, with the same ids, flags and positions; bad ones among them hold up nobody."""
    mapping, options = mapping_of(name), MapOptions("s", keep_raw, names_by_digest)
    together = mapping.map_batch([record for record, _ in batch], [carrier for _, carrier in batch], options)
    assert shown(together) == shown(one_by_one(mapping, batch, options))


def test_a_line_of_text_is_not_named_by_its_digest() -> None:
    """Two lines that are the same may be two events, in a group as alone, and beside objects of no members."""
    carrier = Carrier(time=times.ParsedTime("2026-03-04T10:00:00.000000Z"))
    for records in ([b"a line"], [b"a line"] * 5, [b"a line", b"{}"] * 5):
        result = mapping_of("generic").map_batch(records, [carrier] * len(records), MapOptions("s"))
        assert [event.id is msgspec.UNSET for event in result.events] == [record == b"a line" for record in records]


def test_flat_records_do_go_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what they are for: records of two shapes, and lines, in three groups."""
    groups: list[int] = []
    real = Columns.map

    def count(self: Columns, group: Group) -> Any:
        groups.append(len(group.values))
        return real(self, group)

    monkeypatch.setattr(Columns, "map", count)
    records = [b'{"user":"a","n":1}', b'{"action":"a.b","user":"c"}', b"a line"] * 5
    result = load_mappings()["generic"].map_batch(records)
    assert (len(result.events), sorted(groups)) == (15, [5, 5, 5])
    assert [event.actor.id for event in result.events[:3]] == ["a", "c", "unknown"]


def test_what_was_cut_for_all_stays_beside_what_it_became() -> None:
    """A member moves only where its own text is in the envelope."""
    cut, whole = b'{"action":"a","user":"u","ip":"192.0.2.1:443"}', b'{"action":"a","user":"u","ip":"192.0.2.1"}'
    for records in ([cut] * 5, [whole] * 5, [cut, whole] * 3):
        for event, record in zip(mapping_of("forms").map_batch(records).events, records, strict=True):
            assert event.context.ip == "192.0.2.1"
            rest = {} if event.metadata is msgspec.UNSET else json.loads(bytes(event.metadata))
            assert rest == ({"ip": "192.0.2.1:443"} if record == cut else {})
