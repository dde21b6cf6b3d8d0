"""Destination `clickhouse` against a real server: what the contract does not ask."""

from __future__ import annotations

import asyncio
import json

import pytest

from contract.servers import ClickHouseHarness
from support.clickhouse import ClickHouse
from support.delivery import make_cut, make_line
from tallystick.destinations.clickhouse import ClickHouseDestination
from tallystick.plugin import AnswerKind


@pytest.fixture
def harness(clickhouse: ClickHouse) -> ClickHouseHarness:
    return ClickHouseHarness(clickhouse)


def run(harness: ClickHouseHarness, statement: str) -> list[list[str]]:
    return harness.server.run(statement, harness.database)


async def test_rows_hold_the_leaf_and_columns(harness: ClickHouseHarness) -> None:
    """`line` is the canonical line byte for byte, whatever characters are in it; columns have their values, absent ones are empty."""
    destination = harness.make()
    odd = make_line(0).replace(b'"user.login"', b'"user.login","reason":"tab\\t back\\\\slash \\"quoted\\" \xc3\xa9 \\u001f"')
    cut = make_cut(destination, [odd, make_line(1)])
    await destination.send(cut)
    columns = "line, actor_id AS actor, toString(received_at) AS at, severity, category"
    rows = run(harness, f"SELECT {columns} FROM tallystick_events ORDER BY `index` FORMAT JSONEachRow")
    found = json.loads(rows[0][0])
    assert found.pop("line").encode() == odd
    assert found.pop("at").startswith("2026-03-04 05:06:08")
    assert found == {"actor": "u_0", "severity": None, "category": ""}
    assert await destination.find(destination.place(cut), cut.sha256) is True
    assert await destination.find(destination.place(make_cut(destination, [make_line(2)], 2)), "") is False
    await destination.close()


async def test_a_table_of_ones_own_gets_the_columns_that_it_has(harness: ClickHouseHarness) -> None:
    """Without `line`, with a column of its own; a time column without its zone parks, with the statement that mends it."""
    run(
        harness,
        "CREATE TABLE log (tenant String, `index` UInt64, id String, occurred_at DateTime, note String DEFAULT 'mine') ENGINE = MergeTree ORDER BY (tenant, `index`)",
    )
    destination = ClickHouseDestination("d", harness.settings(table="log"))
    cut = make_cut(destination, [make_line(0)])
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.PARK
    assert "without 'UTC'" in answer.reason
    run(harness, "ALTER TABLE log MODIFY COLUMN occurred_at DateTime('UTC')")
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert run(harness, "SELECT tenant, id, note FROM log") == [["acme", "acme-0", "mine"]]
    await destination.close()


async def test_rows_that_are_there_already_are_told_apart(harness: ClickHouseHarness) -> None:
    """The same event counts as delivered and what is missing is inserted; another event under an index parks, and nothing is written."""
    destination = harness.make()
    await destination.send(make_cut(destination, [make_line(0), make_line(1)]))
    assert (await destination.send(make_cut(destination, [make_line(1), make_line(2)], 1))).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    other = await destination.send(make_cut(destination, [make_line(9), make_line(8)], 2))
    assert other.kind is AnswerKind.PARK
    assert "another event" in other.reason
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    await destination.close()


async def test_what_the_table_refuses_is_split(harness: ClickHouseHarness) -> None:
    """An id that does not fit the table's own column: halves, until one event is left, which becomes a dead letter."""
    run(harness, "CREATE TABLE log (tenant String, `index` UInt64, id UInt64) ENGINE = MergeTree ORDER BY (tenant, `index`)")
    destination = ClickHouseDestination("d", harness.settings(table="log"))
    answer = await destination.send(make_cut(destination, [make_line(0)]))
    assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "refused")
    assert "UInt64" in answer.reply
    await destination.close()


async def test_without_create_a_missing_table_parks(harness: ClickHouseHarness) -> None:
    """`create = false`: the operator makes the table."""
    destination = ClickHouseDestination("d", harness.settings(create=False))
    answer = await destination.send(make_cut(destination, [make_line(0)]))
    assert answer.kind is AnswerKind.PARK
    assert "Code: 60" in answer.reply
    await destination.close()


async def test_while_an_insert_whose_answer_was_lost_runs_nothing_is_sent(harness: ClickHouseHarness) -> None:
    """A statement under one of our query ids is still at work, as after a time-out: the cut waits until it has ended."""
    destination = harness.make()
    await destination.probe()
    query = f"{harness.server.url}/?database={harness.database}&query_id=tallystick-d-tallystick_events-lost"
    command = ["curl", "-s", "-u", "audit:change-me", query, "--data-binary", "SELECT sleep(3)"]
    slow = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    while not run(harness, "SELECT 1 FROM system.processes WHERE query_id LIKE 'tallystick-d-%'"):
        await asyncio.sleep(0.01)
    cut = make_cut(destination, [make_line(0)])
    answer = await destination.send(cut)
    assert (answer.kind, answer.reason) == (AnswerKind.RETRY, "an earlier insert still runs at the server")
    assert harness.ids() == []
    await slow.wait()
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    await destination.close()
