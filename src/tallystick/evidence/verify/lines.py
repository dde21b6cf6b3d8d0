"""The content behind the leaves: every line of the archive and of the journal against the tree it claims to be in."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from tallystick.errors import IntegrityError, NotFoundError, TallystickError
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.heads import Head
from tallystick.evidence.manifest import Manifest, indexes_digest, open_manifest, read_manifest
from tallystick.evidence.merkle import HASH_BYTES
from tallystick.evidence.note import VerifierKey
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify.groups import SEALED_MARK, groups_of
from tallystick.evidence.verify.report import Report


class ChunkSource(Protocol):
    """How the archive lets its chunks be checked; it lies on a floor above this one. Names are paths below the store."""

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        """(name, note) of every manifest in the store."""

    def names(self) -> Iterator[str]:
        """Every chunk that the store or the catalog lists."""

    def counted(self) -> set[str]:
        """Those that the catalog counts on: what searches read."""

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
        self.groups: Counter[tuple[str, str, str]] = Counter()
        """Sealed groups found behind their leaves, by person, class and month."""

    def holds(self, first: int, lines: Sequence[bytes]) -> bool:
        """True when ``lines`` are the leaves from ``first`` on, all under the head; otherwise nothing is noted, and `check` says more."""
        if not lines or first + len(lines) > self.size or event_hashes(lines) != self.tree.hashes(0, first, len(lines)):
            return False
        self._note(range(first, first + len(lines)), lines)
        self.seen[first : first + len(lines)] = b"\x01" * len(lines)
        return True

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
        if made == stored:
            self._note(indexes, lines)
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

    def _note(self, indexes: Sequence[int] | range, lines: Sequence[bytes]) -> None:
        """Count the sealed groups of lines that were not seen before."""
        for index, line in zip(indexes, lines, strict=True):
            if SEALED_MARK in line and not self.seen[index]:
                for group in groups_of(line):
                    self.groups[group] += 1

    def unseen(self) -> Iterator[tuple[int, int]]:
        """(first, count) of each run of leaves without a line."""
        start = self.seen.find(0)
        while start >= 0:
            end = self.seen.find(1, start)
            end = len(self.seen) if end < 0 else end
            yield start, end - start
            start = self.seen.find(0, end)


def check_chunks(
    source: ChunkSource,
    trees: dict[str, EventTree],
    keys: Sequence[VerifierKey],
    report: Report,
    *,
    is_open: bool = True,
    expired: Collection[str] = (),
) -> int:
    """Manifests, chunks as stored, and (``is_open``) the lines in them. Returns the number of chunks that hold. Adds problems.

    Chunks whose ids are in ``expired`` were let go by entries that are believed: their manifests stay, they themselves need not.
    """
    return _ChunkCheck(source, trees, keys, report, is_open, expired).run()


class _ChunkCheck:
    """All chunks, the merged ones before those they replace.

    A chunk that was merged into another stays a while for the searches that run. Its bytes are held against its manifest; its
    lines are read only when the catalog counts on it, or the merged chunk does not hold or leaves out a part of it.
    """

    def __init__(
        self,
        source: ChunkSource,
        trees: dict[str, EventTree],
        keys: Sequence[VerifierKey],
        report: Report,
        is_open: bool,
        expired: Collection[str],
    ) -> None:
        self._source = source
        self._trees = trees
        self._keys = keys
        self._report = report
        self._is_open = is_open
        self._expired = expired
        self._counted = source.counted()
        self._manifests: dict[str, Manifest] = {}
        self._heirs: dict[str, Manifest] = {}
        self._held: set[str] = set()

    def run(self) -> int:
        names = set(self._source.names())
        waiting = self._learn()
        for name in sorted(names - set(self._manifests)):
            _check_orphan(self._source, name, self._report)
        while waiting:
            name = waiting.pop(0)
            before = len(self._report.problems)
            manifest = self._manifests[name]
            if manifest.chunk_id in self._expired:
                continue
            try:
                size, digest = self._source.digest(name)
            except NotFoundError as error:
                if manifest.chunk_id not in self._heirs:  # perhaps merged since the manifests were listed
                    waiting += self._learn()
                if manifest.chunk_id not in self._heirs:
                    self._fail(manifest, f"is missing: {error.message}")
                continue
            if (size, digest) != (manifest.size, manifest.sha256):
                self._fail(manifest, "is not the one its manifest names")
            elif self._is_open and not self._is_covered(manifest):
                _check_chunk(self._source, manifest, self._trees, self._report)
            if len(self._report.problems) == before:
                self._held.add(manifest.chunk_id)
        return len(self._held)

    def _learn(self) -> list[str]:
        """Read the manifests that are new; the names of their chunks, in the order in which they are to be checked."""
        found = _read_manifests(self._source, self._keys, self._report)
        fresh = {name: manifest for name, manifest in found.items() if name not in self._manifests}
        self._manifests |= fresh
        self._heirs |= {chunk_id: manifest for manifest in fresh.values() for chunk_id in manifest.replaces}
        return sorted(fresh, key=lambda name: (self._merges_since(fresh[name]), name))

    def _merges_since(self, manifest: Manifest) -> int:
        """How many merges a chunk is behind: 0 for one in force. Bounded, as manifests may name each other in a ring."""
        count = 0
        while manifest.chunk_id in self._heirs and count <= len(self._heirs):
            manifest, count = self._heirs[manifest.chunk_id], count + 1
        return count

    def _is_covered(self, manifest: Manifest) -> bool:
        """True when the chunk that this one was merged into holds, and nothing reads this one any more."""
        heir = self._heirs.get(manifest.chunk_id)
        if heir is None or heir.chunk_id not in self._held or manifest.object in self._counted:
            return False
        return heir.origin == manifest.origin and heir.first <= manifest.first <= manifest.last <= heir.last

    def _fail(self, manifest: Manifest, what: str) -> None:
        self._report.fail(f"a chunk with the indexes {manifest.first} to {manifest.last} {what}", manifest.object)


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
    indexes = array("Q")
    try:
        for batch, lines in source.lines(manifest.object):
            tree.check(batch, lines, manifest.object, report)
            indexes.extend(batch)
    except IntegrityError as error:
        report.fail(f"a chunk does not open: {error.message}", manifest.object)
        return
    if len(indexes) != manifest.count or indexes_digest(indexes) != manifest.indexes_sha256:
        report.fail("a chunk does not hold the indexes that its manifest names", manifest.object)
