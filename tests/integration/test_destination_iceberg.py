"""Destination `iceberg` with a SQL catalog: what the contract does not ask."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from contract.servers import IcebergHarness
from support.delivery import HANDLE, make_cut, make_line
from tallystick.destinations.iceberg import IcebergDestination
from tallystick.destinations.iceberg_table import Cursor, read_cursor
from tallystick.plugin import AnswerKind


@pytest.fixture
def harness(tmp_path: Path) -> IcebergHarness:
    return IcebergHarness(tmp_path)


def table_of(harness: IcebergHarness, name: str = "audit.tallystick_events") -> Any:
    return load_catalog("default", **harness.catalog).load_table(name)


async def test_rows_hold_the_leaf_and_columns_and_the_table_the_cursor(harness: IcebergHarness) -> None:
    """`line` is the canonical line, columns have their values, and the commit names the cut and moves the tenant's cursor."""
    destination = harness.make()
    odd = make_line(0).replace(b'"user.login"', b'"user.login","reason":"\\u001f \xc3\xa9"')
    cut = make_cut(destination, [odd, make_line(1)])
    await destination.send(cut)
    first, second = harness.rows()
    assert first["line"].encode() == odd
    assert (second["index"], second["actor_id"], second["severity"]) == (1, "u_1", None)
    assert second["occurred_at"] == 1_772_600_767_000_000
    table = table_of(harness)
    assert read_cursor(table.properties, f"tallystick.cursor.d.{HANDLE}") == Cursor(2, (cut.name,), "the note\n")
    assert table.current_snapshot().summary["tallystick.cut"] == cut.name
    assert await destination.find(destination.place(cut), cut.sha256) is True
    assert await destination.find(destination.place(make_cut(destination, [make_line(2)], 2)), "") is False
    await destination.close()


async def test_other_borders_and_deleted_rows_leave_each_event_once(harness: IcebergHarness) -> None:
    """A cut that overlaps adds what is missing; a row that was deleted comes back with a replay; another event under an index parks."""
    destination = harness.make()
    await destination.send(make_cut(destination, [make_line(0), make_line(1)]))
    await destination.send(make_cut(destination, [make_line(1), make_line(2)], 1))
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    table_of(harness).delete("id = 'acme-1'")
    assert harness.ids() == ["acme-0", "acme-2"]
    await destination.send(make_cut(destination, [make_line(0), make_line(1), make_line(2)]))
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    answer = await destination.send(make_cut(destination, [make_line(7)], 2))
    assert answer.kind is AnswerKind.PARK
    assert "another event" in answer.reason
    await destination.close()


async def test_a_commit_of_unknown_state_is_settled_by_the_table(harness: IcebergHarness) -> None:
    """The catalog committed and its answer was lost: a retry, and the rows are there once."""
    destination = harness.make()
    await destination.probe()
    commit = destination._commit

    def lose(*arguments: Any) -> None:
        commit(*arguments)
        raise CommitStateUnknownException("502 Bad Gateway")

    destination._commit = lose  # type: ignore[method-assign]
    cut = make_cut(destination, [make_line(0), make_line(1)])
    assert (await destination.send(cut)).kind is AnswerKind.RETRY
    destination._commit = commit  # type: ignore[method-assign]
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0", "acme-1"]
    await destination.close()


async def test_a_late_commit_over_another_state_is_refused(harness: IcebergHarness) -> None:
    """An attempt that hangs before its commit, another process that delivers the same cut meanwhile: the first is refused, nothing is doubled."""
    first, second = harness.make(), harness.make()
    cut = make_cut(first, [make_line(0)])
    await first.probe()
    commit, hangs, goes_on = first._commit, threading.Event(), threading.Event()

    def late(*arguments: Any) -> None:
        hangs.set()
        goes_on.wait(30)
        commit(*arguments)

    first._commit = late  # type: ignore[method-assign]
    sending = asyncio.ensure_future(first.send(cut))
    await asyncio.to_thread(hangs.wait, 30)
    assert (await second.send(cut)).kind is AnswerKind.DELIVERED
    goes_on.set()
    assert (await sending).kind is AnswerKind.RETRY
    assert (await first.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0"]
    await first.close()
    await second.close()


async def test_a_table_of_ones_own_gets_the_columns_that_it_has(harness: IcebergHarness) -> None:
    """Without `line`, with a column of its own; without `id` it parks."""
    catalog = load_catalog("default", **harness.catalog)
    catalog.create_namespace("mine")
    fields = [NestedField(1, "tenant", StringType()), NestedField(2, "index", LongType()), NestedField(3, "note", StringType())]
    catalog.create_table("mine.log", Schema(*fields))
    destination = IcebergDestination("d", harness.settings(table="mine.log"))
    cut = make_cut(destination, [make_line(0)])
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.PARK
    assert "no column id" in answer.reason
    with catalog.load_table("mine.log").update_schema() as update:
        update.add_column("id", StringType())
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert catalog.load_table("mine.log").scan().to_arrow().to_pylist() == [
        {"tenant": "acme", "index": 0, "note": None, "id": "acme-0"}
    ]
    await destination.close()
