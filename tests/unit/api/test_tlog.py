"""The log as other people's clients read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.api_rig import Rig, event
from tallystick.evidence.checkpoint import open_checkpoint
from tallystick.evidence.merkle import leaf_hash, tree_root
from tallystick.evidence.origin import event_origin, root_origin
from tallystick.evidence.proof import check_chain, parse_chain


def split_bundle(data: bytes) -> list[bytes]:
    """The entries of a tlog-tiles entry bundle."""
    entries = []
    while data:
        size = int.from_bytes(data[:2], "big")
        entries.append(data[2 : 2 + size])
        data = data[2 + size :]
    return entries


async def test_checkpoint_tile_and_entries_agree(rig: Rig) -> None:
    """The signed root is the root over the tile's hashes, and those are the hashes of the entries, which are the lines."""
    await rig.send("acme", [event(number) for number in range(5)])
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    async with rig.client() as client:
        note = await client.get(f"/log/{tenant.handle}/checkpoint")
        head = open_checkpoint(note.text, [rig.deps.vkey(event_origin("audit.example.com", tenant.handle))])
        tile = await client.get(f"/log/{tenant.handle}/tile/0/000.p/{head.size}")
        bundle = await client.get(f"/log/{tenant.handle}/tile/entries/000.p/{head.size}")
    hashes = [tile.content[at : at + 32] for at in range(0, len(tile.content), 32)]
    entries = split_bundle(bundle.content)
    assert note.headers["content-type"] == "text/plain; charset=utf-8"
    assert "immutable" in tile.headers["cache-control"]
    assert tree_root(hashes) == head.root
    assert [leaf_hash(entry) for entry in entries] == hashes
    assert [json.loads(entry)["id"] for entry in entries] == [f"e{number}" for number in range(5)]


@pytest.mark.parametrize(
    "path", ["tile/0/000", "tile/0/000.p/9", "tile/0/001.p/1", "tile/64/000.p/1", "tile/0/0", "tile/x/000", "tile/0/000.p/0"]
)
async def test_beyond_the_head_there_is_nothing(rig: Rig, path: str) -> None:
    """A tile that the signed tree does not have, or a name that is not canonical, is a 404."""
    await rig.send("acme", [event(1)])
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    async with rig.client() as client:
        assert (await client.get(f"/log/{tenant.handle}/{path}")).status_code == 404


async def test_the_root_log_quotes_the_tenants_checkpoint(rig: Rig) -> None:
    """A chained proof leads from the event's line to the root log's head."""
    await rig.send("acme", [event(number) for number in range(3)])
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    async with rig.client() as client:
        line = (await client.get("/v1/events/e1", params={"tenant": "acme"})).content
        chain = await client.get("/v1/events/e1/proof", params={"tenant": "acme", "chain": "true"})
        root = await client.get("/log/root/checkpoint")
        entries = await client.get("/log/root/tile/entries/000.p/2")
    keys = [
        rig.deps.vkey(origin) for origin in (event_origin("audit.example.com", tenant.handle), root_origin("audit.example.com"))
    ]
    heads = check_chain(parse_chain(chain.text), leaf_hash(line), keys[0], keys[1])
    assert heads[1].origin == root_origin("audit.example.com")
    assert open_checkpoint(root.text, [keys[1]]).size >= heads[1].size
    assert all(json.loads(entry)["type"] for entry in split_bundle(entries.content))


async def test_the_root_logs_entries_are_not_for_one_tenants_key(rig: Rig) -> None:
    """They quote every tenant's checkpoint."""
    await rig.send("acme", [event(1)])
    async with rig.client(rig.key("read", "verify", tenants=["acme"])) as client:
        assert (await client.get("/log/root/checkpoint")).status_code == 200
        assert (await client.get("/log/root/tile/entries/000.p/1")).status_code == 403


async def test_reading_entries_is_on_record_once_an_interval(rig: Rig) -> None:
    """The first bundle of a reader is recorded in the log that it reads; the next ones are what the record announced; hashes are none."""
    await rig.send("acme", [event(number) for number in range(3)])
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None

    async def recorded(name: str) -> list[dict[str, Any]]:
        async with rig.client() as client:
            found = await client.get("/v1/events", params={"query": "action:tallystick.log.read", "tenant": name})
        return list(found.json()["events"])

    async with rig.client() as client:
        await client.get(f"/log/{tenant.handle}/tile/0/000.p/3")
        assert await recorded("acme") == []
        for _ in range(3):
            assert (await client.get(f"/log/{tenant.handle}/tile/entries/000.p/3")).status_code == 200
        (line,) = await recorded("acme")
        assert line["targets"] == [{"type": "log", "id": event_origin("audit.example.com", tenant.handle)}]
        assert line["metadata"]["first_index"] == 0
        assert (await client.get("/log/root/tile/entries/000.p/1")).status_code == 200
        assert len(await recorded("_tallystick")) == 1
    rig.deps.log_reads._recorded.clear()
    async with rig.client() as client:
        await client.get(f"/log/{tenant.handle}/tile/entries/000.p/3")
    assert len(await recorded("acme")) == 2
