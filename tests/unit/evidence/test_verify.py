"""Verification finds and names each kind of damage, and says what it has not proven."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tallystick.errors import NotFoundError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.heads import Heads
from tallystick.evidence.manifest import Manifest, indexes_digest, manifest_key_name, sign_manifest
from tallystick.evidence.origin import event_origin, tree_dir
from tallystick.evidence.policy import Policy
from tallystick.evidence.verify.absence import Excuses
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import Quotes, RootView
from tallystick.journal.frame import Frame
from tallystick.journal.reader import JournalReader
from unit.evidence.conftest import SERVER, Installation

Lines = Callable[[int], list[bytes]]


class MemoryArchive:
    """Chunks of joined lines in memory, with signed manifests."""

    def __init__(self, installation: Installation, handle: str) -> None:
        self._installation = installation
        self._handle = handle
        self.chunks: dict[str, bytes] = {}
        self.indexes: dict[str, Sequence[int]] = {}
        self.notes: dict[str, bytes] = {}
        self.current: list[str] = []
        self.opened: list[str] = []

    def add(self, indexes: Sequence[int], lines: Sequence[bytes], replaces: tuple[str, ...] = ()) -> str:
        number = len(self.notes)
        name = f"{self._handle}/standard/{number}.parquet"
        data = b"\n".join(lines)
        manifest = Manifest(
            event_origin(SERVER, self._handle), f"{number:032x}", name, "standard", indexes[0], indexes[-1], len(indexes),
            indexes_digest(indexes), len(data), hashlib.sha256(data).hexdigest(), replaces,
        )  # fmt: skip
        key = self._installation.keys.signing_key(manifest_key_name(SERVER))
        self.chunks[name], self.indexes[name] = data, indexes
        self.notes[name] = sign_manifest(manifest, manifest_key_name(SERVER), key).encode()
        return name

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        return iter([(name.replace("parquet", "manifest"), note) for name, note in self.notes.items()])

    def names(self) -> Iterator[str]:
        return iter(list(self.chunks))

    def counted(self) -> set[str]:
        return set(self.current)

    def digest(self, name: str) -> tuple[int, str]:
        if name not in self.chunks:
            raise NotFoundError("no such object", place=name)
        return len(self.chunks[name]), hashlib.sha256(self.chunks[name]).hexdigest()

    def lines(self, name: str) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        self.opened.append(name)
        yield self.indexes[name], self.chunks[name].split(b"\n")


@pytest.fixture
def sealed(installation: Installation, lines: Lines) -> tuple[Installation, str, list[bytes]]:
    """700 events, an account tree and a root log, sealed; the writer has ended."""
    made = lines(700)
    handle = installation.write("acme", made[:300], account=[{"type": "delivery", "destination": "lake"}], filtered=2)
    installation.seal()
    installation.write("acme", made[300:])
    installation.seal()
    installation.close_journal()
    return installation, handle, made


def flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def found(installation: Installation, **changes: Any) -> list[tuple[str, str]]:
    report = installation.verify(**changes)
    assert report.status == 4, report
    return [(problem.message, problem.place) for problem in report.problems]


def test_whole_directory_verifies(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """Nothing wrong: status 0, every event found behind its leaf, tier `remembered head`, nine steps told."""
    report = sealed[0].verify()
    assert (report.status, report.events, report.tier) == (0, 700, "remembered head"), report
    assert [step.number for step in report.steps] == list(range(1, 10))


def test_without_key_or_head_it_says_what_is_not_proven(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """Each thing the caller does not bring is named, and the status is 5, not 0."""
    installation = sealed[0]
    for changes, word in (
        ({"public_key": None}, "signer"),
        ({"remembered": None}, "freshness"),
        ({"journal": None}, "content"),
    ):
        report = installation.verify(**changes)
        assert report.status == 5, report
        assert any(text.startswith(word) for text in report.not_proven)
    assert installation.verify(remembered=None).tier == "signer"


def test_every_flipped_byte_of_level_files_is_named(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """One flipped bit in any level file is found, and the place names that file."""
    installation, _, _ = sealed
    for path in sorted((installation.data_dir / "trees").rglob("level-*")):
        size = path.stat().st_size
        for offset in {0, size // 2, size - 1}:
            flip(path, offset)
            problems = found(installation)
            assert any(str(path) in place for _, place in problems), (path, offset, problems)
            flip(path, offset)
    assert installation.verify().status == 0


def test_flipped_bit_in_a_head_is_named(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """One flipped bit anywhere in the heads file, or in the remembered head, is found and named."""
    installation, _, _ = sealed
    path = installation.data_dir / "trees" / "heads"
    size = path.stat().st_size
    for offset in [*range(0, size, 97), size - 1]:
        flip(path, offset)
        assert any(str(path) in place for _, place in found(installation)), offset
        flip(path, offset)
    remembered = (installation.keys_dir / "heads").read_text()
    assert found(installation, remembered=remembered.replace("\nA", "\nB").replace("root\n1", "root\n9"))


def test_flipped_bit_in_a_segment_is_named(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """One flipped bit in any frame, or in the header, names segment and bytes."""
    installation, _, _ = sealed
    reader = JournalReader(installation.data_dir, installation.keys)
    frames = [item for item in reader.read(reader.oldest())[0] if isinstance(item, Frame)]
    (path,) = (installation.data_dir / "journal").glob("*.seg")
    for offset in [frame.offset + frame.size // 2 for frame in frames] + [20, frames[0].offset, frames[0].offset + 9]:
        flip(path, offset)
        assert any(str(path) in place for _, place in found(installation)), offset
        flip(path, offset)


def test_flipped_bit_in_account_entries_is_named(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """A changed account entry or root entry is named by its number."""
    installation, handle, _ = sealed
    for name in (f"{handle}/account", "root"):
        path = installation.data_dir / "trees" / name / "entries"
        for offset in (0, 30, path.stat().st_size - 3):
            flip(path, offset)
            assert any(str(path) in place for _, place in found(installation)), (name, offset)
            flip(path, offset)


def test_cut_trees_and_missing_files_are_named(sealed: tuple[Installation, str, list[bytes]], tmp_path: Path) -> None:
    """A level file, entry file or heads file that was cut or removed is found and named."""
    installation, handle, _ = sealed
    trees = installation.data_dir / "trees"
    shutil.copytree(trees, tmp_path / "kept")
    for name in (f"{handle}/level-0", f"{handle}/level-1", f"{handle}/account/entries", "root/level-0", "root/entries"):
        path = trees / name
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2 // 32 * 32])
        assert any(str(path) in place for _, place in found(installation)), name
        path.unlink()
        assert any(str(path.parent) in place for _, place in found(installation)), name
        path.write_bytes(kept)
    heads = trees / "heads"
    kept = heads.read_bytes()
    heads.write_bytes(kept[: kept.rindex(b"\n", 0, -1) + 1])
    assert any("older than what was signed" in message for message, _ in found(installation))
    heads.unlink()
    assert any(str(heads) in place for _, place in found(installation))


def test_rolled_back_directory_is_found_against_the_remembered_head(
    installation: Installation, lines: Lines, tmp_path: Path
) -> None:
    """An older copy is consistent in itself; only the remembered head shows that it is old."""
    installation.write("acme", lines(5))
    installation.seal()
    installation.close_journal()
    shutil.copytree(installation.data_dir, tmp_path / "older")
    older_head = (installation.keys_dir / "heads").read_text()
    installation.write("acme", lines(5))
    installation.seal()
    installation.close_journal()
    shutil.rmtree(installation.data_dir)
    shutil.copytree(tmp_path / "older", installation.data_dir)
    assert any("older than what was signed" in message for message, _ in found(installation))
    assert installation.verify(remembered=older_head).status == 0


def test_archive_chunks_back_the_leaves(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """With the journal retired, interleaved chunks back every leaf; a removed or changed chunk is named."""
    installation, handle, made = sealed
    archive = MemoryArchive(installation, handle)
    even, odd = range(0, 700, 2), range(1, 700, 2)
    first = archive.add(even, made[::2])
    second = archive.add(odd, made[1::2])
    nothing = EmptyJournal()
    report = installation.verify(chunks=archive, journal=nothing)
    assert (report.status, report.events) == (0, 700), report
    kept = archive.chunks[second]
    archive.chunks[second] = kept[:100] + bytes([kept[100] ^ 1]) + kept[101:]
    assert any(place == second for _, place in found(installation, chunks=archive, journal=nothing))
    del archive.chunks[second]
    problems = found(installation, chunks=archive, journal=nothing)
    assert any(place == second and "missing" in message for message, place in problems)
    assert any("indexes 1 to 1," in message for message, _ in problems)
    assert any("is missing" in message for message, _ in found(installation, chunks=archive)), (
        "also while the journal has the lines"
    )
    archive.chunks[second] = kept
    del archive.notes[first]
    assert any("indexes 0 to 0," in message for message, _ in found(installation, chunks=archive, journal=nothing))
    assert any(first in note for note in installation.verify(chunks=archive).notes)


def test_replaced_chunks_may_be_gone(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """After a merge the old chunks' manifests may stay without their chunks, because the new one names them."""
    installation, handle, made = sealed
    archive = MemoryArchive(installation, handle)
    old = [archive.add(range(350), made[:350]), archive.add(range(350, 700), made[350:])]
    archive.add(range(700), made, (f"{0:032x}", f"{1:032x}"))
    for name in old:
        del archive.chunks[name]
    assert installation.verify(chunks=archive, journal=EmptyJournal()).status == 0


