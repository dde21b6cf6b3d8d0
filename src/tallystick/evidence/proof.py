"""C2SP tlog-proof: one file that shows, offline, that a leaf is in a signed tree.

    c2sp.org/tlog-proof@v1
    extra <base64>               optional and not authenticated: we put the leaf's own data here when it goes along
    index <n>
    <base64 hash>…               leaf's sibling first
                                 one empty line
    <signed checkpoint, verbatim>

A tenant's receipt is two of them, one after the other: event → tenant's checkpoint, then the root log's entry that quotes
this checkpoint (in ``extra``) → root checkpoint. Each starts with the header line, so the pair splits there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tallystick.errors import CheckpointError, ProofError
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint
from tallystick.evidence.merkle import HASH_BYTES, check_inclusion, leaf_hash
from tallystick.evidence.note import VerifierKey, decode_base64

HEADER = "c2sp.org/tlog-proof@v1\n"
_HASHES_MAX = 64
_INDEX = re.compile(r"\Aindex (0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Proof:
    """A parsed tlog-proof; nothing in it is checked yet. ``checkpoint`` is the note's text."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None


def build_proof(index: int, hashes: Sequence[bytes], checkpoint: str, extra: bytes | None = None) -> str:
    """The file's text. ``checkpoint`` is the signed note of the tree that ``hashes`` lead to."""
    lines = [HEADER]
    if extra is not None:
        lines.append(f"extra {base64.b64encode(extra).decode()}\n")
    lines.append(f"index {index}\n")
    lines.extend(f"{base64.b64encode(value).decode()}\n" for value in hashes)
    return "".join([*lines, "\n", checkpoint])


def parse_proof(text: str) -> Proof:
    """Read one tlog-proof. Raises ProofError with what is wrong."""
    if not text.startswith(HEADER):
        raise ProofError("this is no tlog-proof", hint=f"The first line is {HEADER.strip()}")
    head, separator, checkpoint = text[len(HEADER) :].partition("\n\n")
    if not separator:
        raise ProofError("the empty line before the checkpoint is missing")
    lines = head.split("\n")
    try:
        extra = decode_base64(lines.pop(0)[6:], "the extra line") if lines[0].startswith("extra ") else None
        match = _INDEX.match(lines[0]) if lines else None
        if match is None:
            raise ProofError("the proof has no `index <n>` line")
        hashes = tuple(decode_base64(line, "a hash of the proof") for line in lines[1:])
    except CheckpointError as error:
        raise ProofError(error.message) from error
    if len(hashes) > _HASHES_MAX or any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError(f"a proof has at most {_HASHES_MAX} hashes, each 32 bytes long")
    return Proof(int(match[1]), hashes, checkpoint, extra)


def check_proof(proof: Proof, leaf: bytes, vkeys: Iterable[str | VerifierKey]) -> Checkpoint:
    """That the leaf hash ``leaf`` is in the tree of the signed checkpoint, which is returned. Raises ProofError, CheckpointError."""
    checkpoint = open_checkpoint(proof.checkpoint, vkeys)
    check_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return checkpoint


def parse_chain(text: str) -> list[Proof]:
    """Read a file of proofs, one after the other. Raises ProofError."""
    if not text.startswith(HEADER):
        raise ProofError("this is no tlog-proof", hint=f"The first line is {HEADER.strip()}")
    parts = ("\n" + text).split("\n" + HEADER)[1:]
    ends = [*(["\n"] * (len(parts) - 1)), ""]
    return [parse_proof(HEADER + part + end) for part, end in zip(parts, ends, strict=True)]


def check_chain(proofs: Sequence[Proof], leaf: bytes, tenant_vkey: str, root_vkey: str) -> tuple[Checkpoint, Checkpoint]:
    """A tenant's receipt: both checkpoints, tenant's and root's, when the leaf leads to the root log. Raises ProofError.

    1. The leaf is in the tree of the tenant's checkpoint.
    2. The second proof's ``extra`` is a `checkpoint` entry that quotes exactly this checkpoint.
    3. That entry is in the tree of the root checkpoint.
    """
    if len(proofs) != 2 or proofs[1].extra is None:
        raise ProofError("a tenant's receipt is two proofs, the second with the root log's entry in `extra`")
    tenant = check_proof(proofs[0], leaf, [tenant_vkey])  # 1
    try:
        entry = msgspec.json.decode(proofs[1].extra, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ProofError("the root log's entry is no JSON object") from error
    if entry.get("type") != "checkpoint" or entry.get("note") != proofs[0].checkpoint:  # 2
        raise ProofError("the root log's entry quotes another checkpoint than the first proof's", place=tenant.origin)
    root = check_proof(proofs[1], leaf_hash(proofs[1].extra), [root_vkey])  # 3
    return tenant, root
