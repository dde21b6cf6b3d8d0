"""The dispatcher on a real journal, sealer and archive catalog: what is accepted comes out, once, and is on record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.delivery import make_line
from tallystick.archive.catalog import Catalog
from tallystick.config import Config, load_config
from tallystick.delivery.control import call
from tallystick.delivery.dispatcher import Dispatcher, Parts, SealedHeads, open_parts
from tallystick.delivery.inner_door import Entry
from tallystick.delivery.statement import read_statements
from tallystick.destinations import build_destinations
from tallystick.durable import make_dir
from tallystick.errors import NotFoundError, PushbackError, TerminalError
from tallystick.evidence.note import vkey
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.evidence.statement import open_statement, statement_key_name
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import Append, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore

CONFIG = """
[server]
name = "audit.example.com"
[data]
quota = "1GiB"
free_min = "1MiB"
reserve = "1MiB"
[journal]
segment_size = "2MiB"
dedupe_events = 1000
[seal]
root_interval = "0s"
[delivery]
retry_min = "10ms"
retry_max = "100ms"
statement_interval = "200ms"
poll_interval = "10ms"
[destinations.disk]
type = "file"
path = "out/events.jsonl"
[destinations.lake]
type = "object_store"
url = "lake"
where = "action:role.*"
batch = { max_age = "50ms" }
"""


class Door:
    """The intake's side of the inner door: keeps entries by id, and can be told to be away."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.is_away = False
        self.posts = 0

    async def post(self, entries: list[Entry]) -> None:
        self.posts += 1
        if self.is_away:
            raise PushbackError("the intake is away")
        for entry in entries:
            assert self.entries.setdefault(entry.id, entry) == entry
            json.dumps(entry.entry)


