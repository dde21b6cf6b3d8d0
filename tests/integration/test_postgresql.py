"""The source `postgresql` against a real server: transactions, breaks, lost slots; and in a whole installation, killed while it reads."""

from __future__ import annotations

import asyncio
import json
import re
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from support.ledger import CONFIGURATION
from support.postgres import PASSWORD, Postgres
from support.queues import exported
from support.server import Server, wait_for
from tallystick.config.settings import IngestLimits
from tallystick.config.units import Size
from tallystick.errors import TallystickError
from tallystick.plugin import SourceContext
from tallystick.sources.postgresql import PostgresqlSettings, PostgresqlSource
from tallystick.sources.remote import RemoteTlsSettings
from tallystick.testing.source import MemoryIntake

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "postgresql.md").read_text("utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
TABLE = "CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric)"


class Rig:
    """One database with the table `accounts` published, and the source that reads it."""

    def __init__(self, server: Postgres, state: Path) -> None:
        self.server, self.state = server, state
        self.database = server.new_database()
        self.slot = f"s_{self.database}"
        self.intake = MemoryIntake()
        self.run(TABLE, "ALTER TABLE accounts REPLICA IDENTITY FULL", "CREATE PUBLICATION tallystick FOR TABLE accounts")

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.run(*statements, database=self.database)

    def lag(self) -> int:
        """Bytes that the slot has not confirmed; -1 without a slot."""
        rows = self.run(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots "
            f"WHERE slot_name = '{self.slot}'"
        )
        return int(rows[0][0]) if rows else -1

    def make(self) -> PostgresqlSource:
        settings = PostgresqlSettings(
            database=self.database, user="admin", password=PASSWORD, port=self.server.port, slot=self.slot, batch=Size("256KiB")
        )
        return PostgresqlSource(settings, SourceContext("shop", self.server.directory, self.state, IngestLimits()))

    @asynccontextmanager
    async def source(self, *, is_ending: bool = False) -> AsyncIterator[PostgresqlSource]:
        """A run of the source that has its slot; ``is_ending``: it will end by itself."""
        source, stop = self.make(), asyncio.Event()
        task = asyncio.create_task(source.run(self.intake, stop))
        try:
            await self.until(lambda: task.done() or source.status()["retained_bytes"] is not None)
            yield source
            if is_ending:
                await asyncio.wait_for(task, 30)
        finally:
            self.intake.is_open.set()  # so that a test that failed ends
            stop.set()
            await task

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.02)


