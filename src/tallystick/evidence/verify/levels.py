"""Level files against each other and against a signed root: every stored hash is recomputed from the level below."""

from __future__ import annotations

from tallystick.errors import IntegrityError
from tallystick.evidence.heads import Head
from tallystick.evidence.merkle import HASH_BYTES
from tallystick.evidence.tile_path import TILE_WIDTH
from tallystick.evidence.trees import TreeFiles, fold_tiles
from tallystick.evidence.verify.report import Report

_PIECE_TILES = 1024


def check_tree(tree: TreeFiles, head: Head, report: Report) -> None:
    """The files must hold exactly the tree of ``head``, on every level. Adds problems with file and offset."""
    try:
        is_rooted = tree.root(head.size) == head.root
        wrong = _wrong_tiles(tree, head.size)
    except IntegrityError as error:
        report.fail(error.message, error.place or str(tree.dir))
        return
    for level, number in wrong:
        # When the levels above still lead to the signed root, the tile below is what changed; otherwise the hash above is.
        if is_rooted:
            start = number * TILE_WIDTH * HASH_BYTES
            where = f"{tree.dir}/level-{level}, bytes {start} to {start + TILE_WIDTH * HASH_BYTES - 1}"
            report.fail(f"hashes of tile {number} on level {level} were changed", where)
        else:
            where = f"{tree.dir}/level-{level + 1}, offset {number * HASH_BYTES}"
            report.fail(f"hash {number} on level {level + 1} does not belong to the tile below it", where)
    if not is_rooted and not wrong:
        report.fail(f"the stored hashes do not lead to the signed root of size {head.size}", _edge(tree, head.size))


def _wrong_tiles(tree: TreeFiles, size: int) -> list[tuple[int, int]]:
    """(level, number) of full tiles whose hash is not the one stored on the level above. Raises IntegrityError when cut."""
    wrong = []
    level, tiles = 0, size // TILE_WIDTH
    while tiles:
        for first in range(0, tiles, _PIECE_TILES):
            count = min(_PIECE_TILES, tiles - first)
            made = fold_tiles(tree.hashes(level, first * TILE_WIDTH, count * TILE_WIDTH))
            stored = tree.hashes(level + 1, first, count)
            if made != stored:
                wrong += [(level, first + place) for place in range(count) if _hash(made, place) != _hash(stored, place)]
        level, tiles = level + 1, tiles // TILE_WIDTH
    return wrong


def _hash(hashes: bytes, place: int) -> bytes:
    return hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]


def _edge(tree: TreeFiles, size: int) -> str:
    """The last, partial tile of the leaves: the one part that no level above repeats."""
    start = size // TILE_WIDTH * TILE_WIDTH
    return f"{tree.dir}/level-0, bytes {start * HASH_BYTES} to {size * HASH_BYTES - 1} (leaves {start} to {size - 1})"
