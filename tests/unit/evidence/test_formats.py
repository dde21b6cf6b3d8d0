"""Round trips and refusals of the text formats: checkpoint, tile path, tlog-proof, receipt, manifest, entry."""

from __future__ import annotations

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import CheckpointError, IntegrityError, NotFoundError, ProofError
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from tallystick.evidence.entry import Salter, build_entry, event_hashes, is_lost, large_text, lost_hashes, read_entry
from tallystick.evidence.manifest import Manifest, indexes_digest, open_manifest, sign_manifest
from tallystick.evidence.merkle import leaf_hash, prove_inclusion, tree_root
from tallystick.evidence.note import sign_note, vkey
from tallystick.evidence.proof import build_proof, check_chain, check_proof, parse_chain, parse_proof
from tallystick.evidence.receipt import Receipt, batch_root, input_root, open_receipt, sign_receipt
from tallystick.evidence.tile_path import TileName, parse_tile_path, tile_width, tiles_of

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "audit.example.com/log/abcdefghijklmnop"
VKEY = vkey(ORIGIN, KEY.public_key())
HASHES = [leaf_hash(b"%d" % number) for number in range(70)]


def prove(start: int, end: int) -> bytes:
    return tree_root(HASHES[start:end])


@given(st.integers(0, 10**18), st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_checkpoint_round_trip(size: int, root: bytes) -> None:
    """A signed checkpoint opens as what was signed, under its own key and origin only."""
    checkpoint = Checkpoint(ORIGIN, size, root)
    note = sign_checkpoint(checkpoint, KEY)
    assert open_checkpoint(note, [VKEY]) == checkpoint
    with pytest.raises(CheckpointError):
        open_checkpoint(note, [vkey("audit.example.com/log/other", KEY.public_key())])


@pytest.mark.parametrize("text", ["", "o\n5\n", "o\n05\nAA==\n", "o\n-1\nAA==\n", "o\n5\nAA==\n", "o\n5\n!!\n", "\n5\n" + "A" * 43 + "=\n", "o\n5\n" + "A" * 43 + "="])  # fmt: skip
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """Sizes with leading zeros, short roots and missing lines are refused."""
    with pytest.raises(CheckpointError):
        parse_checkpoint(text)


def test_checkpoint_extension_lines_are_kept() -> None:
    """Another log's extension lines are read back and signed again unchanged."""
    text = Checkpoint("o", 1, bytes(32), ("more", "and more")).text()
    assert parse_checkpoint(text).text() == text


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 10**17), st.integers(1, 256))
@settings(max_examples=100, deadline=None)
def test_tile_path_round_trip(level: int | None, number: int, width: int) -> None:
    """Every tile has one path, and that path names it."""
    name = TileName(level, number, width)
    assert parse_tile_path(name.path()) == name


def test_tile_paths_of_the_specification() -> None:
    """The examples of tlog-tiles: grouping of N, and the tiles of a tree of 70,000 leaves."""
    assert TileName(0, 1234067).path() == "tile/0/x001/x234/067"
    found = list(tiles_of(70_000))
    partial = [name.path() for name in found if name.width < 256]
    assert partial == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
    assert len(found) == 274 + 2 + 1
    assert tile_width(None, 273, 70_000) == 112
    assert tile_width(0, 274, 70_000) == 0


@pytest.mark.parametrize("path", ["tile/0/1", "tile/0/0001", "tile/00/001", "tile/64/001", "tile/0/x000/001", "tile/0/001.p/0",
                                  "tile/0/001.p/256", "tile/0/001.p/01", "tile/-1/001", "tile/data/001", "tile/0/../001", "tile/0/001\n", "tile/0/٠٠١"])  # fmt: skip
def test_other_spellings_of_tile_paths_are_refused(path: str) -> None:
    """Only the canonical path names a tile, so caches and access rules cannot be led astray."""
    with pytest.raises(NotFoundError):
        parse_tile_path(path)


@given(st.integers(1, 70), st.data(), st.one_of(st.none(), st.binary(max_size=60)))
@settings(max_examples=50, deadline=None)
def test_proof_round_trip(size: int, data: st.DataObject, extra: bytes | None) -> None:
    """A tlog-proof is read back as it was built, and holds for its leaf alone."""
    index = data.draw(st.integers(0, size - 1))
    note = sign_checkpoint(Checkpoint(ORIGIN, size, tree_root(HASHES[:size])), KEY)
    text = build_proof(index, prove_inclusion(index, size, prove), note, extra)
    proof = parse_proof(text)
    assert (proof.index, proof.checkpoint, proof.extra) == (index, note, extra)
    assert build_proof(proof.index, proof.hashes, proof.checkpoint, proof.extra) == text
    assert check_proof(proof, HASHES[index], [VKEY]).size == size
    with pytest.raises(ProofError):
        check_proof(proof, leaf_hash(b"other"), [VKEY])
    with pytest.raises(CheckpointError):
        check_proof(parse_proof(text.replace(f"\n{size}\n", f"\n{size + 1}\n")), HASHES[index], [VKEY])


def test_malformed_proofs_are_refused() -> None:
    """Each part of a tlog-proof that is missing or wrong is refused with a clear error."""
    note = sign_checkpoint(Checkpoint(ORIGIN, 3, tree_root(HASHES[:3])), KEY)
    good = build_proof(1, prove_inclusion(1, 3, prove), note)
    bad = [
        "", good[1:], good.replace("index 1\n", ""), good.replace("index 1", "index 01"), good.replace("index 1", "index -1"),
        good.replace("index 1", "extra !\nindex 1"), good.replace("\n\n", "\n", 1), good.replace("index 1\n", "index 1\nAAAA\n"),
    ]  # fmt: skip
    for text in bad:
        with pytest.raises((ProofError, CheckpointError)):
            check_proof(parse_proof(text), HASHES[1], [VKEY])


