"""Destination `postgresql` against a real server: what the contract does not ask."""

from __future__ import annotations

import json

import psycopg2
import pytest

from contract.servers import PostgresqlHarness
from support.delivery import make_cut, make_line
from support.postgres import Postgres
from tallystick.config import Duration
from tallystick.destinations.postgresql import PostgresqlDestination
from tallystick.plugin import AnswerKind


@pytest.fixture
def harness(postgres: Postgres) -> PostgresqlHarness:
    return PostgresqlHarness(postgres)


def run(harness: PostgresqlHarness, *statements: str) -> list[tuple[object, ...]]:
    return harness.postgres.run(*statements, database=harness.database)


async def test_rows_hold_the_leaf_and_columns_and_the_cursor_the_proof(harness: PostgresqlHarness) -> None:
    """`line` is the canonical line, `event` the same as jsonb; the cursor row says up to where, with the signed note."""
    destination = harness.make()
    odd = make_line(0).replace(b'"user.login"', b'"user.login","reason":"tab\\t back\\\\slash \\"quoted\\" \xc3\xa9 \\u001f"')
    await destination.send(make_cut(destination, [odd, make_line(1)]))
    (line, event, actor, at), _ = run(
        harness, 'SELECT line, event, actor_id, received_at::text FROM tallystick_events ORDER BY "index"'
    )
    assert str(line).encode() == odd
    assert event == json.loads(odd)
    assert (actor, str(at)[:19]) == ("u_0", "2026-03-04 05:06:08")
    found = run(harness, "SELECT destination, tenant, next, checkpoint, recent FROM tallystick_cursor")
    cut = make_cut(destination, [odd, make_line(1)])
    assert found == [("d", "acme", 2, "the note\n", [cut.name])]
    assert await destination.find(destination.place(cut), cut.sha256) is True
    assert await destination.find(destination.place(make_cut(destination, [make_line(2)], 2)), "") is False
    await destination.close()


async def test_a_table_of_ones_own_gets_the_columns_that_it_has(harness: PostgresqlHarness) -> None:
    """Without `line`, with columns of its own, in another schema; and the unique key is asked for."""
    run(harness, "CREATE SCHEMA audit", "CREATE TABLE audit.log (tenant text, \"index\" bigint, id text, note text DEFAULT 'mine')")
    destination = PostgresqlDestination("d", harness.settings(table="audit.log", create=True))
    cut = make_cut(destination, [make_line(0)])
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.PARK
    assert "no unique key over tenant and index" in answer.reason
    run(harness, 'CREATE UNIQUE INDEX ON audit.log (tenant, "index")')
    assert (await destination.probe()).kind is AnswerKind.DELIVERED
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert run(harness, "SELECT tenant, id, note FROM audit.log") == [("acme", "acme-0", "mine")]
    await destination.close()


async def test_rows_that_are_there_already_are_told_apart(harness: PostgresqlHarness) -> None:
    """The same event counts as delivered, an id under another index is refused alone, another event under an index parks."""
    destination = harness.make()
    await destination.send(make_cut(destination, [make_line(0), make_line(1)]))
    again = await destination.send(make_cut(destination, [make_line(1), make_line(2), make_line(0)], 1))
    assert (again.kind, again.reason, list(again.refused)) == (AnswerKind.DELIVERED, "id_taken", [2])
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    other = await destination.send(make_cut(destination, [make_line(9), make_line(8)], 2))
    assert other.kind is AnswerKind.PARK
    assert "another event" in other.reason
    assert harness.ids() == ["acme-0", "acme-1", "acme-2"]
    await destination.close()


async def test_what_the_database_refuses_is_split_and_nothing_of_it_stays(harness: PostgresqlHarness) -> None:
    """A check of the table's own: the cut is to be halved until one event is left, which becomes a dead letter."""
    destination = harness.make()
    await destination.probe()
    run(harness, "ALTER TABLE tallystick_events ADD CHECK (id <> 'acme-1')")
    answer = await destination.send(make_cut(destination, [make_line(0), make_line(1)]))
    assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "refused")
    assert "23514" in answer.reply
    assert harness.ids() == []
    await destination.close()


async def test_a_table_that_is_locked_is_a_retry(harness: PostgresqlHarness) -> None:
    """The statement gives up in time, and the attempt after it goes through."""
    destination = PostgresqlDestination("d", harness.settings(timeout=Duration("300ms")))
    await destination.probe()
    holder = psycopg2.connect(
        host="127.0.0.1", port=harness.postgres.port, user="admin", password="change-me", dbname=harness.database
    )
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE tallystick_events")
    cut = make_cut(destination, [make_line(0)])
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.RETRY
    holder.close()
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    await destination.close()


async def test_without_create_a_missing_table_parks(harness: PostgresqlHarness) -> None:
    """`create = false`: the operator makes the tables."""
    destination = PostgresqlDestination("d", harness.settings(create=False))
    answer = await destination.send(make_cut(destination, [make_line(0)]))
    assert answer.kind is AnswerKind.PARK
    assert "there is no table tallystick_cursor" in answer.reason
    await destination.close()


async def test_a_commit_whose_answer_was_lost_is_found(harness: PostgresqlHarness) -> None:
    """The connection breaks right after the commit: the attempt is a retry, and the next finds the rows; a deleted one comes back."""
    destination = harness.make()
    await destination.probe()
    commit = destination._commit

    def lose() -> None:
        commit()
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    destination._commit = lose  # type: ignore[method-assign]
    cut = make_cut(destination, [make_line(0), make_line(1)])
    assert (await destination.send(cut)).kind is AnswerKind.RETRY
    assert harness.ids() == ["acme-0", "acme-1"]
    run(harness, "DELETE FROM tallystick_events WHERE id = 'acme-0'")
    destination._commit = commit  # type: ignore[method-assign]
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert harness.ids() == ["acme-0", "acme-1"]
    await destination.close()
