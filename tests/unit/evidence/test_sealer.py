"""The sealer over a real journal: what it signs, what it refuses to sign, and a crash at every durable step."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tallystick import durable
from tallystick.errors import CheckpointError, LockedError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.checkpoint import open_checkpoint
from tallystick.evidence.entry import read_entry
from tallystick.evidence.heads import Heads
from tallystick.evidence.merkle import check_consistency, leaf_hash, tree_root
from tallystick.evidence.origin import event_origin, root_origin, tree_dir
from tallystick.evidence.trees import TreeFiles
from tallystick.journal.frame import Frame
from tallystick.journal.reader import JournalReader
from unit.evidence.conftest import SERVER, Installation

Lines = Callable[[int], list[bytes]]


class StoppedError(Exception):
    """The process ends here, as by kill -9."""


def test_one_round_signs_events_accounts_and_root(installation: Installation, lines: Lines) -> None:
    """The event head has the root of the lines' hashes; the account head its entries; the root log quotes both, keys first."""
    made = lines(300)
    handle = installation.write("acme", made, account=[{"type": "delivery", "destination": "lake"}], filtered=3)
    installation.seal()
    heads = Heads(installation.data_dir)
    head = heads.head(event_origin(SERVER, handle))
    assert head is not None
    assert (head.size, head.root) == (300, tree_root([leaf_hash(line) for line in made]))
    entries = AccountLog(tree_dir(installation.data_dir, f"{handle}/account"))
    kinds = [read_entry(entry) for entry in entries.entries(0, entries.count)]
    assert sorted(entry["type"] for entry in kinds) == ["delivery", "filter", "filter"]
    assert {entry.get("outcome"): entry["count"] for entry in kinds if entry["type"] == "filter"} == {
        "filtered": 3,
        "quarantined": 1,
    }
    assert len({entry["salt"] for entry in kinds}) == 3
    root = AccountLog(tree_dir(installation.data_dir, "root"))
    quoted = [read_entry(entry) for entry in root.entries(0, root.count)]
    keys = {entry["name"]: number for number, entry in enumerate(quoted) if entry["type"] == "key"}
    notes = {entry["note"]: number for number, entry in enumerate(quoted) if entry["type"] == "checkpoint"}
    assert notes[head.note] > keys[head.origin]
    assert {f"{SERVER}/receipt", f"{SERVER}/manifest"} < set(keys)
    assert [entry["type"] for entry in quoted].count("config") == 1
    vkey = (installation.keys_dir / "root.vkey").read_text().strip()
    remembered = open_checkpoint((installation.keys_dir / "heads").read_text(), [vkey])
    assert (remembered.origin, remembered.size) == (root_origin(SERVER), root.count)
    assert b"secret" not in b"".join(path.read_bytes() for path in installation.data_dir.glob("trees/**/*") if path.is_file())
    assert installation.verify().status == 0


def test_later_rounds_extend_earlier_heads(installation: Installation, lines: Lines) -> None:
    """Each head's tree is a prefix of the next one's, over restarts and new segments."""
    seen = []
    for count in (1, 255, 1, 600):
        handle = installation.write("acme", lines(count))
        installation.seal()
        head = Heads(installation.data_dir).head(event_origin(SERVER, handle))
        assert head is not None
        seen.append(head)
    tree = TreeFiles(tree_dir(installation.data_dir, handle))
    for old, new in itertools.pairwise(seen):
        check_consistency(old.size, new.size, old.root, new.root, tree.consistency(old.size, new.size))
    assert seen[-1].size == 857
    assert installation.verify().status == 0


def test_a_round_without_news_writes_nothing(installation: Installation, lines: Lines) -> None:
    """Sealing again signs no head and grows no file."""
    installation.write("acme", lines(5))
    installation.seal()
    before = {path: path.read_bytes() for path in (installation.data_dir / "trees").rglob("*") if path.is_file()}
    sealer = installation.sealer()
    sealer._last_heartbeat = 1e18
    assert not sealer.seal()
    assert not sealer.seal()
    sealer.stop()
    assert {path: path.read_bytes() for path in before} == before