@pytest.fixture
def rig(postgres: Postgres, tmp_path: Path) -> Any:
    rig = Rig(postgres, tmp_path / "state")
    yield rig
    rig.run(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{rig.slot}'")


async def test_the_slot_moves_on_after_the_commit(rig: Rig) -> None:
    """While the intake waits it stays; then it moves behind the transaction. One transaction is one commit, and what was rolled back is none."""
    async with rig.source() as source:
        rig.intake.is_open.clear()
        rig.run("BEGIN; INSERT INTO accounts VALUES (9, 'x', 0); ROLLBACK")
        rig.run("INSERT INTO accounts SELECT n, 'a', n FROM generate_series(1, 20) n")
        await rig.until(lambda: source.status()["in_hand"] == 20)
        assert rig.lag() > 0
        rig.intake.is_open.set()
        await rig.until(lambda: rig.lag() == 0)
        assert source.status()["last_success"]
    assert [event.targets[0].id for event in rig.intake.events] == [str(n) for n in range(1, 21)]  # type: ignore[index,union-attr]
    assert rig.intake.commits == [20]


async def test_before_after_and_who(rig: Rig) -> None:
    """The page's own message names the actor of its transaction, and of no other."""
    async with rig.source():
        rig.run(f"BEGIN; {SQL[1]} INSERT INTO accounts VALUES (1, 'ann', 10); UPDATE accounts SET balance = 12.5; COMMIT")
        rig.run("DELETE FROM accounts", "TRUNCATE accounts")
        await rig.until(lambda: len(rig.intake.events) == 4)
    first, second, third, fourth = rig.intake.events
    assert [event.action.rpartition(".")[2] for event in rig.intake.events] == ["insert", "update", "delete", "truncate"]
    assert (first.actor.id, second.actor.id, second.reason) == ("u_17", "u_17", "ticket 4711")
    assert (third.actor.id, fourth.actor.type) == (f"postgresql:{rig.database}", "system")
    assert isinstance(second.changes, list)
    (change,) = second.changes
    assert (change.path, bytes(change.before), bytes(change.after)) == ("/balance", b'"10"', b'"12.5"')  # type: ignore[arg-type]


async def test_what_was_not_confirmed_comes_again_with_the_same_ids(rig: Rig) -> None:
    """A run is cancelled with a transaction in hand; the next one gets it again, and no third one does."""
    async with rig.source():
        pass
    rig.run("INSERT INTO accounts SELECT n, 'a', n FROM generate_series(1, 5) n")
    stuck, source = MemoryIntake(), rig.make()
    stuck.is_open.clear()
    task = asyncio.create_task(source.run(stuck, asyncio.Event()))
    await rig.until(lambda: source.status()["in_hand"] == 5)
    task.cancel()
    await asyncio.wait([task])
    for _ in range(2):
        async with rig.source():
            await rig.until(lambda: rig.lag() == 0)
    ids = [event.id for event in rig.intake.events]
    assert len(ids) == len(set(ids)) == 5


async def test_a_large_transaction_is_cut_and_memory_bounded(rig: Rig) -> None:
    """40 MB in one transaction: commits of 256 KiB, one after the other, confirmed at its end; nothing is read while one waits."""
    async with rig.source() as source:
        rig.intake.is_open.clear()
        before = resident_bytes()
        await asyncio.to_thread(rig.run, "INSERT INTO accounts SELECT n, repeat('x', 20000), n FROM generate_series(1, 2000) n")
        await rig.until(lambda: source.status()["in_hand"])
        await asyncio.sleep(5.0)  # longer than the server waits for a sign of life
        assert source.status()["in_hand"] <= 20
        assert resident_bytes() - before < 32 * 2**20
        rig.intake.is_open.set()
        await rig.until(lambda: rig.lag() == 0, 60)
    assert len(rig.intake.events) == len({event.id for event in rig.intake.events}) == 2_000
    assert max(rig.intake.commits) <= 20


async def test_other_tables_hold_no_log_back(rig: Rig) -> None:
    """Nothing of the publication changes, and the slot moves all the same."""
    rig.run("CREATE TABLE noise (n int)")
    async with rig.source():
        rig.run("INSERT INTO noise SELECT generate_series(1, 5000)")
        assert rig.lag() > 0
        await rig.until(lambda: rig.lag() == 0)
    assert rig.intake.events == []


async def test_a_table_that_changes_is_followed(rig: Rig) -> None:
    """New columns and a new key, while the source runs."""
    async with rig.source():
        rig.run("INSERT INTO accounts VALUES (1, 'a', 1)")
        await rig.until(lambda: len(rig.intake.events) == 1)
        rig.run("ALTER TABLE accounts ADD COLUMN code text, DROP CONSTRAINT accounts_pkey, ADD PRIMARY KEY (id, owner)")
        rig.run("UPDATE accounts SET code = 'z'")
        await rig.until(lambda: len(rig.intake.events) == 2)
    assert [event.targets[0].id for event in rig.intake.events] == ["1", "1:a"]  # type: ignore[index,union-attr]


async def test_a_slot_that_is_gone_is_a_gap(rig: Rig) -> None:
    """Dropped while the source was away: the account says so, once, and reading begins anew. Dropped while it runs, the run ends."""
    async with rig.source():
        pass
    rig.run(f"SELECT pg_drop_replication_slot('{rig.slot}')", "INSERT INTO accounts VALUES (1, 'lost', 1)")
    for _ in range(2):
        async with rig.source():
            await rig.until(lambda: rig.lag() == 0)
    rig.run("INSERT INTO accounts VALUES (2, 'kept', 1)")
    async with rig.source():
        await rig.until(lambda: rig.intake.events)
    (gap,) = rig.intake.gaps.values()
    assert gap["slot"] == rig.slot
    assert [event.targets[0].id for event in rig.intake.events] == ["2"]  # type: ignore[index,union-attr]


async def test_a_server_that_cannot_be_used_is_named(rig: Rig) -> None:
    """A wrong password, a missing publication, and the connection cut while it runs: each ends the run with words."""
    settings = PostgresqlSettings(database=rig.database, user="admin", password="wrong", port=rig.server.port)
    context = SourceContext("shop", rig.server.directory, rig.state, IngestLimits())
    with pytest.raises(TallystickError, match="password"):
        await PostgresqlSource(settings, context).run(rig.intake, asyncio.Event())
    other = PostgresqlSettings(database=rig.database, user="admin", password=PASSWORD, port=rig.server.port, publication="no")
    with pytest.raises(TallystickError, match="publication"):
        await PostgresqlSource(other, context).run(rig.intake, asyncio.Event())

    async def cut() -> None:
        terminate = f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{rig.slot}' AND active"
        async with rig.source(is_ending=True):
            await rig.until(lambda: rig.run(terminate))

    with pytest.raises(TallystickError):
        await cut()


async def test_tls_is_checked(rig: Rig) -> None:
    """With a CA that is not the server's the run ends before the password is sent."""
    settings = PostgresqlSettings(
        database=rig.database, user="admin", password=PASSWORD, port=rig.server.port, tls=RemoteTlsSettings(ca="server.pem")
    )
    context = SourceContext("shop", rig.server.directory, rig.state, IngestLimits())
    with pytest.raises(TallystickError, match="certificate"):
        await PostgresqlSource(settings, context).run(rig.intake, asyncio.Event())


def installation(make_server: Callable[..., Server], postgres: Postgres, more: str = "") -> tuple[Server, str]:
    """The page's role, table and configuration; the database's name."""
    database = postgres.new_database()
    role = f"role_{database}"
    postgres.run(TABLE, *SQL[0].replace("ROLE tallystick", f"ROLE {role}").strip().split("\n"), database=database)
    table = (
        TOML[0]
        .replace("5432", str(postgres.port))
        .replace('"shop"', f'"{database}"')
        .replace('user = "tallystick"', f'user = "{role}"')
    )
    server = make_server(more + table.replace('slot = "tallystick"', f'slot = "s_{database}"'))
    (server.directory / "ca.pem").write_bytes(postgres.ca.read_bytes())
    server.environment["SHOP_PASSWORD"] = "change-me"
    return server, database


def drop_slot(postgres: Postgres, database: str) -> None:
    wait_for(
        lambda: not postgres.run(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = 's_{database}' AND active"), "the slot"
    )
    postgres.run(f"SELECT pg_drop_replication_slot('s_{database}')")


@pytest.mark.timeout(240)
def test_kills_while_reading_lose_and_repeat_nothing(make_server: Callable[..., Server], postgres: Postgres) -> None:
    """The page's role and table, over TLS; kill -9 four times while 4,000 rows are inserted: each is there once, in order."""
    server, database = installation(make_server, postgres, CONFIGURATION)
    server.start()
    wait_for(lambda: server.status()["sources"]["shop"].get("wal_status") == "reserved", f"the slot: {server.status()['sources']}")
    try:
        for number in range(40):
            before = int(server.status()["sources"]["shop"]["accepted"]) if number % 10 == 5 else 0
            first = 1 + 100 * number
            postgres.run(f"INSERT INTO accounts SELECT n, 'a', n FROM generate_series({first}, {first + 99}) n", database=database)
            if number % 10 == 5:
                wait_for(lambda before=before: _taken(server) > before, "the source to read", every_s=0.005)  # type: ignore[misc]
                server.kill()
                server.start()
        server.drain(4_000, "acme", ("disk",))
        found = [one for one in exported(server) if one["tenant"] == "acme"]
        assert [int(one["targets"][0]["id"]) for one in found] == list(range(1, 4_001))  # type: ignore[index]
        delivered = [json.loads(line) for line in (server.directory / "out.jsonl").read_text().splitlines()]
        assert sorted(one["id"] for one in delivered) == sorted(str(one["id"]) for one in found)
        assert server.status()["sources"]["shop"]["retained_bytes"] is not None
        server.stop()
        server.verify()
    finally:
        server.stop()
        drop_slot(postgres, database)


def test_pgaudit_lines_become_events(make_server: Callable[..., Server], postgres: Postgres) -> None:
    """The page's two tables over a real server's logs in both forms: the same statements, roles, failures and logins come out of each."""
    database = postgres.new_database()
    postgres.run(f"ALTER DATABASE {database} SET pgaudit.log = 'all'")
    postgres.run(
        "CREATE EXTENSION pgaudit",
        "CREATE TABLE notes (id int,\n  body text)",
        "INSERT INTO notes VALUES (1, 'a, \"quoted\"\nline')",
        f"CREATE ROLE reader_{database} LOGIN PASSWORD 'hidden'",
        "SELECT body FROM notes",
        database=database,
    )
    with pytest.raises(psycopg2.Error):
        postgres.run("SELECT nothing FROM notes", database=database)
    both = TOML[1].replace("/var/log/postgresql", str(postgres.log))
    first, second = both.split("[sources.statements-csv]")
    text = first + "[sources.statements-csv]" + second.replace("acme", "other")  # else what is equal in both forms is merged
    server = make_server(text)
    server.start()
    query = f"targets.id:{database}"
    for name in ("statements", "statements-csv"):
        ends = f"source.name:{name} AND action:postgresql.disconnect AND {query}"
        wait_for(lambda ends=ends: len(exported(server, ends)) == 2, f"both sessions in {name}")  # type: ignore[misc]
    by_form = [exported(server, f"source.name:{name} AND {query}") for name in ("statements", "statements-csv")]
    for found in by_form:
        by_action: dict[str, Any] = {str(one["action"]): one for one in found}
        insert = by_action["postgresql.insert"]
        assert insert["actor"] == {"type": "user", "id": "admin"}
        assert insert["context"]["ip"] == "127.0.0.1"
        assert insert["metadata"]["audit"]["statement"] == "INSERT INTO notes VALUES (1, 'a, \"quoted\"\nline')"
        assert (insert["category"], insert["outcome"]) == ("data", "unknown")
        role = by_action["postgresql.create_role"]
        assert role["category"] == "account"
        assert "hidden" not in json.dumps(role)
        assert by_action["postgresql.create_table"]["targets"][0] == {"type": "TABLE", "id": "public.notes"}
        failed = [one for one in found if one["outcome"] == "failure"]
        assert 'column "nothing" does not exist' in str(failed[0]["reason"])
        assert not any("ingest" in one and "time_invalid" in str(one["ingest"]) for one in found)
    assert [one["action"] for one in by_form[0]] == [one["action"] for one in by_form[1]]
    assert [one["occurred_at"] for one in by_form[0]] == [one["occurred_at"] for one in by_form[1]]


def _taken(server: Server) -> int:
    row = server.status()["sources"]["shop"]
    return int(row["accepted"]) + int(row["duplicates"])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
