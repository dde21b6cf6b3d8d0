"""Batches made ready in a worker: what is packed comes out again, and goes into the journal as it would have unpacked."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from support.journal_kit import ACME, KEYS, batch, events, frames, with_journal
from tallystick.errors import IntegrityError
from tallystick.journal.dedupe import Digester
from tallystick.journal.entries import Append, Committed, TenantBatch
from tallystick.journal.packed import PackedBatch, pack_batch
from tallystick.journal.pieces import Pieces
from tallystick.journal.writer import Journal

DIGESTER = Digester(KEYS.derive("dedupe"))
LINES = st.lists(st.binary(min_size=1, max_size=400).map(lambda line: line.replace(b"\n", b" ")), min_size=1, max_size=40)


def pack(made: TenantBatch) -> PackedBatch:
    return pack_batch(made, DIGESTER, zstandard.ZstdCompressor(level=1))[0]


@given(LINES, st.data())
def test_what_is_packed_comes_out_again(lines: list[bytes], data: st.DataObject) -> None:
    """Lines, digests and the prefix's digest, whichever of the ids were made here; and one leaf hash for each line."""
    digests = data.draw(st.lists(st.none() | st.binary(min_size=16, max_size=16), min_size=len(lines), max_size=len(lines)))
    contents = [digest and digest[::-1] for digest in digests]
    prefix = "01234567-89ab-7cde-8f01-000001" if None in digests else ""
    packed, hashes = pack_batch(TenantBatch(ACME, lines, digests, contents, prefix), DIGESTER, zstandard.ZstdCompressor(level=1))
    assert packed.lines() == lines
    assert packed.size == sum(map(len, lines))
    assert [list(part) for part in packed.ids()[1:]] == [digests, contents]
    assert packed.ids()[0] == (DIGESTER.prefix(ACME.handle, prefix) if prefix else b"")
    assert hashes == [sha256(b"\0" + line).digest() for line in lines] == list(Pieces(packed.leaf_hashes, 32))


@settings(max_examples=200)
@given(LINES, st.integers(0, 5), st.integers(1, 200), st.data())
def test_a_damaged_batch_is_named_and_nothing_else(lines: list[bytes], change: int, at: int, data: st.DataObject) -> None:
    """Whatever number or byte is wrong: IntegrityError, or the very lines."""
    packed = pack(batch(lines))
    if change == 0:
        packed.count += at
    elif change == 1:
        packed.size += at
    elif change == 2:
        packed.leaf_hashes = packed.leaf_hashes[: -(at % len(packed.leaf_hashes)) or None]
    elif change == 3:
        packed.payload = packed.payload[: at % len(packed.payload)]
    else:
        place = at % len(packed.payload)
        packed.payload = packed.payload[:place] + data.draw(st.binary(min_size=1, max_size=4)) + packed.payload[place + 1 :]
    try:
        packed.ids()
        assert len(packed.lines()) == len(lines)
    except IntegrityError:
        pass


def test_a_packed_batch_is_written_as_it_came(tmp_path: Path) -> None:
    """All new: the frame's plaintext is the worker's, and the answer and what is stored are those of the batch unpacked."""

    async def work(journal: Journal) -> tuple[Committed, PackedBatch]:
        packed = pack(batch([b"a", b"b"], ids=[b"1", b"2"]))
        return await journal.append(Append([packed])), packed

    committed, packed = with_journal(tmp_path, work)
    assert committed.tenants[0].ranges == [[0, 2]]
    assert list(committed.tenants[0].leaf_hashes) == [sha256(b"\0" + line).digest() for line in (b"a", b"b")]
    assert events(tmp_path) == {0: b"a", 1: b"b"}
    assert frames(tmp_path)[0].payload() == packed.payload


def test_only_what_is_new_of_a_packed_batch_is_kept(tmp_path: Path) -> None:
    """Duplicates and repeats are answered with their first position, also from the window of an earlier life; one that brings
    nothing new writes nothing."""

    async def first(journal: Journal) -> Committed:
        return await journal.append(Append([pack(batch([b"a", b"b"], ids=[b"1", b"2"]))]))

    async def again(journal: Journal) -> list[Committed]:
        mixed = pack(batch([b"n", b"b", b"a", b"n", b"m"], ids=[b"3", b"2", b"1", b"3", b"4"]))
        known = pack(batch([b"b", b"n"], ids=[b"2", b"3"]))
        return [await journal.append(Append([mixed])), await journal.append(Append([known]))]

    one, (two, three) = with_journal(tmp_path, first), with_journal(tmp_path, again)
    tenant = two.tenants[0]
    assert (tenant.accepted, tenant.duplicates, list(tenant.repeated)) == (2, 3, [1, 2, 3])
    assert tenant.ranges == [[2, 1], [1, 1], [0, 1], [2, 2]]
    assert list(tenant.leaf_hashes)[1:3] == list(one.tenants[0].leaf_hashes)[::-1]
    assert (three.tenants[0].accepted, three.tenants[0].ranges, three.seq) == (0, [[1, 2]], 3)
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"n", 3: b"m"}


def test_a_batch_whose_parts_do_not_fit_is_refused_and_leaves_no_claim(tmp_path: Path) -> None:
    """A worker's fault is an error of its call; the ids are free for the next."""

    async def work(journal: Journal) -> None:
        await journal.append(Append([pack(batch([b"a"], ids=[b"1"]))]))
        broken = pack(batch([b"a", b"new"], ids=[b"1", b"2"]))
        broken.payload = broken.payload[:-1]
        with pytest.raises(IntegrityError):
            await journal.append(Append([broken]))
        assert journal.status()["dedupe"]["claimed"] == 0
        await journal.append(Append([pack(batch([b"new"], ids=[b"2"]))]))

    with_journal(tmp_path, work)
    assert events(tmp_path) == {0: b"a", 1: b"new"}