def test_tenant_receipt_is_two_chained_proofs() -> None:
    """Event to tenant head to root head holds; a root entry that quotes another head does not."""
    root_name = "audit.example.com/log/root"
    note = sign_checkpoint(Checkpoint(ORIGIN, 5, tree_root(HASHES[:5])), KEY)
    first = build_proof(2, prove_inclusion(2, 5, prove), note)

    def chain(quoted: str) -> str:
        entry = build_entry("checkpoint", bytes(16), {"origin": ORIGIN, "mark": 9, "note": quoted})
        leaves = [leaf_hash(b"key entry"), leaf_hash(entry)]
        root = sign_checkpoint(Checkpoint(root_name, 2, tree_root(leaves)), KEY)
        return first + build_proof(1, [leaves[0]], root, entry)

    root_vkey = vkey(root_name, KEY.public_key())
    tenant, root = check_chain(parse_chain(chain(note)), HASHES[2], VKEY, root_vkey)
    assert (tenant.size, root.size) == (5, 2)
    other = sign_checkpoint(Checkpoint(ORIGIN, 4, tree_root(HASHES[:4])), KEY)
    with pytest.raises(ProofError):
        check_chain(parse_chain(chain(other)), HASHES[2], VKEY, root_vkey)
    with pytest.raises(ProofError):
        check_chain(parse_chain(first), HASHES[2], VKEY, root_vkey)


def test_receipt_round_trip() -> None:
    """A signed receipt opens as what was promised; another key, range or word does not."""
    name = "audit.example.com/receipt"
    receipt = Receipt(
        ORIGIN, ((5, 3), (1, 1)), batch_root(HASHES[:4]), input_root([b"a", b"b"]), "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
    )
    note = sign_receipt(receipt, name, KEY)
    key = vkey(name, KEY.public_key())
    assert open_receipt(note, [key]) == receipt
    assert note.split("\n")[:3] == ["tallystick.receipt/v1", ORIGIN, "5+3,1+1"]
    with pytest.raises(CheckpointError):
        open_receipt(note.replace("5+3", "5+4"), [key])
    for old, new in (("fsynced", "queued"), ("5+3", "5+0"), ("receipt/v1", "receipt/v2")):
        with pytest.raises(CheckpointError):
            open_receipt(sign_note(receipt.text().replace(old, new), [(name, KEY)]), [key])


def test_manifest_round_trip() -> None:
    """A chunk manifest opens as what was signed; one that contradicts itself is neither signed nor opened."""
    name = "audit.example.com/manifest"
    key = vkey(name, KEY.public_key())
    fields = {
        "origin": ORIGIN, "chunk_id": "ab" * 16, "object": "h/standard/2026/01/01/x.parquet", "retention_class": "standard", "first": 4,
        "last": 9, "count": 3, "indexes_sha256": indexes_digest([4, 5, 9]), "size": 100, "sha256": "cd" * 32,
    }  # fmt: skip
    for replaces in ((), ("01" * 16, "02" * 16)):
        manifest = Manifest(**fields, replaces=replaces)
        assert open_manifest(sign_manifest(manifest, name, KEY), [key]) == manifest
    for change in ({"count": 7}, {"first": 10}, {"object": "a\nb"}, {"sha256": "xx"}, {"chunk_id": "ab"}):
        with pytest.raises(CheckpointError):
            sign_manifest(Manifest(**{**fields, **change}), name, KEY)


def test_indexes_digest_is_over_big_endian_numbers() -> None:
    """The digest is what thirty lines of anybody's code compute."""
    assert indexes_digest([1, 300]) == hashlib.sha256(struct.pack(">QQ", 1, 300)).hexdigest()


def test_leaf_data_of_long_and_lost_events() -> None:
    """A line of 65,535 bytes is its own leaf; one byte more makes it a `large` leaf; a lost index has its own text."""
    exact, longer = b"x" * 65_535, b"x" * 65_536
    assert event_hashes([exact, b"y"]) == leaf_hash(exact) + leaf_hash(b"y")
    text = b"tallystick.large/v1 65536 " + hashlib.sha256(longer).hexdigest().encode()
    assert large_text(longer) == text
    assert event_hashes([longer, b"y"]) == leaf_hash(text) + leaf_hash(b"y")
    assert is_lost(7, lost_hashes(6, 2)[32:])
    assert not is_lost(8, lost_hashes(6, 2)[32:])


def test_entries_are_canonical_and_salted() -> None:
    """An entry starts with type and salt, keeps its fields' order, and is the same when made again at the same place."""
    salter = Salter(bytes(32))
    line = build_entry("delivery", salter.salt(ORIGIN, 5), {"type": "other", "b": 1, "a": "ä", "salt": "x"})
    assert line.startswith(b'{"type":"delivery","salt":"')
    assert line.endswith('","b":1,"a":"ä"}'.encode())
    assert build_entry("delivery", salter.salt(ORIGIN, 5), {"b": 1, "a": "ä"}) == line
    assert salter.salt(ORIGIN, 6) != salter.salt(ORIGIN, 5) != salter.salt(ORIGIN + "/account", 5)
    assert read_entry(line)["a"] == "ä"
    for bad in (b"", b"[]", b'{"type":"delivery"}', b'{"salt":"AAAAAAAAAAAAAAAAAAAAAA"}', line.replace(b'"salt":"', b'"salt":"x')):
        with pytest.raises(IntegrityError):
            read_entry(bad)
    with pytest.raises(IntegrityError):
        read_entry(line, {"key"})
