"""What delivery leaves behind: history, dead letters, statements, and the control socket's long path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.delivery import HANDLE, LaneBench
from support.delivery import World as SealedWorld
from tallystick.config import load_config
from tallystick.delivery.account import Account
from tallystick.delivery.control import call, serve
from tallystick.delivery.dead_letters import DeadLetters, Letter
from tallystick.delivery.history import Dead, History, SettledCut
from tallystick.delivery.inner_door import Entry
from tallystick.delivery.outbox import Outbox
from tallystick.delivery.statement import StatementBook, make_statement, read_statements
from tallystick.durable import make_dir
from tallystick.errors import CheckpointError, DestinationUnavailableError, NotFoundError, TerminalError
from tallystick.evidence.note import vkey
from tallystick.evidence.statement import open_statement, sign_statement, statement_key_name
from tallystick.privacy.keys import KeyStore

NAME = statement_key_name("audit.example.com")


def make_row(number: int, first: int, last: int, **changes: Any) -> SettledCut:
    values = {
        "id": number, "handle": HANDLE, "tenant": "acme", "first": first, "last": last, "is_replay": False, "name": "n", "sha256": "s",
        "place": f"place-{number}", "settled_at": float(number), "attempts": 1, "delivered": last - first + 1, "filtered": {}, "kept": b"",
        "dead": (),
    }  # fmt: skip
    return SettledCut(**(values | changes))


@pytest.fixture
def history(tmp_path: Path) -> History:
    make_dir(tmp_path / "cursors")
    return History(tmp_path, "d")


def test_history_finds_the_cut_of_an_event_and_its_replays_first(history: History) -> None:
    """By index, newest first; rows come back as they went in."""
    rows = [make_row(0, 0, 9), make_row(1, 10, 19, dead=(Dead(12, "refused", 4),), filtered={"where": 2}), make_row(2, 20, 29)]
    replay = make_row(3, 12, 18, is_replay=True)
    history.add([*rows, replay])
    assert history.find(HANDLE, 12) == [replay, rows[1]]
    assert history.find(HANDLE, 25) == [rows[2]]
    assert history.find(HANDLE, 30) == []


def test_history_is_an_outbox_that_empties_once(history: History) -> None:
    """What was handed over is not offered again; what is stored again is."""
    history.add([make_row(0, 0, 9), make_row(1, 10, 19)])
    assert [row.id for row in history.unreceipted(10)] == [0, 1]
    history.mark_receipted([make_row(0, 0, 9)])
    assert [row.id for row in history.unreceipted(10)] == [1]


def test_history_rebuilds_accounts_up_to_the_first_hole(history: History) -> None:
    """A cursor made from it never skips a range whose outcome is not recorded; a voided cut is no outcome."""
    history.add([make_row(0, 0, 9, delivered=8, filtered={"where": 1}, dead=(Dead(3, "lost", 0),)), make_row(2, 20, 29)])
    history.add([make_row(1, 10, 19, outcome="voided", delivered=0)])
    account = history.rebuild()[HANDLE]
    assert (account.next, account.delivered, account.filtered, account.dead_lettered) == (10, 8, {"where": 1}, {"lost": 1})
    assert history.next_id() == 3


def test_a_damaged_history_is_set_aside(tmp_path: Path, history: History) -> None:
    """Rubbish in place of the database costs explanations, not deliveries."""
    history.close()
    path = tmp_path / "cursors" / "deliveries-d.sqlite"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"this is no database at all" * 200)
    again = History(tmp_path, "d")
    assert again.find(HANDLE, 0) == []
    assert path.with_name(path.name + ".damaged").exists()


def test_a_history_damaged_while_open_costs_explanations_only(tmp_path: Path, history: History) -> None:
    """The next write finds the damage, sets the file aside, and is stored in a new one."""
    history.add([make_row(0, 0, 9)])
    history._db.execute("pragma wal_checkpoint(truncate)")
    history._db.close()
    path = tmp_path / "cursors" / "deliveries-d.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    again = History(tmp_path, "d")
    again.add([make_row(1, 10, 19)])
    assert [cut.id for cut in again.find(HANDLE, 12)] == [1]
    again.close()


def make_letter(index: int, cut: str = "0:0-9") -> Letter:
    return Letter(
        destination="d", tenant="acme", handle=HANDLE, index=index, reason="refused", cut=cut, at=1.0, reply="secret reply"
    )


def test_letters_are_listed_once_with_their_state(tmp_path: Path) -> None:
    """A letter written twice by a crash is one; replayed and discarded ones say so."""
    letters = DeadLetters(tmp_path, KeyStore.create(tmp_path / "keys"))
    letters.append("d", [make_letter(1), make_letter(2)])
    letters.append("d", [make_letter(1), make_letter(3)])
    letters.mark_replayed("d", (0,), at=2.0)
    letters.discard("d", (1,), reason="known noise", by="ana", at=3.0)
    assert [(filed.letter.index, filed.status) for filed in letters.read("d")] == [(1, "replayed"), (2, "discarded"), (3, "open")]
    assert letters.get("d:1").discard_reason == "known noise"
    assert [filed.id for filed in letters.read("d", status="open")] == ["d:3"]
    with pytest.raises(TerminalError, match="discarded already"):
        letters.discard("d", (1,), reason="again", by="ana", at=4.0)
    with pytest.raises(TerminalError, match="needs a reason"):
        letters.discard("d", (3,), reason=" ", by="ana", at=4.0)
    for bad in ("d:9", "d", "../x:1", "d:-1"):
        with pytest.raises(NotFoundError):
            letters.get(bad)


def test_letters_are_not_readable_at_rest(tmp_path: Path) -> None:
    """Neither reply nor reason lies in clear under the data directory."""
    letters = DeadLetters(tmp_path / "data", KeyStore.create(tmp_path / "keys"))
    letters.append("d", [make_letter(1)])
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"secret reply" not in stored
    assert b"refused" not in stored


def test_a_statement_round_trips_and_adds_up(tmp_path: Path) -> None:
    """What is signed is read back equal; numbers that do not add up are neither signed nor read."""
    key = KeyStore.create(tmp_path / "keys").signing_key(NAME, create=True)
    account = Account("acme", next=10, delivered=5, filtered={"where": 2}, dead_lettered={"refused": 1, "lost": 1}, revision=3)
    statement = make_statement("lake", account, 12, 99, "audit.example.com/log/x")
    note = sign_statement(statement, NAME, key)
    read = open_statement(note, [vkey(NAME, key.public_key())])
    assert read == statement
    assert (read.pending, read.accepted, read.is_final, read.revision) == (3, 12, False, 3)
    account.delivered += 100
    with pytest.raises(CheckpointError, match="do not add up"):
        sign_statement(make_statement("lake", account, 12, 99, "audit.example.com/log/x"), NAME, key)
    with pytest.raises(CheckpointError):
        open_statement(note.replace("delivered 5", "delivered 6"), [vkey(NAME, key.public_key())])


def test_statements_are_issued_when_numbers_changed(tmp_path: Path) -> None:
    """No change, no new statement; the last one of each tenant can be read by others."""
    key = KeyStore.create(tmp_path / "keys").signing_key(NAME, create=True)
    book = StatementBook(tmp_path, "lake")
    accounts = {HANDLE: Account("acme", next=4, delivered=4), "empty": Account("none")}
    assert book.issue(accounts, {HANDLE: 4}, 1, "audit.example.com", key) == 1
    assert book.issue(accounts, {HANDLE: 4}, 2, "audit.example.com", key) == 0
    assert book.issue(accounts, {HANDLE: 6}, 3, "audit.example.com", key) == 1
    assert "pending 2\n" in read_statements(tmp_path, "lake")[HANDLE]
    assert [issued.tenant for issued in StatementBook(tmp_path, "lake").unposted()] == ["acme"]


async def test_a_receipt_waits_until_its_cut_is_settled_in_the_state(bench: LaneBench) -> None:
    """A row that the cursor does not know yet may change, so it is not handed over."""
    posted: list[Entry] = []

    class Door:
        async def post(self, entries: list[Entry]) -> None:
            posted.extend(entries)

    from tallystick.testing.destination import MemoryDestination

    lane = bench.lane(MemoryDestination())
    world: SealedWorld = bench.world
    outbox = Outbox(load_config(None), bench.keys, Door(), world)
    lane.history.add([make_row(0, 0, 9), make_row(1, 10, 19)])
    lane.state.cuts[1] = None  # type: ignore[assignment]
    await outbox.hand_over_receipts(lane)
    assert [entry.entry["first_index"] for entry in posted] == [0]
    lane.state.cuts.clear()
    await outbox.hand_over_receipts(lane)
    await outbox.hand_over_receipts(lane)
    assert [entry.entry["first_index"] for entry in posted] == [0, 10]
    await lane.close()


async def test_the_socket_works_under_a_path_longer_than_sun_path(tmp_path: Path) -> None:
    """A deep data directory is no obstacle; without a dispatcher the answer is clear."""
    import asyncio

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    make_dir(deep / "run")
    with pytest.raises(DestinationUnavailableError, match="dispatcher does not answer"):
        await asyncio.to_thread(call, deep, "status")

    async def handle(op: str, args: dict[str, Any]) -> Any:
        if op == "fail":
            raise RuntimeError("inside")
        return {"op": op, **args}

    async with serve(deep, handle):
        assert await asyncio.to_thread(call, deep, "status", colour="red", nothing=None) == {"op": "status", "colour": "red"}
        with pytest.raises(TerminalError, match="its log says why"):
            await asyncio.to_thread(call, deep, "fail")
