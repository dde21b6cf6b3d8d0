"""RFC 6962 / RFC 9162 Merkle tree hashes and proofs, on one page and without IO.

Rules

- Hash of no leaf: SHA-256(""). Leaf: SHA-256(0x00 ‖ data). Node: SHA-256(0x01 ‖ left ‖ right).
- A tree of n > 1 leaves splits at the largest power of two below n. Pairing neighbours level by level and carrying an
  odd last node up unchanged builds the same tree; the batch functions do that, because one pass over joined bytes is fast.
- A prover needs only hashes of ranges of leaves: a ``RangeRoot`` gives MTH(D[start:end]) for ranges that are subtrees.
- A checker believes nothing: hashes must be 32 bytes, sizes and indexes in range, no hash missing and none left over.

Size 0 is apart: nothing can be included in it, and no consistency proof starts from it (every tree extends it, so a proof
would be useless); callers treat it themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tallystick.errors import ProofError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

RangeRoot = Callable[[int, int], bytes]

_new_leaf = hashlib.sha256(b"\x00").copy
_new_node = hashlib.sha256(b"\x01").copy


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data), 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def leaf_hashes(datas: Sequence[bytes]) -> bytes:
    """The leaf hashes of ``datas`` in order, joined: 32 bytes each."""
    out = []
    for data in datas:
        digest = _new_leaf()
        digest.update(data)
        out.append(digest.digest())
    return b"".join(out)


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def hash_pairs(hashes: bytes) -> bytes:
    """One level up: the node hashes over neighbouring pairs of joined hashes; an odd last one is carried up as it is."""
    even = len(hashes) & ~63
    out = []
    for start in range(0, even, 64):
        digest = _new_node()
        digest.update(hashes[start : start + 64])
        out.append(digest.digest())
    out.append(hashes[even:])
    return b"".join(out)


def joined_root(hashes: bytes) -> bytes:
    """MTH over joined 32-byte leaf hashes."""
    if not hashes:
        return EMPTY_ROOT
    while len(hashes) > HASH_BYTES:
        hashes = hash_pairs(hashes)
    return hashes


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes in order; SHA-256("") for none."""
    return joined_root(b"".join(hashes))


def prove_inclusion(index: int, size: int, range_root: RangeRoot) -> list[bytes]:
    """The path of leaf ``index`` in the tree of ``size`` leaves, leaf's sibling first (RFC 9162 §2.1.3.1). Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(middle, end))
            end = middle
        else:
            path.append(range_root(start, middle))
            start = middle
    path.reverse()
    return path


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 §2.1.3.2. Raises ProofError unless ``path`` leads from ``leaf`` at ``index`` to ``root``."""
    _check_hashes((leaf, root, *path))
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size} leaves")
    first, second, running = index, size - 1, leaf
    for sibling in path:
        if second == 0:
            raise ProofError("the inclusion proof has hashes left over")
        if first & 1 or first == second:
            running = node_hash(sibling, running)
            first, second = _ascend(first, second)
        else:
            running = node_hash(running, sibling)
        first, second = first >> 1, second >> 1
    if second != 0:
        raise ProofError("the inclusion proof is too short")
    if running != root:
        raise ProofError(f"the inclusion proof of leaf {index} does not lead to the root of size {size}")


def prove_consistency(old: int, new: int, range_root: RangeRoot) -> list[bytes]:
    """That the tree of ``new`` leaves extends the one of ``old`` (RFC 9162 §2.1.4.1). Raises ProofError."""
    if not 0 < old <= new:
        raise ProofError(f"there is no consistency proof from size {old} to size {new}")
    path: list[bytes] = []
    start, end, is_whole = 0, new, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(range_root(middle, end))
            end = middle
        else:
            path.append(range_root(start, middle))
            start, is_whole = middle, False
    if not is_whole:
        path.append(range_root(start, end))
    path.reverse()
    return path


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """RFC 9162 §2.1.4.2. Raises ProofError unless the tree under ``new_root`` extends the one under ``old_root``."""
    _check_hashes((old_root, new_root, *path))
    if not 0 < old <= new:
        raise ProofError(f"there is no consistency proof from size {old} to size {new}")
    if old == new:
        if path or old_root != new_root:
            raise ProofError(f"two different roots of size {old}")
        return
    hashes = list(path)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise ProofError("the consistency proof is too short")
    first, second = old - 1, new - 1
    while first & 1:
        first, second = first >> 1, second >> 1
    from_old = from_new = hashes[0]
    for sibling in hashes[1:]:
        if second == 0:
            raise ProofError("the consistency proof has hashes left over")
        if first & 1 or first == second:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
            first, second = _ascend(first, second)
        else:
            from_new = node_hash(from_new, sibling)
        first, second = first >> 1, second >> 1
    if second != 0:
        raise ProofError("the consistency proof is too short")
    if from_old != old_root or from_new != new_root:
        raise ProofError(f"the tree of size {new} does not extend the one of size {old}")


def _split(size: int) -> int:
    """The largest power of two below ``size``, for size > 1."""
    return 1 << ((size - 1).bit_length() - 1)


def _ascend(first: int, second: int) -> tuple[int, int]:
    """Up to the next level where ``first`` is a right child, or to the left edge."""
    while first and not first & 1:
        first, second = first >> 1, second >> 1
    return first, second


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError("a proof holds a hash that is not 32 bytes long")
