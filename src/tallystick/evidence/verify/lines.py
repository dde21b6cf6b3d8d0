"""The content behind the leaves: every line of the archive and of the journal against the tree it claims to be in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tallystick.errors import IntegrityError, NotFoundError, TallystickError
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.heads import Head
from tallystick.evidence.manifest import Manifest, indexes_digest, open_manifest, read_manifest
from tallystick.evidence.merkle import HASH_BYTES
from tallystick.evidence.note import VerifierKey
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify.report import Report


class ChunkSource(Protocol):
    """How the archive lets its chunks be checked; it lies on a floor above this one. Names are paths below the store."""

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        """(name, note) of every manifest in the store."""

    def names(self) -> Iterator[str]:
        """Every chunk that the store or the catalog lists."""

    def digest(self, name: str) -> tuple[int, str]:
        """Size in bytes and hexadecimal SHA-256 of a chunk as stored. Raises NotFoundError when it is not there."""

    def lines(self, name: str) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        """(indexes, lines) batches of a chunk, ascending. Raises IntegrityError when it does not open."""


class EventTree:
    """One tenant's event tree, and which of its leaves have been found behind a line. One byte of memory a leaf."""

    def __init__(self, tree: TreeFiles, head: Head) -> None:
        self.tree = tree
        self.head = head
        self.size = min(head.size, tree.stored_size())  # a cut tree is reported once, then checked as far as it goes
        self.seen = bytearray(self.size)
        self.beyond = 0

    def check(self, indexes: Sequence[int] | range, lines: Sequence[bytes], source: str, report: Report) -> None:
        """Compare ``lines`` with the leaves at ``indexes`` (ascending). Leaves under no head yet are only counted."""
        if not lines:
            return
        if indexes[-1] >= self.size:
            keep = sum(index < self.size for index in indexes)
            self.beyond += len(indexes) - keep
            indexes, lines = indexes[:keep], lines[:keep]
            if not keep:
                return
        first, last = indexes[0], indexes[-1]
        made = event_hashes(lines)
        stored = self.tree.hashes(0, first, last - first + 1)
        if len(made) == len(stored) and made == stored:
            self.seen[first : last + 1] = b"\x01" * len(lines)
            return
        wrong = []
        for place, index in enumerate(indexes):
            at = (index - first) * HASH_BYTES
            if made[place * HASH_BYTES : (place + 1) * HASH_BYTES] == stored[at : at + HASH_BYTES]:
                self.seen[index] = 1
            else:
                wrong.append(index)
        if wrong:
            which = f"index {wrong[0]}" if len(wrong) == 1 else f"{len(wrong)} indexes from {wrong[0]} to {wrong[-1]}"
            report.fail(f"the line of {which} is not the one in the tree of {self.head.origin}", source)

    def unseen(self) -> Iterator[tuple[int, int]]:
        """(first, count) of each run of leaves without a line."""
        start = self.seen.find(0)
        while start >= 0:
            end = self.seen.find(1, start)
            end = len(self.seen) if end < 0 else end
            yield start, end - start
            start = self.seen.find(0, end)


def check_chunks(
    source: ChunkSource, trees: dict[str, EventTree], keys: Sequence[VerifierKey], report: Report, *, is_open: bool = True
) -> int:
    """Manifests, chunks as stored, and (``is_open``) every line in them. Returns the number of chunks that hold. Adds problems."""
    names = set(source.names())
    manifests = _read_manifests(source, keys, report)
    for name in sorted(names - set(manifests)):
        _check_orphan(source, name, report)
    replaced = {chunk_id for manifest in manifests.values() for chunk_id in manifest.replaces}
    waiting, good = sorted(manifests.items(), reverse=True), 0
    while waiting:
        name, manifest = waiting.pop()
        before = len(report.problems)
        try:
            size, digest = source.digest(name)
        except NotFoundError as error:
            if manifest.chunk_id not in replaced:  # perhaps merged since the manifests were listed
                fresh = {key: value for key, value in _read_manifests(source, keys, report).items() if key not in manifests}
                manifests |= fresh
                waiting += fresh.items()
                replaced |= {chunk_id for value in fresh.values() for chunk_id in value.replaces}
            if manifest.chunk_id not in replaced:
                report.fail(f"a chunk with the indexes {manifest.first} to {manifest.last} is missing: {error.message}", name)
            continue
        if (size, digest) != (manifest.size, manifest.sha256):
            report.fail(f"a chunk with the indexes {manifest.first} to {manifest.last} is not the one its manifest names", name)
        elif is_open:
            _check_chunk(source, manifest, trees, report)
        good += len(report.problems) == before
    return good


def _check_orphan(source: ChunkSource, name: str, report: Report) -> None:
    """A chunk that no manifest vouches for proves nothing; one that the catalog counts on must at least be there."""
    try:
        source.digest(name)
    except NotFoundError as error:
        report.fail(f"a chunk and its manifest are missing: {error.message}", name)
    else:
        report.notes.append(
            f"a chunk has no manifest (its writing was cut short, or the manifest was removed) and was not counted: {name}"
        )


def _read_manifests(source: ChunkSource, keys: Sequence[VerifierKey], report: Report) -> dict[str, Manifest]:
    """Manifests by the name of their chunk."""
    found: dict[str, Manifest] = {}
    for name, note in source.manifests():
        try:
            text = note.decode("utf-8")
            manifest = open_manifest(text, keys) if keys else read_manifest(text)
        except (TallystickError, UnicodeDecodeError) as error:
            report.fail(f"a manifest does not hold: {error}", name)
            continue
        found[manifest.object] = manifest
    return found


def _check_chunk(source: ChunkSource, manifest: Manifest, trees: dict[str, EventTree], report: Report) -> None:
    tree = trees.get(manifest.origin)
    if tree is None:
        report.fail(f"a chunk belongs to a log without a head: {manifest.origin}", manifest.object)
        return
    indexes: list[int] = []
    try:
        for batch, lines in source.lines(manifest.object):
            tree.check(batch, lines, manifest.object, report)
            indexes += batch
    except IntegrityError as error:
        report.fail(f"a chunk does not open: {error.message}", manifest.object)
        return
    if len(indexes) != manifest.count or indexes_digest(indexes) != manifest.indexes_sha256:
        report.fail("a chunk does not hold the indexes that its manifest names", manifest.object)
