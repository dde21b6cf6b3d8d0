"""Records of the forward protocol as events: envelope, metadata, times, and what JSON has no form for."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.forward_client import event_time, pack
from tallystick.event import strict
from tallystick.event.codec import Stamp, encode_lines
from tallystick.event.model import Source
from tallystick.plugin import Carrier
from tallystick.protocols.forward import EntrySlice
from tallystick.transforms.forward import ForwardMapping
from tallystick.transforms.mapping import MapResult

NOW = event_time(1_768_832_635, 123_456_789)
AT = "2026-01-19T14:23:55.123456Z"


def slice_of(*entries: Any) -> EntrySlice:
    return EntrySlice(b"".join(map(pack, entries)), len(entries), 0)


def mapped(*entries: Any, **options: Any) -> MapResult:
    return ForwardMapping(**options).map_slice(slice_of(*entries), "app", "chunk-x.", "192.0.2.9")


def events(*entries: Any, **options: Any) -> list[dict[str, Any]]:
    """The events as stored."""
    stamp = Stamp("acme", "2026-01-20T00:00:00.000000Z", Source(name="f", type="forward"), mapping="forward")
    lines = encode_lines(mapped(*entries, **options).events, stamp)
    for line in lines:
        strict.require_strict(line, 32)
    return [json.loads(line) for line in lines]


def event(record: dict[Any, Any], moment: Any = NOW, **options: Any) -> dict[str, Any]:
    (found,) = events([moment, record], **options)
    return found


def test_a_container_log_is_kept_as_it_is() -> None:
    """Nothing in it is known: the action is `forward.record`, the actor the peer; the tag stands before the record's members."""
    found = event({"log": "line [1] {x}", "stream": "stdout", "kubernetes": {"labels": {"app": "shop"}, "n": 7}})
    assert (found["id"], found["action"], found["occurred_at"]) == ("chunk-x.0", "forward.record", AT)
    assert (found["actor"], found["context"]) == ({"type": "system", "id": "192.0.2.9"}, {"ip": "192.0.2.9"})
    assert found["metadata"] == {
        "tag": "app", "log": "line [1] {x}", "stream": "stdout", "kubernetes": {"labels": {"app": "shop"}, "n": 7},
    }  # fmt: skip
    assert "raw" not in found
    assert "flags" not in found["ingest"]


def test_what_the_envelope_has_a_place_for_moves_there() -> None:
    """Action, actor, outcome, reason and context, each where it fits; the rest stays, in order."""
    found = event(
        {
            "x": 1, "action": "user.login", "actor": {"type": "service", "id": "s_1", "name": "S"}, "outcome": "denied", "reason": "late",
            "ip": "10.1.2.3", "user_agent": "curl", "session_id": "se", "request_id": "r", "y": 2,
        }
    )  # fmt: skip
    assert (found["action"], found["outcome"], found["reason"]) == ("user.login", "denied", "late")
    assert found["actor"] == {"type": "service", "id": "s_1", "name": "S"}
    assert found["context"] == {"ip": "10.1.2.3", "user_agent": "curl", "session_id": "se", "request_id": "r"}
    assert list(found["metadata"].items()) == [("tag", "app"), ("x", 1), ("y", 2)]


@pytest.mark.parametrize(
    ("record", "actor"),
    [
        ({"actor": "u_1"}, {"type": "user", "id": "u_1"}),
        ({"user": "ana", "host": "web"}, {"type": "user", "id": "ana"}),
        ({"host": "web"}, {"type": "system", "id": "web"}),
        ({"hostname": "web"}, {"type": "system", "id": "web"}),
        ({"actor": {"id": "u"}}, {"type": "user", "id": "u"}),
    ],
)
def test_who_acted(record: dict[str, Any], actor: dict[str, str]) -> None:
    """A person before a host, a host before the peer."""
    assert event(record)["actor"] == actor


@pytest.mark.parametrize(
    "record",
    [
        {"action": "not an action!"}, {"action": 7}, {"actor": {"type": "robot", "id": "x"}}, {"actor": {"id": 7}}, {"actor": ""},
        {"actor": {"id": "x", "roles": ["a"]}}, {"outcome": "perhaps"}, {"reason": "x" * 3_000}, {"ip": "not an address"}, {"session_id": 5},
    ],
)  # fmt: skip
def test_what_does_not_fit_stays_in_metadata(record: dict[str, Any]) -> None:
    """Nothing is lost, and nothing is bent to fit."""
    found = event(record)
    assert found["metadata"] == {"tag": "app", **record}
    assert found["actor"]["id"] == "192.0.2.9"


def test_the_tag_steps_aside() -> None:
    """A record's own member of that name is its own."""
    assert event({"tag": "mine", "tag_": 1})["metadata"] == {"tag__": "app", "tag": "mine", "tag_": 1}
    assert event({})["metadata"] == {"tag": "app"}


@pytest.mark.parametrize(
    ("moment", "occurred_at", "flags"),
    [
        (1_768_832_635, "2026-01-19T14:23:55.000000Z", None),
        (1_768_832_635.5, "2026-01-19T14:23:55.500000Z", None),
        ([NOW, {}], AT, None),
        (event_time(2**32 - 1), "2106-02-07T06:28:15.000000Z", ["time_implausible"]),
        (-5, None, ["time_invalid", "time_claimed:-5"]),
        (10**15, None, ["time_invalid", "time_claimed:1000000000000000"]),
        (event_time(1, 10**9), None, ["time_invalid", "time_claimed:Ext"]),
        (msgpack.ExtType(1, b"12345678"), None, ["time_invalid", "time_claimed:Ext"]),
        ("yesterday", None, ["time_invalid", "time_claimed:yesterday"]),
        ({"a": 1}, None, ["time_invalid", "time_claimed:dict"]),
        (None, None, None),
    ],
)
def test_times(moment: Any, occurred_at: str | None, flags: list[str] | None) -> None:
    """Every form that the protocol has; what names no time leaves the time of receipt, with a flag."""
    found = event({"a": 1}, moment)
    assert found["occurred_at"] == (occurred_at or "2026-01-20T00:00:00.000000Z")
    assert found["ingest"].get("flags") == flags


