from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.archive.chunk import encode_chunk, open_chunk, read_columns
from tallystick.archive.columns import CHUNK_SCHEMA, columns_from_lines, group_lines
from unit.archive.lines import make_event, make_line, make_lines

KEY = bytes(range(32))
_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


def _optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_events = st.builds(
    make_event,
    st.integers(0, 10**6),
    action=st.sampled_from(["user.login", "role.grant"]),
    category=_optional(st.sampled_from(["data", "account"])),
    severity=_optional(st.integers(0, 6)),
    actor=st.fixed_dictionaries(
        {"type": st.just("user"), "id": _text}, optional={"name": _text, "roles": st.lists(_text, max_size=2)}
    ),
    targets=_optional(st.lists(st.fixed_dictionaries({"type": _text, "id": _text}, optional={"owner": _text}), max_size=3)),
    context=_optional(st.fixed_dictionaries({}, optional={"ip": _text, "session_id": _text, "user_agent": _text})),
    metadata=_optional(st.dictionaries(_text, st.integers() | _text, max_size=2)),
    sealed=_optional(st.lists(st.fixed_dictionaries({"v": st.just(1), "subject": _text, "data": _text}), max_size=2)),
)


def _lines(events: list[dict[str, Any]]) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


@given(st.lists(_events, min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_a_chunk_gives_back_the_columns_of_its_lines(events: list[dict[str, Any]]) -> None:
    """Reading an encrypted chunk gives exactly the table that the hot part of a query builds from the same lines."""
    lines = _lines(events)
    table = columns_from_lines(lines, range(7, 7 + len(lines)), range(100, 100 + len(lines)))
    stored = read_columns(open_chunk(encode_chunk([table], KEY), KEY))
    assert stored.schema.equals(CHUNK_SCHEMA)
    assert stored.equals(table.combine_chunks())


@given(st.lists(_events, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_columns_are_the_values_in_the_lines(events: list[dict[str, Any]]) -> None:
    """Every column holds what the event says, null where it says nothing, and the line is untouched."""
    lines = _lines(events)
    rows = columns_from_lines(lines, range(len(lines)), range(5, 5 + len(lines))).to_pylist()
    for place, (event, line, row) in enumerate(zip(events, lines, rows, strict=True)):
        context = event.get("context", {})
        targets = event.get("targets", [])
        assert row == {
            "index": place,
            "seq": place + 5,
            "id": event["id"],
            "occurred_at": datetime.fromisoformat(event["occurred_at"]),
            "received_at": datetime.fromisoformat(event["received_at"]),
            "action": event["action"],
            "category": event.get("category"),
            "severity": event.get("severity"),
            "outcome": event["outcome"],
            "actor_type": event["actor"]["type"],
            "actor_id": event["actor"]["id"],
            "target_type": [target["type"] for target in targets],
            "target_id": [target["id"] for target in targets],
            "ip": context.get("ip"),
            "session_id": context.get("session_id"),
            "request_id": context.get("request_id"),
            "source": "http",
            "subjects": [group["subject"] for group in event.get("sealed", [])],
            "tokens": [],
            "line": line,
        }


def test_lines_that_are_no_events_are_kept() -> None:
    """A line that cannot be decoded, or a time that cannot be read, costs its columns and nothing else."""
    lines = [make_line(0), b"\xff not json", b'{"severity":"high"}', make_line(3, occurred_at="yesterday")]
    table = columns_from_lines(lines, range(4), range(4))
    assert table.column("line").to_pylist() == lines
    assert table.column("action").to_pylist() == ["role.grant", None, None, "role.grant"]
    assert table.column("occurred_at").to_pylist() == [datetime(2026, 9, 14, 10, 0, 0, 1, UTC), None, None, None]


def test_two_lines_that_look_like_three_stay_two() -> None:
    """A line that would break the join of its slice is told apart, so rows never shift."""
    lines = [b"{},{}", make_line(1)]
    table = columns_from_lines(lines, range(2), range(2))
    assert table.column("line").to_pylist() == lines
    assert table.column("action").to_pylist() == [None, "role.grant"]


def test_groups_are_class_and_month() -> None:
    """Lines of one tenant are parted by retention class and month of receipt, in index order, none lost."""
    changes: list[dict[str, Any]] = [
        {},
        {"ingest": {"class": "long"}},
        {"received_at": "2026-10-01T00:00:00.000000Z"},
        {"ingest": {"config": "c"}},
    ]
    lines = [make_line(number, **changes[number % 4]) for number in range(1200)]
    groups = {key: pa.Table.from_batches(parts) for key, parts in group_lines(lines, range(1200), range(1200)).items()}
    found = {key: table.column("index").to_pylist() for key, table in groups.items()}
    assert found == {
        ("standard", "2026-09"): [number for number in range(1200) if number % 4 in (0, 3)],
        ("long", "2026-09"): list(range(1, 1200, 4)),
        ("standard", "2026-10"): list(range(2, 1200, 4)),
    }


def test_no_lines_give_no_rows() -> None:
    """An empty hot part is an empty table of the same schema."""
    assert columns_from_lines([], [], []).equals(CHUNK_SCHEMA.empty_table())
    assert group_lines(make_lines(0), [], []) == {}