class Installation:
    """A journal to write to, a sealer to seal, and a dispatcher to watch, over one directory."""

    def __init__(self, directory: Path) -> None:
        (directory / "tallystick.toml").write_text(CONFIG)
        self.config: Config = load_config(directory / "tallystick.toml")
        make_dir(self.config.data_dir / "run")
        self.keys = KeyStore.create(self.config.keys_dir)
        Catalog(self.config.data_dir / "catalog.sqlite", read_only=False)
        self.registry = TenantRegistry(self.config.data_dir)
        self.journal = Journal.open(self.config.data_dir, self.keys, self.config.journal, self.config.data)
        place = SealerPlace(self.config.data_dir, self.config.keys_dir, "audit.example.com")
        reader = JournalReader(self.config.data_dir, self.keys)
        self.sealer = Sealer(place, self.keys, self.config.seal, reader, Cursor(self.config.data_dir, "sealer"))
        self.sealer.start()
        self.door = Door()

    async def accept(self, tenant: str, lines: list[bytes]) -> str:
        """Append to the journal and seal; returns the tenant's handle."""
        made = self.registry.create(tenant)
        await self.journal.append(Append([TenantBatch(made, lines, [None] * len(lines), [None] * len(lines))]))
        await asyncio.to_thread(self.sealer.seal)
        return made.handle

    @asynccontextmanager
    async def dispatcher(self):  # type: ignore[no-untyped-def]
        """A running dispatcher."""
        parts = open_parts(self.config, self.keys)
        dispatcher = Dispatcher(
            self.config, self.keys, build_destinations(self.config), Parts(parts.sealed, parts.reader, self.door)
        )
        stop = asyncio.Event()
        task = asyncio.create_task(dispatcher.run(stop))
        await until((self.config.data_dir / "run" / "dispatcher.sock").exists)
        try:
            yield dispatcher
        finally:
            stop.set()
            await task

    async def until_page(self, is_as_wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 15.0) -> None:
        """Ask for the status, which the dispatcher writes anew each second, until its destinations are as wanted."""
        async with asyncio.timeout(timeout_s):
            while not is_as_wanted((await asyncio.to_thread(call, self.config.data_dir, "status"))["destinations"]):
                await asyncio.sleep(0.05)

    def file_ids(self) -> list[str]:
        path = self.config.base_dir / "out" / "events.jsonl"
        return [json.loads(line)["id"] for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture
async def installation(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Installation(tmp_path)
    yield made
    await made.journal.close()


async def until(is_done: Callable[[], Any], timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_done():
            await asyncio.sleep(0.01)


async def test_accepted_events_come_out_of_both_destinations(installation: Installation) -> None:
    """File gets all in order, the store what its filter lets through; receipts and statements reach the inner door."""
    handle = await installation.accept("acme", [make_line(index) for index in range(400)])
    async with installation.dispatcher() as dispatcher:
        await installation.accept("acme", [make_line(index, action="role.grant") for index in range(400, 500)])
        await installation.accept("beta", [make_line(index, "beta") for index in range(50)])
        await until(lambda: len(installation.file_ids()) == 550)
        await until(lambda: dispatcher.lanes["lake"].state.accounts.get(handle) is not None)
        lake = dispatcher.lanes["lake"].state.accounts
        await until(lambda: dispatcher.lanes["lake"].state.accounts[handle].settled == 500)
        assert lake is not None
        assert dispatcher.lanes["lake"].state.accounts[handle].filtered == {"where": 400}
        statements = lambda: [e for e in installation.door.entries.values() if e.entry["type"] == "statement"]  # noqa: E731
        await until(lambda: any("accepted 500\n" in e.entry["note"] and "pending 0\n" in e.entry["note"] for e in statements()))
        await installation.until_page(lambda rows: rows.get("disk", {}).get("delivered") == 550 and rows["lake"]["pending"] == 0)
        explained = await asyncio.to_thread(call, installation.config.data_dir, "explain", handle=handle, index=450)
        assert {name: row["outcome"] for name, row in explained.items()} == {"disk": "delivered", "lake": "delivered"}
    ids = installation.file_ids()
    assert [event for event in ids if event.startswith("acme")] == [f"acme-{index}" for index in range(500)]
    assert len(set(ids)) == 550
    receipts = [e for e in installation.door.entries.values() if e.entry["type"] == "delivery"]
    assert sum(e.entry["delivered"] for e in receipts if e.entry["destination"] == "disk") == 550
    name = statement_key_name("audit.example.com")
    note = read_statements(installation.config.data_dir, "disk")[handle]
    statement = open_statement(note, [vkey(name, installation.keys.signing_key(name).public_key())])
    assert statement.is_final
    assert statement.delivered == 500


async def test_receipts_wait_for_an_intake_that_is_away(installation: Installation) -> None:
    """While the inner door is shut delivery goes on, and the receipts follow when it opens."""
    installation.door.is_away = True
    await installation.accept("acme", [make_line(index) for index in range(30)])
    async with installation.dispatcher():
        await until(lambda: len(installation.file_ids()) == 30 and installation.door.posts > 0)
        assert installation.door.entries == {}
        installation.door.is_away = False
        await until(lambda: installation.door.entries)


async def test_a_dispatcher_that_was_away_catches_up(installation: Installation) -> None:
    """Stopped and started over the same state: everything once, in order, from the journal's frames."""
    for round_number in range(4):
        first = round_number * 25
        await installation.accept("acme", [make_line(index) for index in range(first, first + 25)])
        if round_number % 2:
            async with installation.dispatcher():
                await until(lambda first=first: len(installation.file_ids()) == first + 25)
    assert installation.file_ids() == [f"acme-{index}" for index in range(100)]


async def test_the_control_socket_says_what_is_wrong(installation: Installation) -> None:
    """Unknown operations, destinations and arguments are answered by name, never by a traceback."""
    data_dir = installation.config.data_dir
    async with installation.dispatcher():
        with pytest.raises(NotFoundError, match="no destination 'nowhere'"):
            await asyncio.to_thread(call, data_dir, "pause", destination="nowhere")
        with pytest.raises(TerminalError, match="no operation 'explode'"):
            await asyncio.to_thread(call, data_dir, "explode")
        with pytest.raises(TerminalError, match="bad request"):
            await asyncio.to_thread(call, data_dir, "pause", colour="red")


def test_heads_are_shown_only_after_take(tmp_path: Path) -> None:
    """What lanes see as sealed changes in one step, after the journal was followed."""
    made = Installation(tmp_path)
    sealed = SealedHeads(made.config.data_dir, "audit.example.com")
    handle = asyncio.run(made.accept("acme", [make_line(0)]))
    assert sealed.refresh()
    assert sealed.size(handle) == 0
    assert sealed.known_sizes() == {handle: 1}  # so that the status tells what is pending before the journal was followed
    sealed.take()
    assert sealed.size(handle) == 1
    assert sealed.tenants() == {handle: "acme"}


async def test_a_destination_that_hangs_stalls_no_other(installation: Installation) -> None:
    """A webhook that never answers keeps its own lane; the file has everything meanwhile, and the reason is in the status."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hook = f'[destinations.hook]\ntype = "webhook"\nurl = "http://127.0.0.1:{port}/"\nsecret = "a secret long enough"\n'
    path = installation.config.base_dir / "tallystick.toml"
    path.write_text(CONFIG + hook + 'allow_private = true\ntimeout = "200ms"\n')
    installation.config = load_config(path)
    await installation.accept("acme", [make_line(index) for index in range(50)])
    async with server, installation.dispatcher() as dispatcher:
        await until(lambda: len(installation.file_ids()) == 50)
        await until(lambda: "no answer within" in dispatcher.lanes["hook"].sender.reason)
        await installation.accept("acme", [make_line(index) for index in range(50, 80)])
        await until(lambda: len(installation.file_ids()) == 80)
        await until(lambda: dispatcher._page["destinations"].get("hook", {}).get("state") == "retrying")
        assert dispatcher._page["destinations"]["hook"]["pending"] == 80
        assert dispatcher._page["destinations"]["disk"]["pending"] == 0
