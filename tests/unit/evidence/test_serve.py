"""What other people's clients are served: only what is under a published head, and proofs that hold without us."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.checkpoint import open_checkpoint
from tallystick.evidence.entry import read_entry
from tallystick.evidence.heads import Heads
from tallystick.evidence.merkle import check_consistency, leaf_hash, tree_root
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import event_origin
from tallystick.evidence.proof import check_chain, check_proof, parse_chain, parse_proof
from tallystick.evidence.serve import LogReader
from unit.evidence.conftest import SERVER, Installation

Lines = Callable[[int], list[bytes]]


def unpack(bundle: bytes) -> list[bytes]:
    entries = []
    while bundle:
        (length,) = struct.unpack_from(">H", bundle)
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return entries


@pytest.fixture
def served(installation: Installation, lines: Lines) -> tuple[LogReader, str, list[bytes], Installation]:
    made = lines(300)
    handle = installation.write("acme", made[:40], account=[{"type": "open"}])
    installation.seal()
    installation.write("acme", made[40:])
    installation.seal()
    kept = list(enumerate(made))
    reader = LogReader(
        installation.data_dir, SERVER, Heads(installation.data_dir), lambda _, first, count: kept[first : first + count]
    )
    return reader, handle, made, installation


def test_proofs_of_an_event_hold(served: tuple[LogReader, str, list[bytes], Installation]) -> None:
    """The tenant proof and the two chained proofs lead from the line to keys that a stranger can have."""
    reader, handle, made, installation = served
    origin = event_origin(SERVER, handle)
    tenant_vkey = vkey(origin, installation.keys.signing_key(origin).public_key())
    root_vkey = (installation.keys_dir / "root.vkey").read_text().strip()
    for index in (0, 39, 40, 299):
        leaf = leaf_hash(made[index])
        assert check_proof(parse_proof(reader.prove_event(handle, index)), leaf, [tenant_vkey]).size == 300
        tenant, root = check_chain(parse_chain(reader.prove_receipt(handle, index)), leaf, tenant_vkey, root_vkey)
        assert (tenant.size, root.origin) == (300, f"{SERVER}/log/root")
    old, new = 40, 300
    path = reader.prove_extension(handle, old, new)
    head = open_checkpoint(reader.checkpoint(handle), [tenant_vkey])
    check_consistency(old, new, tree_root([leaf_hash(line) for line in made[:old]]), head.root, path)


def test_bundles_carry_the_leaf_data(served: tuple[LogReader, str, list[bytes], Installation]) -> None:
    """Entry bundles of event, account and root log hold exactly what was hashed."""
    reader, handle, made, _ = served
    assert unpack(reader.tile(handle, "tile/entries/000")) == made[:256]
    assert unpack(reader.tile(handle, "tile/entries/001.p/44")) == made[256:]
    assert read_entry(unpack(reader.tile(f"{handle}/account", "tile/entries/000.p/1"))[0])["type"] == "open"
    assert reader.tile(handle, "tile/0/001.p/2") == leaf_hash(made[256]) + leaf_hash(made[257])
    kinds = [read_entry(entry)["type"] for entry in unpack(reader.tile("root", "tile/entries/000.p/4"))]
    assert kinds.count("key") >= 2


def test_nothing_beyond_the_head_is_served(served: tuple[LogReader, str, list[bytes], Installation], lines: Lines) -> None:
    """Larger tiles, later events, unknown logs and odd paths are not found, also when the files already hold more."""
    reader, handle, _, installation = served
    installation.write("acme", lines(5))
    sealer = installation.sealer()
    sealer._read()
    for name, path in ((handle, "tile/0/001.p/45"), (handle, "tile/0/002.p/1"), (handle, "tile/2/000.p/1"), (handle, "tile/0/1"), ("x", "tile/0/000")):  # fmt: skip
        with pytest.raises(NotFoundError):
            reader.tile(name, path)
    for call in (lambda: reader.prove_event(handle, 300), lambda: reader.prove_receipt(handle, 300), lambda: reader.checkpoint("x"),
                 lambda: reader.prove_extension(handle, 40, 301)):  # fmt: skip
        with pytest.raises(NotFoundError):
            call()
    sealer.close()


def test_a_line_that_is_not_the_leaf_is_not_served(served: tuple[LogReader, str, list[bytes], Installation]) -> None:
    """A changed line is an integrity error, a missing one is not found; neither is passed off as the entry."""
    _, handle, _, installation = served
    for lines_, error in (([(0, b"forged")], IntegrityError), ([], NotFoundError)):
        reader = LogReader(installation.data_dir, SERVER, Heads(installation.data_dir), lambda *_, found=lines_: found)
        with pytest.raises(error):
            reader.tile(handle, "tile/entries/000.p/1")
