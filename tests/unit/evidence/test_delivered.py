"""A delivered copy: what holds, and that every change is found and named."""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import joined_root
from tallystick.evidence.note import vkey
from tallystick.evidence.verify import Report
from tallystick.evidence.verify.delivered import verify_delivered

LOG = "audit.example.com/log/aaaaaaaaaaaaaaaa"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = vkey(LOG, KEY.public_key())
LINES = [b'{"v":1,"id":"e%d","action":"a.b"}' % number for number in range(9)]
FRAMES = {"": bytes, ".zst": zstandard.compress, ".gz": gzip.compress}


def put(copy: Path, lines: list[bytes], first: int, last: int, suffix: str = ".zst", *, key: Ed25519PrivateKey = KEY) -> Path:
    """An object of ``lines[first..last]`` with a proof under a checkpoint of all lines up to ``last``."""
    part = lines[first : last + 1]
    body = FRAMES[suffix](b"".join(line + b"\n" for line in part))
    path = copy / f"{first:020d}-{last:020d}.jsonl{suffix}"
    path.write_bytes(body)
    root = joined_root(event_hashes(lines[: last + 1]))
    proof = {
        "log": LOG,
        "first_index": first,
        "last_index": last,
        "indexes": [[first, len(part)]],
        "sha256": hashlib.sha256(body).hexdigest(),
        "batch_root": base64.b64encode(joined_root(event_hashes(part))).decode(),
        "checkpoint": sign_checkpoint(Checkpoint(LOG, last + 1, root), key),
    }
    path.with_name(path.name + ".proof").write_bytes(msgspec.json.encode(proof))
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Nine events in three objects, each in another framing."""
    for first, suffix in ((0, ".zst"), (3, ".gz"), (6, "")):
        put(tmp_path, LINES, first, first + 2, suffix)
    return tmp_path


HEAD = sign_checkpoint(Checkpoint(LOG, 9, joined_root(event_hashes(LINES))), KEY)


def verify(copy: Path, public_key: str | None = PUBLIC, remembered: str | None = HEAD) -> Report:
    return verify_delivered(copy, public_key, remembered, lambda _: None)


def places(report: Report) -> list[str]:
    assert report.status == 4, report
    return [problem.place for problem in report.problems]


def test_a_whole_copy_holds_under_the_key(copy: Path) -> None:
    """All objects, all framings, the log's own key: status 0 with every event counted."""
    report = verify(copy)
    assert (report.status, report.events, report.tier) == (0, 9, "remembered head"), report


def test_without_the_logs_key_the_signer_is_not_proven(copy: Path) -> None:
    """No key, or another log's: consistent, status 5."""
    other = vkey("audit.example.com/log/root", KEY.public_key())
    for key in (None, other):
        report = verify(copy, key)
        assert report.status == 5
        assert report.not_proven[0].startswith("signer:")


def test_changed_bytes_are_named_by_object(copy: Path) -> None:
    """One byte of one line."""
    path = put(copy, LINES, 6, 8, "")
    path.write_bytes(path.read_bytes().replace(b"e7", b"eX"))
    assert places(verify(copy)) == [path.name]


@pytest.mark.parametrize("forge", [lambda part: part[::-1], lambda part: part[:-1], lambda part: [*part[:-1], part[0]]])
def test_lines_that_do_not_give_the_batch_root_are_named(copy: Path, forge: object) -> None:
    """Reordered, missing and replaced lines under a digest that was made to fit."""
    path = copy / f"{6:020d}-{8:020d}.jsonl"
    body = b"".join(line + b"\n" for line in forge(LINES[6:9]))  # type: ignore[operator]
    path.write_bytes(body)
    proof = path.with_name(path.name + ".proof")
    page = msgspec.json.decode(proof.read_bytes())
    proof.write_bytes(msgspec.json.encode(page | {"sha256": hashlib.sha256(body).hexdigest()}))
    assert places(verify(copy)) == [path.name]


def test_an_object_and_proof_made_anew_do_not_give_the_signed_root(copy: Path) -> None:
    """Object, digest and batch root forged together, the genuine checkpoint left in place."""
    forged = [*LINES[:3], b'{"v":1,"id":"e3","action":"x.y"}', *LINES[4:]]
    genuine = msgspec.json.decode(put(copy, LINES, 3, 5, ".gz").with_name(f"{3:020d}-{5:020d}.jsonl.gz.proof").read_bytes())
    path = put(copy, forged, 3, 5, ".gz")
    proof = path.with_name(path.name + ".proof")
    page = msgspec.json.decode(proof.read_bytes())
    proof.write_bytes(msgspec.json.encode(page | {"checkpoint": genuine["checkpoint"]}))
    assert places(verify(copy)) == [f"{LOG} 0-8", LOG]


def test_a_checkpoint_of_another_signer_does_not_hold(copy: Path) -> None:
    """A checkpoint under the log's name, signed by somebody else's key."""
    path = put(copy, LINES, 6, 8, "", key=Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
    assert places(verify(copy)) == [f"{path.name}.proof"]


def test_what_stands_alone_is_named(copy: Path) -> None:
    """A missing object and a missing proof fail, each by its name."""
    (copy / f"{3:020d}-{5:020d}.jsonl.gz").unlink()
    (copy / f"{6:020d}-{8:020d}.jsonl.proof").unlink()
    assert places(verify(copy)) == [f"{3:020d}-{5:020d}.jsonl.gz.proof", f"{6:020d}-{8:020d}.jsonl"]


def test_a_cut_tail_is_found_against_a_remembered_head(copy: Path) -> None:
    """The newest object and its proof taken away: missed with a later head, `freshness` not proven without one."""
    for path in copy.glob(f"{6:020d}-*"):
        path.unlink()
    assert places(verify(copy)) == [LOG]
    report = verify(copy, remembered=None)
    assert (report.status, [line.split(":")[0] for line in report.not_proven]) == (5, ["freshness"])


def test_a_part_of_the_log_is_not_proven(copy: Path) -> None:
    """Without the first object nothing reaches a checkpoint from 0: status 5, never 0."""
    for path in copy.glob(f"{0:020d}-*"):
        path.unlink()
    report = verify(copy, remembered=None)
    assert report.status == 5
    assert report.not_proven[0].startswith("inclusion:")


def test_a_proof_that_is_none_is_named(copy: Path) -> None:
    """Bytes that are no proof are a problem with a place, no traceback."""
    (copy / f"{6:020d}-{8:020d}.jsonl.proof").write_bytes(b"\xff{")
    assert places(verify(copy)) == [f"{6:020d}-{8:020d}.jsonl.proof"]
