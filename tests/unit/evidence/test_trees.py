"""Level files and entry files against trees in memory, and their recovery properties."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.merkle import check_consistency, check_inclusion, leaf_hash, tree_root
from tallystick.evidence.tile_path import tiles_of
from tallystick.evidence.trees import TreeFiles

HASHES = [leaf_hash(b"%d" % number) for number in range(70_000)]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> TreeFiles:
    tree = TreeFiles(tmp_path_factory.mktemp("tree"))
    for first, last in ((0, 1), (1, 255), (255, 257), (257, 65_000), (65_000, 70_000)):
        tree.append(HASHES[first:last])
    tree.sync()
    return tree


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 69_999, 70_000])
def test_root_of_every_size_is_the_tree_hash(big: TreeFiles, size: int) -> None:
    """The files give the root of each past size, whatever the pieces in which leaves came."""
    assert big.root(size) == tree_root(HASHES[:size])


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_proofs_from_files_hold(big: TreeFiles, data: st.DataObject) -> None:
    """Inclusion and consistency proofs read from the files check against roots computed in memory."""
    size = data.draw(st.integers(1, 70_000))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root = big.root(size)
    check_inclusion(HASHES[index], index, size, big.inclusion(index, size), root)
    check_consistency(old, size, big.root(old), root, big.consistency(old, size))


def test_tiles_hold_the_subtree_hashes(big: TreeFiles) -> None:
    """Each tile of each level holds the hashes that tlog-tiles defines; nothing beyond the tree is given."""
    for name in tiles_of(70_000):
        if name.level and name.number % 50 == 0:
            span = 256**name.level
            first = name.number * 256
            expected = [tree_root(HASHES[n * span : (n + 1) * span]) for n in range(first, first + name.width)][:3]
            assert big.tile(name.level, name.number, name.width)[: 32 * len(expected)] == b"".join(expected)
    for level, number, width in ((0, 273, 113), (0, 274, 1), (2, 0, 2), (3, 0, 1), (0, 0, 0), (0, 0, 257)):
        with pytest.raises(NotFoundError):
            big.tile(level, number, width)


def test_appending_again_from_an_earlier_size_writes_the_same_files(tmp_path: Path) -> None:
    """Going back to an earlier size and appending the same leaves changes no byte: recovery is the ordinary path."""
    tree = TreeFiles(tmp_path)
    tree.append(HASHES[:1000])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for size in (0, 255, 300, 999):
        again = TreeFiles(tmp_path, size)
        again.append(b"".join(HASHES[size:1000]))
        again.sync()
        again.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_cut_files_are_named(tmp_path: Path) -> None:
    """A level file that ends too early is an error with path and offset, not a wrong root."""
    tree = TreeFiles(tmp_path)
    tree.append(HASHES[:600])
    tree.close()
    (tmp_path / "level-1").write_bytes(b"")
    with pytest.raises(IntegrityError, match="level-1, offset 0"):
        TreeFiles(tmp_path).root()
    (tmp_path / "level-0").unlink()
    with pytest.raises(IntegrityError, match="level-0"):
        TreeFiles(tmp_path, 600).leaf(5)


@given(st.lists(st.binary(max_size=30).filter(lambda entry: b"\n" not in entry), min_size=1, max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_entries_round_trip(tmp_path_factory: pytest.TempPathFactory, entries: list[bytes], data: st.DataObject) -> None:
    """Entries come back in any range, by a fresh reader too, and going back to an earlier count loses none."""
    directory = tmp_path_factory.mktemp("account")
    log = AccountLog(directory)
    cut = data.draw(st.integers(0, len(entries)))
    log.append(entries[:cut], range(1, cut + 1))
    log.append(entries[cut:], range(cut + 1, len(entries) + 1))
    log.sync()
    reader = AccountLog(directory)
    first = data.draw(st.integers(0, len(entries) - 1))
    count = data.draw(st.integers(1, len(entries) - first))
    assert reader.entries(first, count) == entries[first : first + count]
    assert reader.last_seq() == len(entries)
    again = AccountLog(directory, cut)
    again.append(entries[cut:], range(cut + 1, len(entries) + 1))
    assert again.entries(0, len(entries)) == entries
    for bad_first, bad_count in ((0, len(entries) + 1), (len(entries), 1), (-1, 1), (0, 0)):
        with pytest.raises(NotFoundError):
            reader.entries(bad_first, bad_count)
    for each in (log, reader, again):
        each.close()


def test_cut_entries_are_named(tmp_path: Path) -> None:
    """Entries that end too early are an error with path and offset."""
    log = AccountLog(tmp_path)
    log.append([b"one", b"two"])
    log.close()
    (tmp_path / "entries").write_bytes(b"one\ntw")
    with pytest.raises(IntegrityError, match="offset 6"):
        AccountLog(tmp_path).entries(0, 2)
