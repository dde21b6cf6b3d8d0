"""The walk over a served log: what it believes, in which order, and what it can recompute on the way."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from tallystick.errors import IntegrityError, NotFoundError, ProofError, TallystickError
from tallystick.evidence.checkpoint import Checkpoint
from tallystick.evidence.merkle import EMPTY_ROOT, leaf_hash
from tallystick.evidence.tile_path import parse_tile_path
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify.walk import LeafTile, TileWalk, path_count, split_bundle

SIZES = (1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_048, 66_100)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreeFiles]:
    made = TreeFiles(tmp_path_factory.mktemp("tree") / "t", 0)
    made.append([leaf_hash(b"%d" % number) for number in range(max(SIZES))])
    yield made
    made.close()


class Tiles:
    """Serves a tree as of one size; ``broken`` paths are changed, ``gone`` ones not found."""

    def __init__(self, tree: TreeFiles, size: int) -> None:
        self.tree = TreeFiles(tree.dir, size)
        self.broken: set[str] = set()
        self.gone: set[str] = set()
        self.read: list[str] = []

    def __call__(self, paths: Iterable[str]) -> Iterator[bytes | TallystickError]:
        for path in paths:
            self.read.append(path)
            name = parse_tile_path(path.removeprefix("/log/x/"))
            body = self.tree.tile(name.level or 0, name.number, name.width)
            body = bytes([body[0] ^ 1]) + body[1:] if path in self.broken else body
            yield NotFoundError("gone") if path in self.gone else body

    def walk(self, size: int) -> TileWalk:
        return TileWalk(self, "/log/x", Checkpoint("x", size, self.tree.root(size)), with_entries=False)


@pytest.mark.parametrize("size", SIZES)
def test_it_gives_every_leaf_in_order_and_any_root_on_the_way(tree: TreeFiles, size: int) -> None:
    """Leaf tiles come from the left, each resource is read once, and roots of smaller trees are the tree's own."""
    tiles = Tiles(tree, size)
    walk = tiles.walk(size)
    wanted = sorted({*random.Random(size).sample(range(size), min(size, 40)), *(old for old in SIZES if old <= size)})
    first = 0
    for tile in walk.leaves():
        assert isinstance(tile, LeafTile)
        assert (tile.first, tile.hashes) == (first, tree.hashes(0, first, tile.count))
        first += tile.count
        while wanted and wanted[0] <= first:
            old = wanted.pop(0)
            assert walk.root_at(old) == tree.root(old), old
    assert (first, wanted) == (size, [])
    assert len(tiles.read) == len(set(tiles.read)) == path_count(size, with_entries=False)


def test_an_empty_log_has_the_empty_root() -> None:
    """Nothing is read for no leaves; another root than the empty one is refused."""

    def fetch(paths: Iterable[str]) -> Iterator[bytes | TallystickError]:
        assert not list(paths)
        return iter(())

    walk = TileWalk(fetch, "/log/x", Checkpoint("x", 0, EMPTY_ROOT), with_entries=True)
    assert list(walk.leaves()) == []
    assert walk.root_at(0) == EMPTY_ROOT
    with pytest.raises(ProofError):
        list(TileWalk(fetch, "/log/x", Checkpoint("x", 0, bytes(32)), with_entries=True).leaves())


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/255", "tile/0/257", "tile/1/000"])
def test_a_tile_that_fails_is_itself_the_one_that_is_wrong(tree: TreeFiles, path: str) -> None:
    """A changed or missing full tile is named; only what lies below it is left out."""
    for attribute in ("broken", "gone"):
        tiles = Tiles(tree, 66_100)
        getattr(tiles, attribute).add(f"/log/x/{path}")
        found = list(tiles.walk(66_100).leaves())
        errors = [item for item in found if isinstance(item, IntegrityError)]
        assert [error.place for error in errors] == [f"/log/x/{path}"]
        lost = 256 if path.startswith("tile/1") else 1
        assert len(found) - 1 == -(-66_100 // 256) - lost


@pytest.mark.parametrize("path", ["tile/0/258.p/52", "tile/1/001.p/2", "tile/2/000.p/1"])
def test_an_edge_that_does_not_lead_to_the_root_stops_the_walk(tree: TreeFiles, path: str) -> None:
    """Without a believed edge no hash can be believed: nothing is given."""
    tiles = Tiles(tree, 66_100)
    tiles.broken.add(f"/log/x/{path}")
    with pytest.raises(ProofError, match="do not lead to the signed root") as caught:
        next(iter(tiles.walk(66_100).leaves()))
    assert path in str(caught.value.place)


def test_bundles_are_exactly_their_entries() -> None:
    """Length and bytes, nothing missing and nothing left over."""
    assert split_bundle(b"\x00\x02ab\x00\x00\x00\x01c", 3) == [b"ab", b"", b"c"]
    for bundle, count in ((b"\x00\x02ab", 2), (b"\x00\x03ab", 1), (b"\x00\x02abc", 1), (b"\x00", 0)):
        with pytest.raises(IntegrityError):
            split_bundle(bundle, count)
    assert split_bundle(b"", 0) == []