def test_only_one_sealer(installation: Installation) -> None:
    """A second sealer of the same data directory is refused."""
    sealer = installation.sealer()
    with pytest.raises(LockedError):
        installation.sealer()
    sealer.stop()


def test_crash_at_every_durable_step(installation: Installation, lines: Lines) -> None:
    """Whatever the step the process dies at, the next start ends with the same tree, extends every published head, and verifies."""
    written: list[bytes] = []
    published: dict[str, list[tuple[int, bytes]]] = {}
    step = 0
    while True:
        batch = lines(13)
        handle = installation.write("acme", batch, account=[{"type": "open", "n": step}], filtered=step % 2)
        written += batch
        sealer = installation.sealer()
        durable.set_observer(_stop_after(step))
        try:
            while sealer.seal():
                pass
            sealer.stop()
            reached_end = True
        except StoppedError:
            reached_end = False
            durable.set_observer(None)
            sealer.close()
        durable.set_observer(None)
        _remember_published(installation, published)
        step += 1
        if reached_end:
            break
    installation.seal()
    _remember_published(installation, published)
    assert step > 15, "the loop must have died at many different steps"
    tree = TreeFiles(tree_dir(installation.data_dir, handle))
    assert tree.root(len(written)) == tree_root([leaf_hash(line) for line in written])
    for name, heads in published.items():
        files = TreeFiles(tree_dir(installation.data_dir, name))
        for size, root in heads:
            assert files.root(size) == root, f"{name} forked at {size}"
    report = installation.verify()
    assert report.status == 0, report.problems
    assert report.events == len(written)


def _stop_after(step: int) -> durable.files.Observer:
    """An observer that ends the process at durable step ``step`` of this thread (the writer goes on in its own)."""
    left = iter(range(step))
    this_thread = threading.get_ident()

    def stop(operation: str, path: Path | None, fd: int) -> None:
        if threading.get_ident() == this_thread and next(left, None) is None:
            raise StoppedError(operation)

    return stop


def _remember_published(installation: Installation, published: dict[str, list[tuple[int, bytes]]]) -> None:
    for name, head in Heads(installation.data_dir).state.heads.items():
        published.setdefault(name, []).append((head.size, head.root))