def test_replaced_chunks_are_opened_only_when_the_merged_one_does_not_hold(
    sealed: tuple[Installation, str, list[bytes]],
) -> None:
    """While old chunks wait for their deletion their bytes are checked; their lines only where the merged chunk fails or is short."""
    installation, handle, made = sealed
    archive = MemoryArchive(installation, handle)
    old = [archive.add(range(350), made[:350]), archive.add(range(350, 700), made[350:])]
    middle = archive.add(range(350), made[:350], (f"{0:032x}",))
    merged = archive.add(range(700), made, (f"{1:032x}", f"{2:032x}"))
    assert installation.verify(chunks=archive, journal=EmptyJournal()).status == 0
    assert archive.opened == [merged], "also what the merged chunk replaces at second hand stays shut"
    archive.chunks[old[1]] += b"x"
    assert found(installation, chunks=archive, journal=EmptyJournal()) == [
        ("a chunk with the indexes 350 to 699 is not the one its manifest names", old[1])
    ]
    archive.chunks[old[1]] = archive.chunks[old[1]][:-1]
    archive.chunks[merged] += b"x"
    archive.opened.clear()
    problems = found(installation, chunks=archive, journal=EmptyJournal())
    assert [place for _, place in problems] == [merged], "the old chunks still have every line"
    assert sorted(archive.opened) == sorted([middle, old[1]])
    archive.notes.pop(merged)
    archive.chunks.pop(merged)
    archive.opened.clear()
    archive.add(range(350, 699), made[350:699], (f"{1:032x}",))
    assert installation.verify(chunks=archive, journal=EmptyJournal()).status == 0
    assert old[1] in archive.opened, "a merged chunk that leaves out a line does not stand for the old one"