def test_metadata_beside_a_time_is_kept() -> None:
    """As Fluent Bit sends it."""
    assert event({"a": 1}, [NOW, {"otlp": {"severity": 9}}])["metadata"] == {
        "tag": "app", "fluent_metadata": {"otlp": {"severity": 9}}, "a": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "kept", "flags"),
    [
        ({"a": b"\x00\xff"}, {"a": "AP8="}, None),
        ({"a": float("nan"), "b": float("-inf")}, {"a": "nan", "b": "-inf"}, ["forward_converted"]),
        ({7: "x"}, {"7": "x"}, ["forward_converted"]),
        ({"a": {1: "x", "1": "y"}}, {"a": {"1": "x", "_1": "y"}}, ["forward_converted"]),
        ({"a": {None: 1, True: 2}}, {"a": {"null": 1, "True": 2}}, ["forward_converted"]),
        ({"a": msgpack.ExtType(5, b"xy")}, {"a": {"ext": 5, "data": "eHk="}}, ["forward_converted"]),
        ({"a\0": "b\0c"}, {"a\ufffd": "b\ufffdc"}, ["text_replaced"]),
        (
            {"a": 2**64 - 1, "b": -(2**63), "c": 1.5, "d": None, "e": [True]},
            {"a": 2**64 - 1, "b": -(2**63), "c": 1.5, "d": None, "e": [True]},
            None,
        ),
    ],
)
def test_what_json_has_no_form_for(record: dict[Any, Any], kept: dict[str, Any], flags: list[str] | None) -> None:
    """It is kept in a form that JSON has, the event says so, and a good record beside it is as it was."""
    first, second = events([NOW, record], [NOW, {"good": 1}])
    assert first["metadata"] == {"tag": "app", **kept}
    assert first["ingest"].get("flags") == flags
    assert second["metadata"] == {"tag": "app", "good": 1}
    assert "flags" not in second["ingest"]


def test_text_that_is_not_utf8() -> None:
    """Replaced, and flagged."""
    part = EntrySlice(b"\x92" + pack(NOW) + b"\x81\xa1k\xa2\xff\xfe", 1, 0)
    (found,) = ForwardMapping().map_slice(part, "app").events
    assert json.loads(bytes(found.metadata))["k"] == "\ufffd\ufffd"  # type: ignore[arg-type]
    assert found.ingest
    assert found.ingest.flags == ["text_replaced"]


def test_what_is_no_entry_or_nested_too_deep_is_a_problem_of_its_own() -> None:
    """With its place and its bytes; the others are events, with the ids of their places."""
    deep: Any = "x"
    for _ in range(40):
        deep = {"d": deep}
    found = mapped([NOW, {"n": 0}], [NOW, deep], [NOW, "no map"], [NOW, {"n": 3}])
    assert [event.id for event in found.events] == ["chunk-x.0", "chunk-x.3"]
    assert found.positions == [0, 3]
    assert [(one.code, one.position, one.record) for one in found.problems] == [
        ("depth_exceeded", 1, pack([NOW, deep])),
        ("forward_invalid", 2, pack([NOW, "no map"])),
    ]


def test_raw_is_the_record_as_json() -> None:
    """When it is to be kept."""
    assert json.loads(event({"action": "a.b", "x": 1}, keep_raw=True)["raw"]) == {"action": "a.b", "x": 1}


def test_messages_of_one_record_each() -> None:
    """Together in one call, each with its own tag; an odd one among them is looked at by itself."""
    messages = [pack(["a", NOW, {"n": 1}]), pack(["b", 1_768_832_635, {"n": 2}])]
    found = ForwardMapping().map_messages(messages, "192.0.2.9")
    assert [json.loads(bytes(one.metadata)) for one in found.events] == [{"tag": "a", "n": 1}, {"tag": "b", "n": 2}]  # type: ignore[arg-type]
    odd = ForwardMapping().map_messages([*messages, pack(["c", NOW, "no map"]), pack(["d", NOW, {"n": float("nan")}])])
    assert [json.loads(bytes(one.metadata))["tag"] for one in odd.events] == ["a", "b", "d"]  # type: ignore[arg-type]
    assert [one.position for one in odd.problems] == [2]


def test_what_the_quarantine_keeps_can_be_mapped_again() -> None:
    """Tag, time and record come back from the JSON form; other bytes are a problem again."""
    first = mapped([NOW, {"action": "user.login", "x": 1}])
    again = ForwardMapping().map_batch([*first.contents, b"\x93garbage", b'{"no":"array"}'], [Carrier("192.0.2.9")] * 3)
    assert [(one.action, one.occurred_at, bytes(one.metadata)) for one in again.events] == [  # type: ignore[arg-type]
        ("user.login", AT, bytes(first.events[0].metadata))  # type: ignore[arg-type]
    ]
    assert [one.position for one in again.problems] == [1, 2]


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=10)
KEYS = st.text(max_size=6) | st.sampled_from(["action", "actor", "ip", "tag", "outcome", "reason", "user", "host"])
RECORDS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(0, 9), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=6,
)


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_any_records_become_strict_events(records: list[dict[Any, Any]]) -> None:
    """Whatever is in them: one event each, in order, whose line is strict JSON."""
    assert len(events(*([NOW, record] for record in records))) == len(records)