def test_power_cut_that_keeps_heads_and_loses_level_files(installation: Installation, lines: Lines) -> None:
    """Level files and account entries that were never synced come back from the journal, as the same trees."""
    handle = installation.write("acme", lines(700), account=[{"type": "open"}])
    sealer = installation.sealer()
    sealer.seal()
    head = Heads(installation.data_dir).head(event_origin(SERVER, handle))
    sealer.close()
    for path in (installation.data_dir / "trees" / handle).rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * (path.stat().st_size // 2))
    installation.seal()
    assert head is not None
    assert TreeFiles(tree_dir(installation.data_dir, handle)).root(700) == head.root
    assert installation.verify().status == 0


def test_changed_leaf_stops_signing(installation: Installation, lines: Lines) -> None:
    """When a stored hash under a signed head changes, the next round signs nothing and names the tree."""
    handle = installation.write("acme", lines(10))
    installation.seal()
    level = installation.data_dir / "trees" / handle / "level-0"
    level.write_bytes(b"\xff" + level.read_bytes()[1:])
    installation.write("acme", lines(10))
    sealer = installation.sealer()
    with pytest.raises(CheckpointError, match="does not extend"):
        sealer.seal()
    sealer.close()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" + data[1:]], ids=["cut", "changed"])
def test_a_damaged_upper_level_is_made_anew(installation: Installation, lines: Lines, damage: Callable[[bytes], bytes]) -> None:
    """Levels above the leaves follow from them: sealing goes on over the same roots, and verify passes."""
    handle = installation.write("acme", lines(700))
    installation.seal()
    level = installation.data_dir / "trees" / handle / "level-1"
    whole = level.read_bytes()
    level.write_bytes(damage(whole))
    installation.write("acme", lines(10))
    installation.seal()
    assert level.read_bytes() == whole
    assert installation.verify().status == 0


def test_rolled_back_data_is_not_signed_on(installation: Installation, lines: Lines, tmp_path: Path) -> None:
    """With an older copy of the data under newer keys, the sealer refuses to start and says why."""
    installation.write("acme", lines(3))
    installation.seal()
    installation.close_journal()
    shutil.copytree(installation.data_dir, tmp_path / "copy")
    installation.write("acme", lines(3))
    installation.seal()
    installation.close_journal()
    shutil.rmtree(installation.data_dir)
    shutil.copytree(tmp_path / "copy", installation.data_dir)
    with pytest.raises(CheckpointError, match="was signed"):
        installation.sealer()


def test_lost_root_head_is_found_again(installation: Installation, lines: Lines) -> None:
    """When the heads file lost its last line, the root log goes on behind the remembered head instead of forking."""
    installation.write("acme", lines(3))
    installation.seal()
    heads = installation.data_dir / "trees" / "heads"
    kept = heads.read_bytes().split(b"\n")[0] + b"\n"
    remembered = (installation.keys_dir / "heads").read_text()
    heads.write_bytes(kept)
    installation.write("acme", lines(3))
    installation.seal()
    assert installation.verify(remembered=remembered).status == 0


def test_hole_in_the_journal_becomes_lost_leaves(installation: Installation, lines: Lines) -> None:
    """Events that the journal lost before they were sealed are declared, sealing goes on, and verify fails for good."""
    handle = installation.write("acme", lines(4))
    installation.write("acme", lines(4))
    installation.write("acme", lines(4))
    frames, _ = JournalReader(installation.data_dir, installation.keys).read(
        JournalReader(installation.data_dir, installation.keys).oldest()
    )
    frame = next(frame for frame in frames if isinstance(frame, Frame) and frame.first_index == 4)
    (segment,) = (installation.data_dir / "journal").glob("*.seg")
    with segment.open("r+b") as file:
        file.seek(frame.offset + 70)
        file.write(b"\xff\xff")
    installation.seal()
    heads = Heads(installation.data_dir)
    assert heads.sealed_size(handle) == 12
    tree = TreeFiles(tree_dir(installation.data_dir, handle))
    assert tree.leaf(5) == leaf_hash(b"tallystick.lost/v1 5")
    report = installation.verify()
    assert report.status == 4
    assert any("declared" in problem.message and "4 to 7" in problem.message for problem in report.problems)
    assert any(segment.name in problem.place for problem in report.problems)


def test_lost_cursor_and_retired_journal_overwrite_nothing(installation: Installation, lines: Lines) -> None:
    """With both copies of the cursor gone and old segments retired, stored leaves are kept and the tree goes on behind them."""
    old, new = lines(700), lines(10)
    handle = installation.write("acme", old, account=[{"type": "open"}])
    installation.write("quiet", lines(3))
    installation.seal()
    installation.close_journal()
    (segment,) = (installation.data_dir / "journal").glob("*.seg")
    installation.write("acme", new)
    segment.unlink()
    for slot in (installation.data_dir / "cursors").glob("sealer.*"):
        slot.unlink()
    installation.seal()
    tree = TreeFiles(tree_dir(installation.data_dir, handle))
    assert tree.root(710) == tree_root([leaf_hash(line) for line in old + new])
    assert Heads(installation.data_dir).sealed_size(handle) == 710


def test_damage_behind_the_cursor_leaves_sealed_leaves_alone(installation: Installation, lines: Lines) -> None:
    """A frame that is damaged after its events were sealed does not turn them into lost leaves at the next start."""
    made = lines(8)
    handle = installation.write("acme", made[:4])
    installation.write("acme", made[4:])
    sealer = installation.sealer()
    sealer.seal()
    sealer.close()
    (segment,) = (installation.data_dir / "journal").glob("*.seg")
    reader = JournalReader(installation.data_dir, installation.keys)
    frame = next(item for item in reader.read(reader.oldest())[0] if isinstance(item, Frame) and item.first_index == 0)
    with segment.open("r+b") as file:
        file.seek(frame.offset + 70)
        file.write(b"\xff\xff")
    installation.seal()
    tree = TreeFiles(tree_dir(installation.data_dir, handle))
    assert tree.root(8) == tree_root([leaf_hash(line) for line in made])
