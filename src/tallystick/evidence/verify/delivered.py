"""Verifies a delivered copy offline: the objects of an `object_store` destination and the `.proof` beside each.

What follows from what

1. *Files*: every object has its proof and the bytes of its digest; every proof has its object.
2. *Lines*: the lines of an object, in order, give the batch root in its proof. That finds damage; it does not find somebody who
   wrote object and proof anew.
3. *Logs*: the leaves from index 0 on, put together from all objects, give the root of a signed checkpoint. Only this shows that
   nothing was changed, left out or put in another order. It needs every event up to the checkpoint: a copy of part of the log, or one
   that a filter thinned out, is consistent at best and reported as not proven.

Memory: 32 bytes for each event. Lines are read one at a time.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import zstandard

from tallystick.errors import CheckpointError
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import HASH_BYTES, joined_root
from tallystick.evidence.note import parse_vkey
from tallystick.evidence.verify.report import Report

PROOF = ".proof"
_LINE_MAX = 1 << 20
_BLOCK = 1 << 20
_CANONICAL = b'{"v":1,'


class Sidecar(msgspec.Struct, frozen=True):
    """The `.proof` of one object (docs/destinations/object_store.md)."""

    log: str
    first_index: int
    last_index: int
    indexes: list[tuple[int, int]]
    sha256: str
    batch_root: str
    checkpoint: str


@dataclass(slots=True)
class _Log:
    """What the copy holds of one log: runs of leaf hashes (first index, joined hashes, object), and notes (text, proof's name)."""

    runs: list[tuple[int, bytes, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def verify_delivered(place: Path, public_key: str | None, remembered: str | None, progress: Callable[[str], None]) -> Report:
    """Verify the directory ``place``. ``public_key``: the vkey of an event log, ``remembered`` a signed head of it, both kept elsewhere.

    Raises OSError.
    """
    report = Report()
    proofs = _pair_files(report, place)
    logs: dict[str, _Log] = {}
    for proof in proofs:
        progress(proof.name)
        _read_object(report, place, proof, logs)
    report.events = sum(len(hashes) // HASH_BYTES for log in logs.values() for _, hashes, _ in log.runs)
    report.done("lines", f"{report.events:,} events in {len(proofs):,} objects")
    for origin, log in sorted(logs.items()):
        have = _check_log(report, origin, log, public_key)
        _check_fresh(report, origin, have, public_key, remembered)
    report.done("logs", f"{len(logs):,} logs")
    return report


def _pair_files(report: Report, place: Path) -> list[Path]:
    """The proofs whose object is there, in order; what stands alone is reported. Files under a dot, as probes leave them, are passed over."""
    files = {path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")}
    for path in sorted(files):
        if path.suffix == PROOF and path.with_suffix("") not in files:
            report.fail("the object of this proof is missing", str(path.relative_to(place)))
        elif path.suffix != PROOF and path.with_name(path.name + PROOF) not in files:
            report.fail("there is no proof beside this object", str(path.relative_to(place)))
    proofs = sorted(path for path in files if path.suffix == PROOF and path.with_suffix("") in files)
    if not files:
        report.not_proven.append("content: nothing was found to check")
    report.done("files", f"{len(proofs):,} objects with their proofs")
    return proofs


def _read_object(report: Report, place: Path, proof: Path, logs: dict[str, _Log]) -> None:
    """Compare an object with its proof, and keep its leaves for the log."""
    path = proof.with_suffix("")
    where = str(path.relative_to(place))
    try:
        sidecar = msgspec.json.decode(proof.read_bytes(), type=Sidecar)
        root = base64.b64decode(sidecar.batch_root, validate=True)
    except (msgspec.MsgspecError, binascii.Error, UnicodeDecodeError) as error:
        report.fail(f"this is no proof: {error}", f"{where}{PROOF}")
        return
    log = logs.setdefault(sidecar.log, _Log())
    log.notes.setdefault(sidecar.checkpoint, f"{where}{PROOF}")
    if _digest(path) != sidecar.sha256:
        report.fail("the object is not the bytes that its proof names", where)
        return
    try:
        hashes = _leaves(path)
    except (OSError, EOFError, ValueError, zstandard.ZstdError) as error:
        report.fail(f"the object cannot be read: {error}", where)
        return
    if hashes is None:
        report.not_proven.append(f"content: the lines of {where} are no canonical lines; only its digest was compared")
        return
    count = len(hashes) // HASH_BYTES
    if joined_root(hashes) != root:
        report.fail("the lines do not give the batch root of the proof", where)
    elif count != sum(size for _, size in sidecar.indexes):
        report.fail(f"the proof counts other than {count} lines", f"{where}{PROOF}")
    else:
        at = 0
        for first, size in sidecar.indexes:
            log.runs.append((first, hashes[at * HASH_BYTES : (at + size) * HASH_BYTES], where))
            at += size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _leaves(path: Path) -> bytes | None:
    """The joined leaf hashes of an object's lines; None when it does not hold canonical lines. Raises what reading raises."""
    if not any(path.name.endswith(f".jsonl{end}") for end in ("", ".zst", ".gz")):
        return None
    hashes = bytearray()
    with path.open("rb") as file:
        for line in _lines(path.suffix, file):
            if not line.startswith(_CANONICAL):
                return None
            hashes += event_hashes([line])
    return bytes(hashes)


def _lines(suffix: str, file: BinaryIO) -> Iterator[bytes]:
    opened: BinaryIO = file
    if suffix == ".zst":
        opened = io.BufferedReader(cast("io.RawIOBase", zstandard.ZstdDecompressor().stream_reader(file)), _BLOCK)
    elif suffix == ".gz":
        opened = cast("BinaryIO", gzip.GzipFile(fileobj=file))
    number = 0
    while line := opened.readline(_LINE_MAX + 2):
        number += 1
        if not line.endswith(b"\n"):
            raise ValueError(f"line {number} is not whole, or longer than an event can be")
        yield line[:-1]


def _check_log(report: Report, origin: str, log: _Log, public_key: str | None) -> bytes:
    """The leaves from 0 on must give the root of the newest checkpoint that they reach; signatures are checked where the key is known.

    Returns the joined leaf hashes from 0 on.
    """
    heads = _heads(report, origin, log, public_key)
    hashes = _join(report, origin, log)
    have = len(hashes) // HASH_BYTES
    reached = max((head for head in heads if 0 < head.size <= have), key=lambda head: head.size, default=None)
    end = max((first + len(part) // HASH_BYTES for first, part, _ in log.runs), default=0)
    if reached is None:
        report.not_proven.append(f"inclusion: {origin}: the copy does not hold all events from 0 to a checkpoint's size")
        return hashes
    if joined_root(hashes[: reached.size * HASH_BYTES]) != reached.root:
        report.fail(f"the lines do not give the root of the checkpoint of size {reached.size:,}", f"{origin} 0-{reached.size - 1}")
    elif end > reached.size:
        report.not_proven.append(
            f"inclusion: {origin}: events {reached.size:,} to {end - 1:,} are under no checkpoint that could be checked"
        )
    if report.tier == "nothing":
        report.tier = "signer"
    return hashes


def _check_fresh(report: Report, origin: str, hashes: bytes, public_key: str | None, remembered: str | None) -> None:
    """All that the remembered head counts must be in the copy; without such a head, a cut tail would go unseen."""
    head = read_checkpoint(remembered) if remembered is not None else None
    key = parse_vkey(public_key) if public_key else None
    if head is None or head.origin != origin or key is None or key.name != origin:
        report.not_proven.append(
            f"freshness: {origin}: without a signed head of it and its key, a tail that was cut away is not missed"
        )
        return
    try:
        open_checkpoint(remembered or "", [key])
    except CheckpointError as error:
        report.fail(f"the remembered head does not hold: {error.message}", origin)
        return
    have = len(hashes) // HASH_BYTES
    if head.size > have and report.problems:  # what is missing here follows from what was found there
        report.not_proven.append(
            f"freshness: {origin}: the copy holds {have:,} sound events from 0 on, the remembered head counts {head.size:,}"
        )
    elif head.size > have:
        report.fail(f"the remembered head counts {head.size:,} events; the copy holds {have:,} from 0 on", origin)
    elif joined_root(hashes[: head.size * HASH_BYTES]) != head.root:
        report.fail(f"the lines do not give the root of the remembered head of size {head.size:,}", origin)
    else:
        report.tier = "remembered head"


def _heads(report: Report, origin: str, log: _Log, public_key: str | None) -> list[Checkpoint]:
    """The checkpoints of a log's proofs, each opened once; those that do not hold are reported."""
    key = parse_vkey(public_key) if public_key else None
    is_known = key is not None and key.name == origin
    if not is_known:
        report.not_proven.append(f"signer: {origin}: its public key was not given, so anybody could have made this copy")
    heads = []
    for note, where in log.notes.items():
        try:
            head = open_checkpoint(note, [key]) if key is not None and is_known else read_checkpoint(note)
        except CheckpointError as error:
            report.fail(f"the checkpoint does not hold: {error.message}", where)
            continue
        if head.origin == origin:
            heads.append(head)
        else:
            report.fail(f"the checkpoint is one of {head.origin}", where)
    return heads


def _join(report: Report, origin: str, log: _Log) -> bytes:
    """The leaves from index 0 up to the first that is missing. Objects that overlap, as replays do, must agree."""
    joined = bytearray()
    for first, part, where in sorted(log.runs):
        if first * HASH_BYTES > len(joined):
            break
        overlap = joined[first * HASH_BYTES : first * HASH_BYTES + len(part)]
        if not part.startswith(overlap):
            report.fail("another object holds other lines under the same indexes", f"{where} ({origin} from {first})")
        joined += part[len(overlap) :]
    return bytes(joined)
