"""Legal holds: held lines outlive their chunk and the key of their month, and go when the hold is lifted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tallystick.archive.hold import Hold, Holds, held_places, hold_class, split_class
from tallystick.durable import StateFile
from tallystick.query.evaluate import compile_query
from unit.archive.bench import NOW
from unit.archive.expiry_bench import DAY, PERIOD_S, ExpiryBench
from unit.archive.lines import make_lines


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., ExpiryBench]]:
    benches: list[ExpiryBench] = []

    def build(**options: Any) -> ExpiryBench:
        benches.append(ExpiryBench(tmp_path, **options))
        return benches[-1]

    yield build
    for bench in benches:
        bench.sealer.close()
        if bench.journal is not None:
            await bench.journal.close()


def hold(handle: str, query: str = "", id: str = "h1", **more: Any) -> Hold:  # noqa: A002
    return Hold(id, {handle: "acme"}, query, "a case", "ana", "2026-12-01", "ana", "2026-09-14T10:00:00Z", **more)


async def filled(bench: ExpiryBench) -> tuple[str, list[bytes]]:
    """Twenty events of acme, sealed and archived."""
    acme, lines = bench.tenants.create("acme"), make_lines(20)
    await bench.append(acme, lines)
    await bench.settle(bench.expiring(), 2)
    return acme.handle, lines


async def test_held_lines_outlive_their_chunk_and_its_key(make: Callable[..., ExpiryBench]) -> None:
    """What the query matches stays readable under a key of the hold; the certificate names the others alone, and verify holds."""
    bench = make()
    handle, lines = await filled(bench)
    Holds(bench.data_dir).save([hold(handle, "actor.id:(u_3 OR u_7)")])
    bench.now = NOW + 40 * DAY
    await bench.settle(bench.expiring())
    await bench.settle(bench.expiring())
    assert bench.reader().lines(handle, 0, 20) == [(3, lines[3]), (7, lines[7])]
    (entry,) = [one for one in bench.entries(handle) if "ranges" in one]
    assert entry["ranges"] == [[0, 3], [4, 3], [8, 12]]
    assert [name for _, name, _ in bench.keys.epoch_names()] == [hold_class("h1", "standard")]
    report = bench.verify()
    assert (report.status, report.events) == (0, 2), report.problems


async def test_lifting_lets_go(make: Callable[..., ExpiryBench]) -> None:
    """Held lines get a certificate of their own, and the hold's key is destroyed; what another hold matches stays under that."""
    bench = make()
    handle, lines = await filled(bench)
    holds = [hold(handle, "actor.id:(u_3 OR u_7)"), hold(handle, "actor.id:u_7", id="h2")]
    Holds(bench.data_dir).save(holds)
    bench.now = NOW + 40 * DAY
    await bench.settle(bench.expiring())
    holds[0].lifted_at = "2026-10-24T00:00:00Z"
    Holds(bench.data_dir).save(holds)
    await bench.settle(bench.expiring())
    await bench.settle(bench.expiring())
    assert bench.reader().lines(handle, 0, 20) == [(7, lines[7])]
    assert [name for _, name, _ in bench.keys.epoch_names()] == [hold_class("h2", "standard")]
    holds[1].lifted_at = "2026-10-25T00:00:00Z"
    Holds(bench.data_dir).save(holds)
    await bench.settle(bench.expiring())
    await bench.settle(bench.expiring())
    assert bench.reader().lines(handle, 0, 20) == []
    assert bench.keys.epoch_names() == []
    assert sum(one.get("count", 0) for one in bench.entries(handle)) == 20
    assert bench.verify().status == 0


async def test_a_hold_placed_at_the_last_moment_counts(make: Callable[..., ExpiryBench]) -> None:
    """Between certificate and release: the lines stay all the same, though the certificate says that they may go."""
    bench = make()
    handle, lines = await filled(bench)
    bench.now = NOW + PERIOD_S + 5
    archiver = bench.expiring()
    while not bench.told:
        archiver.step()
    Holds(bench.data_dir).save([hold(handle)])
    await bench.seal()
    await bench.settle(archiver)
    assert bench.reader().lines(handle, 0, 20) == list(enumerate(lines))
    assert bench.verify().status == 0


async def test_a_damaged_register_stops_expiry(make: Callable[..., ExpiryBench]) -> None:
    """What cannot be read could hold anything."""
    bench = make()
    handle, _ = await filled(bench)
    Holds(bench.data_dir).save([hold(handle)])
    state = StateFile(bench.data_dir / "cursors" / "holds")
    for slot in (bench.data_dir / "cursors").glob("holds.*"):
        slot.write_bytes(b"damaged")
    assert state.is_damaged()
    bench.now = NOW + PERIOD_S + 5
    archiver = bench.expiring()
    await bench.settle(archiver)
    assert archiver._expirer is not None
    assert "register of holds" in archiver._expirer.reason
    assert len(bench.reader().lines(handle, 0, 20)) == 20


def test_the_oldest_hold_takes_a_line() -> None:
    """Of those that stand for its tenant."""
    lines = make_lines(3)
    holds = [
        hold("b"),
        hold("a", "actor.id:u_1", lifted_at="x"),
        hold("a", "actor.id:(u_1 OR u_2)", id="h3"),
        hold("a", "actor.id:u_2", id="h4"),
    ]
    assert held_places(holds, "a", lines, compile_query) == {1: "h3", 2: "h3"}
    assert split_class(hold_class("h3", "long")) == ("h3", "long")
    assert split_class("long") == ("", "long")
