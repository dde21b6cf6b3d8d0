"""From rows to events, without a database."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from tallystick.event.fields import ACTION, ID
from tallystick.protocols.pgoutput import Begin, Change, Column, Commit, Message, Relation, Truncate
from tallystick.sources.postgresql_events import Database, Transactions, decode_entries

BEGIN = Begin(0x1_0000_0010, 700_000_000_000_000, 731)
COLUMNS = (Column("id", 23, True), Column("name", 25, True), Column("ok", 16, True), Column("doc", 3802, True))


def table(name: str = "users", identity: str = "f") -> Relation:
    return Relation(16_385, "public", name, identity, COLUMNS)


def events(*items: Any, keys: dict[int, list[str]] | None = None) -> list[dict[str, Any]]:
    """What one transaction becomes."""
    waiting = Transactions()
    for item in (BEGIN, *items, Commit(BEGIN.lsn, BEGIN.lsn + 8, 0)):
        waiting.add(item, 10)
    entries, _, confirm = waiting.take()
    assert confirm == BEGIN.lsn + 8
    decoded = decode_entries(entries, Database("shop", "77", keys if keys is not None else {16_385: ["id"]}))
    return [msgspec.json.decode(msgspec.json.encode(event)) for event in decoded.events]


def row_change(kind: Literal["insert", "update", "delete"], before: Any, after: Any, **options: Any) -> Change:
    return Change(kind, table(**options), before, after)


def test_an_update_tells_what_is_different() -> None:
    """Column, value before, value after: integers and booleans as such, JSON as JSON, the rest as text."""
    old = {"id": "1", "name": "a", "ok": "t", "doc": '{"x": 1}'}
    (event,) = events(row_change("update", old, {**old, "name": None, "ok": "f", "doc": '{"x": [2]}'}))
    assert event["changes"] == [
        {"path": "/name", "op": "replace", "before": "a", "after": None},
        {"path": "/ok", "op": "replace", "before": True, "after": False},
        {"path": "/doc", "op": "replace", "before": {"x": 1}, "after": {"x": [2]}},
    ]
    assert event["action"] == "public.users.update"
    assert event["targets"] == [{"type": "public.users", "id": "1"}]
    assert event["occurred_at"].startswith("2022-03-07T")
    assert event["metadata"]["lsn"] == "1/10"
    assert "ingest" not in event


def test_a_change_of_the_key_is_about_the_row_that_was() -> None:
    """The target is the old key; the new one is in the changes."""
    (event,) = events(row_change("update", {"id": "1"}, {"id": "2"}, identity="d"))
    assert event["targets"][0]["id"] == "1"
    assert event["changes"] == [{"path": "/id", "op": "replace", "before": 1, "after": 2}]


def test_without_a_full_identity_the_values_before_are_unknown() -> None:
    """All that the row has now is told, flagged; a value that was not sent is left out."""
    (event,) = events(row_change("update", None, {"id": "1", "name": "b"}, identity="d"))
    assert [change["path"] for change in event["changes"]] == ["/id", "/name"]
    assert "before" not in event["changes"][0]
    assert event["ingest"]["flags"] == ["before_unknown"]


def test_json_that_an_event_does_not_take_is_text() -> None:
    """PostgreSQL's json keeps repeated keys and numbers of any length."""
    for text in ('{"a":1,"a":2}', "1" * 80, "{broken"):
        (event,) = events(row_change("insert", None, {"doc": text}))
        assert event["changes"] == [{"path": "/doc", "op": "add", "after": text}]


def test_a_table_without_a_key_is_its_own_target() -> None:
    """Also when it is emptied; tables that are emptied together are events of their own."""
    (event,) = events(row_change("delete", {"id": "1", "name": "x"}, None), keys={16_385: []})
    assert event["targets"][0]["id"] == "public.users"
    first, second = events(Truncate((table(), table("roles"))))
    assert (first["action"], second["action"]) == ("public.users.truncate", "public.roles.truncate")
    assert first["id"] != second["id"]


def test_every_name_of_a_table_gives_an_event() -> None:
    """Spaces, other scripts, 63 characters: action and id keep to their rules, the name itself is in target and metadata."""
    for name in ("audit log", "名前" * 10, "x" * 63, '"; DROP'):
        (event,) = events(row_change("insert", None, {"id": "1"}, name=name))
        assert ACTION.fullmatch(event["action"])
        assert ID.fullmatch(event["id"])
        assert event["targets"][0]["type"] == f"public.{name}"


def said(content: bytes, *, prefix: str = "tallystick", is_transactional: bool = True) -> Message:
    return Message(is_transactional, prefix, content)


def test_the_application_says_who() -> None:
    """Actor, reason and context count for what follows in the transaction; other prefixes are others' messages."""
    insert = row_change("insert", None, {"id": "1"})
    content = b'{"actor": {"type": "user", "id": "u_17"}, "reason": "ticket", "context": {"ip": "192.0.2.1"}}'
    before, after = events(insert, said(content), insert)
    assert before["actor"] == {"type": "system", "id": "postgresql:shop"}
    assert (after["actor"]["id"], after["reason"], after["context"]) == ("u_17", "ticket", {"ip": "192.0.2.1"})
    for other in (said(content, prefix="x"), said(content, is_transactional=False)):
        assert events(other, insert)[0]["actor"]["type"] == "system"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"who": 1}', b'{"actor": {"type": "user", "id": "\\u0000"}}', b'{"reason": "a", "reason": "b"}', b"\xff"],
)
def test_a_message_that_is_not_understood_is_flagged(content: bytes) -> None:
    """The change is kept, with the database as its actor."""
    (event,) = events(said(content), row_change("insert", None, {"id": "1"}))
    assert event["actor"]["type"] == "system"
    assert event["ingest"]["flags"] == ["actor_message_invalid"]


def test_only_whole_transactions_are_taken_while_one_is_there() -> None:
    """One that has not ended waits; alone and too large, it is taken in part, and nothing may be confirmed."""
    waiting, insert = Transactions(), row_change("insert", None, {"id": "1"})
    for item in (BEGIN, insert, Commit(1, 9, 0), Begin(20, 0, 2), insert, insert):
        waiting.add(item, 10)
    entries, size, confirm = waiting.take()
    assert (len(entries), confirm) == (1, 9)
    assert size < waiting.size
    entries, _, confirm = waiting.take()
    assert (len(entries), confirm, waiting.size) == (2, 0, 0)
    assert [entry.number for entry in entries] == [1, 2]
    waiting.add(insert, 10)
    waiting.add(Commit(20, 30, 0), 10)
    entries, _, confirm = waiting.take()
    assert ([entry.number for entry in entries], confirm, waiting.is_empty) == ([3], 30, True)


def test_the_same_change_has_the_same_id() -> None:
    """However often the server sends it; another transaction at the same place (a restored database) has another."""
    insert = row_change("insert", None, {"id": "1"})
    assert events(insert)[0]["id"] == events(insert)[0]["id"]
    assert events(insert)[0]["id"] != events(row_change("insert", None, {"id": "2"}))[0]["id"]