def test_what_the_catalog_counts_on_is_opened_whatever_a_manifest_says(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """A forged chunk that is still read is found, although a signed manifest says that it was replaced; also in a ring of such."""
    installation, handle, made = sealed
    archive = MemoryArchive(installation, handle)
    forged = archive.add(range(700), [b"{}", *made[1:]], (f"{1:032x}",))
    archive.add(range(700), made, (f"{0:032x}",))
    archive.current = [forged]
    assert found(installation, chunks=archive) == [
        (f"the line of index 0 is not the one in the tree of {event_origin(SERVER, handle)}", forged)
    ]


def test_a_wrong_line_among_small_frames_is_named(installation: Installation, lines: Lines) -> None:
    """Small frames are checked together; one whose line is not its leaf is still named, with its index, and it alone."""
    made = lines(40)
    for line in made:
        handle = installation.write("acme", [line])
    installation.seal()
    installation.close_journal()
    assert installation.verify().events == 40
    path = installation.data_dir / "trees" / handle / "level-0"
    flip(path, 32 * 17)
    problems = found(installation)
    assert [message for message, place in problems if place.startswith("segment ")] == [
        f"the line of index 17 is not the one in the tree of {event_origin(SERVER, handle)}"
    ]


def test_a_chunk_with_another_line_is_found_although_signed(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """A changed line under a manifest signed anew is still not the leaf: the index is named."""
    installation, handle, made = sealed
    archive = MemoryArchive(installation, handle)
    name = archive.add(range(700), [*made[:41], b'{"forged":1}', *made[42:]])
    assert any("index 41 is" in message and place == name for message, place in found(installation, chunks=archive))


def test_expiry_excuses_only_what_stands_to_reason(installation: Installation, lines: Lines) -> None:
    """An expiry without a policy in the root log excuses nothing and is itself a problem."""
    made = lines(20)
    entry = {"type": "expiry", "at": "2030-01-01T00:00:00Z", "class": "standard", "period": "1d", "ranges": [[0, 10]]}
    handle = installation.write("acme", made, account=[entry])
    installation.seal()
    installation.close_journal()
    archive = MemoryArchive(installation, handle)
    archive.add(range(10, 20), made[10:])
    problems = found(installation, chunks=archive, journal=EmptyJournal())
    assert any("not plausible" in message for message, _ in problems)
    assert any("indexes 0 to 9" in message for message, _ in problems)


def test_plausible_expiry_excuses_its_ranges() -> None:
    """With policy and heartbeats that bear it out, an expiry is believed; each thing that contradicts it makes it a problem."""

    def doubts(**changes: Any) -> list[str]:
        view = RootView(
            quotes={"h": Quotes([2], [20], [bytes(32)]), "h/account": Quotes([8], [1], [bytes(32)])},
            beats=[
                (1, "2026-01-01T00:00:00Z"),
                (3, "2026-01-01T00:01:00Z"),
                (7, "2026-01-02T00:02:00Z"),
                (9, "2026-01-02T00:04:00Z"),
            ],
            policies={
                0: ("2026-01-01T00:00:00Z", Policy({"standard": "1d"})),
                5: ("2026-01-02T00:01:00Z", Policy({"standard": "1h"}, {"i": {"standard": "2h"}})),
            },
        )
        ranges = [[0, 10], [10, 5]]
        entry = {"type": "expiry", "at": "2026-01-02T00:03:00Z", "policy": 0, "class": "standard", "period": "1d", "ranges": ranges}
        excuses, report = Excuses("h", view), Report()
        excuses.take(0, {**entry, **changes}, "here", report)
        assert excuses.covers(3, 12) is (not report.problems)
        assert not excuses.covers(3, 13)
        return [problem.message for problem in report.problems]

    assert doubts() == []
    assert doubts(period="1h", policy=5) == []
    assert "was 1d, not 1h" in doubts(period="1h")[0]
    assert "none" in doubts(policy=3)[0]
    assert "was replaced at" in doubts(at="2026-01-02T00:07:00Z")[0]
    assert "none" in doubts(**{"class": "other"})[0]
    assert "had not passed" in doubts(at="2026-01-01T23:59:00Z")[0]
    assert "before the time" in doubts(at="2026-01-02T00:05:00Z")[0]
    assert "does not show" in doubts(ranges=[[15, 10]])[0]
    assert "empty or negative" in doubts(ranges=[[15, 0]])[0]
    assert "cannot be read" in doubts(ranges=[["x", 1]])[0]
    assert "cannot be read" in doubts(at="soon")[0]


def test_quoted_heads_are_the_tenants_heads(sealed: tuple[Installation, str, list[bytes]]) -> None:
    """Each head that readers see is quoted verbatim in the root log, at the index the heads file gives."""
    installation, handle, _ = sealed
    heads = Heads(installation.data_dir)
    rooted = heads.rooted(event_origin(SERVER, handle))
    assert rooted is not None
    assert rooted[0] == heads.head(event_origin(SERVER, handle))
    root = AccountLog(tree_dir(installation.data_dir, "root"))
    assert rooted[0].note.encode().replace(b"\n", b"\\n") in root.entry(rooted[1])


class EmptyJournal(JournalReader):
    """A journal whose segments were all retired."""

    def __init__(self) -> None: ...

    def mark(self) -> Any:
        return type("Mark", (), {"seq": 0})

    def oldest(self) -> Any:
        return type("Position", (), {"seq": 10**9})

    def read(self, position: Any, max_bytes: int = 0) -> Any:
        return [], position
