"""Merkle tree hashes and proofs against a second, recursive reading of RFC 6962 and its known values."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import ProofError
from tallystick.evidence.merkle import (
    EMPTY_ROOT,
    check_consistency,
    check_inclusion,
    leaf_hash,
    leaf_hashes,
    prove_consistency,
    prove_inclusion,
    tree_root,
)


def mth(datas: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word by word."""
    if not datas:
        return hashlib.sha256(b"").digest()
    if len(datas) == 1:
        return hashlib.sha256(b"\x00" + datas[0]).digest()
    k = 1
    while k * 2 < len(datas):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(datas[:k]) + mth(datas[k:])).digest()


DATAS = [b"entry %d" % number for number in range(300)]
HASHES = [leaf_hash(data) for data in DATAS]


def prove(start: int, end: int) -> bytes:
    return mth(DATAS[start:end])


def test_known_values() -> None:
    """Empty tree and empty leaf have the values that RFC 6962 implementations share."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    assert tree_root([leaf_hash(bytes.fromhex(entry)) for entry in entries]).hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("size", [*range(20), 63, 64, 65, 255, 256, 257, 300])
def test_pairing_builds_the_recursive_tree(size: int) -> None:
    """Batch pairing gives the same root as the recursive definition, and batch leaf hashing the same leaves."""
    assert tree_root(HASHES[:size]) == mth(DATAS[:size])
    assert leaf_hashes(DATAS[:size]) == b"".join(HASHES[:size])


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_inclusion_holds_only_where_it_was_proved(size: int, data: st.DataObject) -> None:
    """A path proves its leaf; it proves no other leaf, index or root, and no longer or shorter path does."""
    index = data.draw(st.integers(0, size - 1))
    root = mth(DATAS[:size])
    path = prove_inclusion(index, size, prove)
    check_inclusion(HASHES[index], index, size, path, root)
    with pytest.raises(ProofError):
        check_inclusion(leaf_hash(b"other"), index, size, path, root)
    with pytest.raises(ProofError):
        check_inclusion(HASHES[index], index, size, path, leaf_hash(b"other"))
    with pytest.raises(ProofError):
        check_inclusion(HASHES[index], index, size, [*path, HASHES[0]], root)
    with pytest.raises(ProofError):
        check_inclusion(HASHES[index], size, size, path, root)
    if path:
        with pytest.raises(ProofError):
            check_inclusion(HASHES[index], index, size, path[:-1], root)
        with pytest.raises(ProofError):
            check_inclusion(HASHES[index], index ^ 1, size, path, root)
        with pytest.raises(ProofError):
            check_inclusion(HASHES[index], index, size, [path[0][:31], *path[1:]], root)


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_consistency_holds_only_for_an_extension(new: int, data: st.DataObject) -> None:
    """A consistency proof joins two roots of one growing log; with a hash changed, added or missing it does not."""
    old = data.draw(st.integers(1, new))
    old_root, new_root = mth(DATAS[:old]), mth(DATAS[:new])
    path = prove_consistency(old, new, prove)
    check_consistency(old, new, old_root, new_root, path)
    with pytest.raises(ProofError):
        check_consistency(old, new, leaf_hash(b"fork"), new_root, path)
    with pytest.raises(ProofError):
        check_consistency(old, new, old_root, leaf_hash(b"fork"), path)
    with pytest.raises(ProofError):
        check_consistency(old, new, old_root, new_root, [*path, HASHES[0]])
    if path:
        with pytest.raises(ProofError):
            check_consistency(old, new, old_root, new_root, path[:-1])


def test_size_zero_has_no_proofs() -> None:
    """Nothing is included in the empty tree, and no consistency proof starts from it."""
    with pytest.raises(ProofError):
        prove_inclusion(0, 0, prove)
    with pytest.raises(ProofError):
        prove_consistency(0, 5, prove)
    with pytest.raises(ProofError):
        check_consistency(0, 5, EMPTY_ROOT, mth(DATAS[:5]), [])
