"""The file of signed heads: what readers see and when, torn tails, damage, compaction."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.durable import set_observer
from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.heads import Heads, HeadsFile, Round, heads_path

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def note(name: str, size: int) -> str:
    return sign_checkpoint(Checkpoint(f"s/log/{name}", size, bytes([size % 256]) * 32), KEY)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def test_readers_see_heads_only_when_published(data_dir: Path) -> None:
    """A synced line stays unseen until it is published; then one refresh shows it, and the next has nothing new."""
    writer = HeadsFile(data_dir)
    writer.append(Round(7, [note("a", 3)]))
    reader = Heads(data_dir)
    assert reader.head("s/log/a") is None
    writer.publish()
    assert reader.refresh()
    assert not reader.refresh()
    head = reader.head("s/log/a")
    assert head is not None
    assert (head.size, head.mark, head.note) == (3, 7, note("a", 3))
    assert reader.head("other/log/a") is None
    writer.append(Round(9, [note("a", 5), note("a/account", 1), note("root", 2)], [("a", 1)]))
    writer.publish()
    assert reader.refresh()
    assert reader.sealed_size("a") == 5
    assert reader.sealed_sizes() == {"a": 5}
    assert reader.mark() == 9
    rooted = reader.rooted("s/log/a")
    assert rooted is not None
    assert (rooted[0].size, rooted[1]) == (5, 1)
    writer.close()


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_torn_tail_is_cut_and_the_rest_kept(data_dir: Path, cut: int) -> None:
    """A last line that was not written to its end costs that line alone."""
    writer = HeadsFile(data_dir)
    writer.append(Round(1, [note("a", 3)]))
    writer.append(Round(2, [note("a", 4)]))
    writer.close()
    path = heads_path(data_dir)
    path.write_bytes(path.read_bytes()[:-cut])
    again = HeadsFile(data_dir)
    assert again.state.heads["a"].size == 3
    again.append(Round(3, [note("a", 6)]))
    again.publish()
    again.close()
    assert Heads(data_dir).sealed_size("a") == 6


def test_damaged_line_is_passed_over_and_reported(data_dir: Path) -> None:
    """A flipped bit costs its line; later heads still stand, and the damage is listed with its offset."""
    writer = HeadsFile(data_dir)
    writer.append(Round(1, [note("a", 3)]))
    start = heads_path(data_dir).stat().st_size
    writer.append(Round(2, [note("b", 4)]))
    writer.append(Round(3, [note("a", 5)]))
    writer.publish()
    writer.close()
    path = heads_path(data_dir)
    data = bytearray(path.read_bytes())
    data[start + 40] ^= 4
    path.write_bytes(data)
    again = HeadsFile(data_dir)
    assert [damage.start for damage in again.damaged] == [start]
    assert set(again.state.heads) == {"a"}
    again.close()
    assert Heads(data_dir).sealed_size("a") == 5


def test_compaction_keeps_the_state_and_readers_follow(data_dir: Path) -> None:
    """A file that has grown is replaced by a short one that leads to the same state, also for a reader in between."""
    writer = HeadsFile(data_dir, compact_bytes=4000)
    reader = Heads(data_dir)
    for size in range(1, 60):
        writer.append(Round(size, [note("a", size)], [("a", size)] if size % 10 == 0 else []))
        writer.append(Round(size, [note("root", size)], keys=[f"k{size % 3}"], config="c"))
        writer.publish()
        reader.refresh()
        assert reader.sealed_size("a") == size
    assert heads_path(data_dir).stat().st_size < 8000
    before = writer.state
    writer.close()
    again = HeadsFile(data_dir)
    assert (again.state.heads, again.state.rooted) == (before.heads, before.rooted)
    assert (again.state.keys, again.state.config) == ({"k0", "k1", "k2"}, "c")
    assert [head.size for head in again.state.unrooted()] == [59]
    assert again.state.rooted["a"][1] == 50
    again.close()


def test_offline_reader_needs_no_mark(data_dir: Path) -> None:
    """At a start, or on a copy without `run/`, every whole round counts."""
    writer = HeadsFile(data_dir)
    writer.append(Round(4, [note("a", 3)]))
    writer.close()
    assert Heads(data_dir).sealed_sizes() == {}
    assert Heads(data_dir, unpublished=True).sealed_sizes() == {"a": 3}


def test_damaged_first_line_stops_nobody(data_dir: Path) -> None:
    """With its first line damaged the file still gives its heads at a start, and the sealer writes it anew."""
    writer = HeadsFile(data_dir)
    writer.append(Round(4, [note("a", 3)]))
    writer.close()
    path = heads_path(data_dir)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert Heads(data_dir, unpublished=True).sealed_sizes() == {"a": 3}
    again = HeadsFile(data_dir)
    assert [damage.start for damage in again.damaged] == [0]
    again.publish()
    again.append(Round(5, [note("a", 4)]))
    again.publish()
    again.close()
    assert Heads(data_dir).sealed_size("a") == 4
    third = HeadsFile(data_dir)
    assert third.damaged == []
    third.close()


def test_a_file_whose_sync_failed_is_written_anew(data_dir: Path) -> None:
    """A later sync of it proves nothing: before anybody sees a head, all of them are in a file of their own, synced."""
    writer = HeadsFile(data_dir)
    writer.append(Round(4, [note("a", 3)]))
    with pytest.raises(OSError, match="injected"), failing("sync_data"):
        writer.append(Round(5, [note("a", 4)]))
    writer.close()
    old = heads_path(data_dir).stat().st_ino
    again = HeadsFile(data_dir, is_suspect=True)
    again.publish()
    assert heads_path(data_dir).stat().st_ino != old
    assert Heads(data_dir).sealed_size("a") == 4
    again.append(Round(6, [note("a", 5)]))
    again.publish()
    again.close()
    again.close()
    assert Heads(data_dir).sealed_size("a") == 5


def test_what_a_killed_writer_left_is_synced_first(data_dir: Path) -> None:
    """A line may be in memory alone when its writer dies; a start that cannot sync it shows nothing."""
    HeadsFile(data_dir).close()
    with pytest.raises(OSError, match="injected"), failing("sync_data"):
        HeadsFile(data_dir)


@contextmanager
def failing(step: str) -> Iterator[None]:
    """Every durable step of that name fails."""

    def fail(operation: str, path: Path | None, fd: int) -> None:
        if operation == step:
            raise OSError(errno.EIO, "injected")

    set_observer(fail)
    try:
        yield
    finally:
        set_observer(None)
