"""Setting, renaming and removing members; the paths they go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.config import load_config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.event.codec import EventReader
from tallystick.plugin import Transform
from tallystick.query.evaluate import compile_query
from tallystick.transforms import build_transform

MEMBERS = {
    "action": "user.login",
    "actor": {"type": "user", "id": "u", "roles": ["admin", "ops"]},
    "targets": [{"type": "repo", "id": "r1"}, {"type": "repo", "id": "r2", "name": "two"}],
    "context": {"ip": "192.0.2.1"},
    "changes": [{"path": "/role", "op": "replace", "before": 1.50, "after": {"a": 1}}],
    "metadata": {"n": 1, "user": {"team": "red", "a.b": 7}, "list": [1, {"x": 2}], "nothing": None},
}


def event_of(**members: Any) -> Event:
    batch = EventReader().read(msgspec.json.encode({**MEMBERS, **members}), "object")
    assert not batch.errors
    return msgspec.json.decode(msgspec.json.encode(batch.events[0]), type=Event)


def built(tmp_path: Path, body: str, kind: str) -> Transform:
    path = tmp_path / "t.toml"
    path.write_text(f'[transforms.x]\ntype = "{kind}"\n{body}\n')
    config = load_config(path)
    return build_transform("x", config.transforms["x"], config, compile_query)


def applied(transform: Transform, event: Event) -> dict[str, Any]:
    kept = transform.apply_batch([event], [b""])
    if kept is not None:
        ((_, event),) = kept  # type: ignore[misc]
    assert isinstance(event, Event), event
    fields = msgspec.json.encode(event)
    assert not EventReader().read(fields, "object").errors or b"enrichment" in fields
    return msgspec.json.decode(fields)  # type: ignore[no-any-return]


def test_set_puts_values_where_members_are_missing(tmp_path: Path) -> None:
    """Typed members, free ones, objects on the way; a place that a list does not have is nothing to do."""
    text = 'values = { category = "authentication", "context.location" = "Basel", "metadata.user.x.y" = [1], "/metadata/user/a.b" = 8, "targets.0.name" = "one", "targets.5.name" = "six", "metadata.list.1.x" = true, "metadata.nothing.deep" = 1, "enrichment.team" = "red" }'
    found = applied(built(tmp_path, text, "set"), event_of())
    assert (found["category"], found["context"]) == ("authentication", {"ip": "192.0.2.1", "location": "Basel"})
    assert found["metadata"] == {
        "n": 1,
        "user": {"team": "red", "a.b": 8, "x": {"y": [1]}},
        "list": [1, {"x": True}],
        "nothing": {"deep": 1},
    }
    assert [target.get("name") for target in found["targets"]] == ["one", "two"]
    assert found["enrichment"] == {"team": "red"}


def test_set_without_overwrite_and_for_chosen_events(tmp_path: Path) -> None:
    """What is there stays; events that the query does not choose stay as they are."""
    text = 'values = { "context.ip" = "203.0.113.9", reason = "made up" }\noverwrite = false\nwhere = "action:user.login"'
    transform = built(tmp_path, text, "set")
    assert (found := applied(transform, event_of()))["context"]["ip"] == "192.0.2.1"
    assert found["reason"] == "made up"
    assert "reason" not in applied(transform, event_of(action="user.logout"))


def test_rename_moves_values_with_their_own_text(tmp_path: Path) -> None:
    """Between free and typed members; number texts stay; a time becomes canonical; what is not there is nothing to do."""
    text = 'paths = { "metadata.user.team" = "actor.name", "context.ip" = "metadata.from", "metadata.at" = "occurred_at", "metadata.n" = "metadata.m", "metadata.absent" = "reason" }'
    event = event_of()
    event.metadata = msgspec.Raw(b'{"n":1.500,"user":{"team":"red"},"at":"2026-03-04T11:00:00+01:00"}')
    found = applied(built(tmp_path, text, "rename"), event)
    assert found["actor"]["name"] == "red"
    assert found["occurred_at"] == "2026-03-04T10:00:00.000000Z"
    assert b'"m":1.500' in bytes(event.metadata)
    assert found["metadata"] == {"user": {}, "from": "192.0.2.1", "m": 1.5}


def test_rename_keeps_both_without_overwrite(tmp_path: Path) -> None:
    """With `overwrite = false` a value that is there is not lost."""
    found = applied(built(tmp_path, 'paths = { "metadata.n" = "metadata.user" }\noverwrite = false', "rename"), event_of())
    assert (found["metadata"]["n"], found["metadata"]["user"]["team"]) == (1, "red")


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ('"metadata.n" = "actor.name"', "expected `str`"),
        ('"metadata.user" = "severity"', "expected `int`"),
        ('"context.ip" = "occurred_at"', "RFC 3339"),
        ('"context.ip" = "metadata"', "must be a JSON object"),
        ('"context.ip" = "metadata.n.deep"', "no object stands in the way"),
        ('"metadata.user" = "outcome"', "expected `str`"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_of_that_event(tmp_path: Path, move: str, words: str) -> None:
    """With reason and pointer; the other events of the batch go on."""
    transform = built(tmp_path, f"paths = {{ {move} }}", "rename")
    kept = transform.apply_batch([event_of(), Event(action="a", actor=event_of().actor)], [b"", b""])
    assert kept is not None
    error = kept[0][1]
    assert isinstance(error, EventInvalidError)
    assert (error.code, error.pointer != "") == ("transform_failed", True)
    assert words in error.message
    assert isinstance(kept[1][1], Event)


def test_what_would_be_nested_too_deep_is_an_error(tmp_path: Path) -> None:
    """32 levels are allowed, counted from the event; one more is not."""
    transform = built(tmp_path, 'paths = { "metadata.deep" = "metadata.a.b.c" }', "rename")

    def outcome(levels: int) -> Any:
        kept = transform.apply_batch([event_of(metadata={"deep": msgspec.json.decode(b"[" * levels + b"]" * levels)})], [b""])
        assert kept is not None
        return kept[0][1]

    assert isinstance(outcome(28), Event)
    assert isinstance(outcome(29), EventInvalidError)


def test_remove_takes_away_what_is_there(tmp_path: Path) -> None:
    """Typed and free members, elements of lists, whole objects."""
    paths = '"metadata.user.team", "/metadata/user/a.b", "metadata.list.0", "context", "targets.1", "changes.0.before", "actor.roles.0", "metadata.absent.x", "raw"'
    found = applied(built(tmp_path, f"paths = [{paths}]", "remove"), event_of())
    assert found["metadata"] == {"n": 1, "user": {}, "list": [{"x": 2}], "nothing": None}
    assert "context" not in found
    assert (len(found["targets"]), found["actor"]["roles"]) == (1, ["ops"])
    assert found["changes"] == [{"path": "/role", "op": "replace", "after": {"a": 1}}]


def test_a_batch_without_the_members_is_left_alone(tmp_path: Path) -> None:
    """None: nothing is done to any event; a key that is written with escapes is found all the same."""
    for kind, body in (("remove", 'paths = ["metadata.debug"]'), ("rename", 'paths = { "metadata.debug" = "reason" }')):
        transform = built(tmp_path, body, kind)
        assert transform.apply_batch([event_of(), event_of()], [b"", b""]) is None
        event = event_of()
        event.metadata = msgspec.Raw(b'{"d\\u0065bug":"x"}')
        assert applied(transform, event)["metadata"] == {}


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("set", "values = { nosuch = 1 }", "no member 'nosuch'"),
        ("set", 'values = { tenant = "x" }', "when the transforms are through"),
        ("set", 'values = { id = "x" }', "what the sender said"),
        ("set", 'values = { raw = "x" }', "what the sender said"),
        ("set", 'values = { category = "fun" }', "invalid enum value 'fun'"),
        ("set", 'values = { action = "-" }', "matching regex"),
        ("set", "values = { severity = 7 }", "`int` <= 6"),
        ("set", 'values = { "actor.id" = "" }', "length >= 1"),
        ("set", "values = { metadata = 1 }", "must be a JSON object"),
        ("set", "values = { enrichment = {} }", "belongs to all transforms"),
        ("set", 'values = { "metadata.x" = nan }', "no JSON"),
        ("set", 'values = { "metadata.x" = "\\u0000" }', "NUL"),
        ("set", 'values = { "metadata.x" = 1e999 }', "no JSON"),
        ("set", 'values = { "metadata..x" = 1 }', "empty part"),
        ("set", 'values = { "actor.nosuch" = 1 }', "'actor' has no member 'nosuch'"),
        ("set", 'values = { "action.x" = 1 }', "'action' has no members"),
        ("set", 'values = { "targets.x.name" = "a" }', "is a list"),
        ("set", "values = {}", "`values` is empty"),
        ("set", 'values = { "' + ".".join(["metadata"] + ["a"] * 33) + '" = 1 }', "deeper than 32"),
        ("set", 'values = { reason = "x" }\nwhere = "nosuch:1"', "unknown field"),
        ("rename", 'paths = { action = "reason" }', "required"),
        ("rename", 'paths = { "actor.id" = "reason" }', "required"),
        ("rename", 'paths = { "metadata" = "metadata.old" }', "into itself"),
        ("rename", 'paths = { "metadata.a" = "changes" }', "what the sender said"),
        ("remove", 'paths = ["actor"]', "required"),
        ("remove", 'paths = ["targets.0.type"]', "required"),
        ("remove", 'paths = ["changes.0.path"]', "required"),
        ("remove", 'paths = ["id"]', "tells duplicates apart"),
        ("remove", 'paths = ["ingest.flags"]', "when the transforms are through"),
        ("remove", "paths = []", "`paths` is empty"),
        ("remove", 'paths = ["reason"]\nnosuch = 1', "unknown key `nosuch`"),
    ],
)
def test_what_no_event_could_take_is_refused_with_the_configuration(tmp_path: Path, kind: str, body: str, words: str) -> None:
    """Before any event is seen, and with the line."""
    from tallystick.sources.plan import build_plans

    path = tmp_path / "t.toml"
    path.write_text(f'[transforms.x]\ntype = "{kind}"\n{body}\n')
    with pytest.raises(ConfigError) as caught:
        build_plans(load_config(path), compile_query)
    assert words in str(caught.value)
    assert f"{path}:" in str(caught.value)


_KEYS = st.sampled_from(["a", "b", "0", "1", "x.y", "ü", '"', "\\"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet="ab\u20ac", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(metadata=st.dictionaries(_KEYS, _VALUES, max_size=3), source=st.lists(_KEYS, min_size=1, max_size=3), target=st.lists(_KEYS, min_size=1, max_size=3), kind=st.sampled_from(["set", "rename", "remove"]))  # fmt: skip
def test_whatever_is_done_the_event_is_valid_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any], source: list[str], target: list[str], kind: str
) -> None:
    """Random free members and places: what goes on reads as a strict event, and has what was asked for."""
    from tallystick.config import Config
    from tallystick.event.strict import escape

    start, end = ("/".join(["/metadata", *map(escape, keys)]) for keys in (source, target))
    tables: dict[str, dict[str, Any]] = {
        "set": {"values": {end: 5}},
        "rename": {"paths": {start: end}},
        "remove": {"paths": [start]},
    }
    if kind == "rename" and target[: len(source)] == source:
        return
    transform = build_transform("x", {"type": kind, **tables[kind]}, Config(), compile_query)
    event = event_of(metadata=metadata)
    kept = transform.apply_batch([event], [b""]) or [(0, event)]
    made = kept[0][1]
    if isinstance(made, EventInvalidError):
        assert made.code == "transform_failed"
        return
    batch = EventReader().read(msgspec.json.encode(made), "object")
    assert not batch.errors
    if kind == "remove":
        assert value_at(metadata, source) is None or value_at(msgspec.json.decode(bytes(made.metadata)), source) != value_at(
            metadata, source
        ) or any(key in "01" for key in source)  # fmt: skip


def value_at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
