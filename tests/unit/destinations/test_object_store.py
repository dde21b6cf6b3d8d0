"""The object store destination: names, proofs, and names that are taken."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.delivery import make_cut, make_line
from tallystick.destinations.object_store import ObjectStoreDestination, ObjectStoreSettings, compact_indexes
from tallystick.errors import ConfigError
from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.merkle import leaf_hash, tree_root
from tallystick.evidence.note import vkey
from tallystick.evidence.verify.delivered import verify_delivered
from tallystick.plugin import AnswerKind


def make(directory: Path, **changes: Any) -> ObjectStoreDestination:
    return ObjectStoreDestination("lake", ObjectStoreSettings(url=str(directory), **changes))


LINES = [make_line(index) for index in range(5)]


async def test_the_name_says_tenant_day_range_and_digest(tmp_path: Path) -> None:
    """The key is made of the cut alone; the day is that on which its first event was received."""
    destination = make(tmp_path)
    cut = make_cut(destination, LINES, first=7)
    answer = await destination.send(cut)
    assert answer.where == f"acme/2026/03/04/{7:020d}-{11:020d}-{cut.sha256[:16]}.jsonl.zst"
    body = zstandard.ZstdDecompressor().decompress((tmp_path / answer.where).read_bytes())
    assert body == b"\n".join(LINES) + b"\n"


async def test_the_proof_beside_the_object_leads_to_the_log(tmp_path: Path) -> None:
    """Batch root, range and checkpoint are those of the lines in the object."""
    destination = make(tmp_path, compression="none")
    cut = make_cut(destination, LINES)
    answer = await destination.send(cut)
    proof = json.loads((tmp_path / f"{answer.where}.proof").read_bytes())
    lines = (tmp_path / answer.where).read_bytes().splitlines()
    assert base64.b64decode(proof["batch_root"]) == tree_root([leaf_hash(line) for line in lines])
    assert (proof["log"], proof["indexes"], proof["checkpoint"]) == (cut.origin, [[0, 5]], "the note\n")


async def test_other_bytes_under_the_name_park_and_stay(tmp_path: Path) -> None:
    """A name that holds other bytes is an alarm; nothing is overwritten and nothing settled."""
    destination = make(tmp_path)
    cut = make_cut(destination, LINES)
    path = tmp_path / destination.place(cut)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"somebody else's")
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.PARK
    assert "nothing was overwritten" in answer.reason
    assert path.read_bytes() == b"somebody else's"


async def test_a_missing_proof_is_put_on_the_retry(tmp_path: Path) -> None:
    """A crash between object and proof: the retry finds the object and adds the proof."""
    destination = make(tmp_path)
    cut = make_cut(destination, LINES)
    answer = await destination.send(cut)
    (tmp_path / f"{answer.where}.proof").unlink()
    assert (await make(tmp_path).send(cut)).kind is AnswerKind.DELIVERED
    assert (tmp_path / f"{answer.where}.proof").exists()


async def test_find_tells_same_other_and_absent_apart(tmp_path: Path) -> None:
    """Looking a name up compares bytes, not only names."""
    destination = make(tmp_path)
    cut = make_cut(destination, LINES)
    place = (await destination.send(cut)).where
    assert await destination.find(place, cut.sha256) is True
    assert await destination.find(place, "0" * 64) is False
    assert await destination.find("acme/none", cut.sha256) is False
    assert await destination.find("", cut.sha256) is None


async def test_a_store_that_ignores_create_only_is_labelled(tmp_path: Path) -> None:
    """When the second conditional put of one key succeeds the guarantee shown is at least once."""
    destination = make(tmp_path)

    async def create(place: str, body: bytes) -> bool:
        return True

    destination._create = create  # type: ignore[method-assign]
    await destination.probe()
    assert destination.effective_guarantee == "at least once"


def test_a_scheme_that_is_not_known_is_refused() -> None:
    """A URL that no store is behind is a configuration error with a hint, not a traceback at the first cut."""
    with pytest.raises(ConfigError):
        ObjectStoreDestination("lake", ObjectStoreSettings(url="s3://", options={"nonsense_option": "1"}))


def test_indexes_are_written_as_runs() -> None:
    """Gaps that a filter leaves cost one pair each."""
    assert compact_indexes([3, 4, 5, 9, 11, 12]) == [[3, 3], [9, 1], [11, 2]]
    assert compact_indexes(range(5, 8)) == [[5, 3]]


async def test_a_copy_of_what_was_delivered_verifies_offline(tmp_path: Path) -> None:
    """`verify --delivered` takes the objects and proofs as they lie there; the copy with one bit changed fails, by its name."""
    destination = make(tmp_path)
    key = Ed25519PrivateKey.generate()
    places = []
    for first in (0, 2):
        lines = LINES[first : first + 2]
        cut = make_cut(destination, lines, first=first)
        head = Checkpoint(cut.origin, first + 2, tree_root([leaf_hash(line) for line in LINES[: first + 2]]))
        answer = await destination.send(replace(cut, checkpoint=sign_checkpoint(head, key)))
        places.append(answer.where)
    report = verify_delivered(tmp_path, vkey(cut.origin, key.public_key()), sign_checkpoint(head, key), lambda _: None)
    assert (report.status, report.events) == (0, 4), report
    damaged = tmp_path / places[1]
    body = bytearray(damaged.read_bytes())
    body[-1] ^= 1
    damaged.write_bytes(body)
    report = verify_delivered(tmp_path, vkey(cut.origin, key.public_key()), sign_checkpoint(head, key), lambda _: None)
    assert (report.status, [problem.place for problem in report.problems]) == (4, [places[1]])
