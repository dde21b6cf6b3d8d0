"""A served log, read from left to right: no hash is believed before the one above it.

Theory (the log has a signed head over ``size`` leaves; tiles come from whoever serves it, one at a time)

1. The partial tiles at the right edge, at most one a level, give the root all by themselves. They are read first, and
   must lead to the signed root. From then on every hash in them is believed.
2. A full tile is believed when it folds to its hash in the tile above, which was believed before. So the walk goes from
   the top down and from left to right, and a tile that fails is itself the one that is wrong.
3. At any place of the walk the tiles under way begin with exactly the hashes that are the right edge of a smaller tree. So
   the root of every size can be recomputed when the walk has come that far: any number of older heads are held against
   the tree without one consistency proof from the server.

Memory: one tile a level, and what ``fetch`` holds ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tallystick.errors import IntegrityError, ProofError, TallystickError
from tallystick.evidence.checkpoint import Checkpoint
from tallystick.evidence.merkle import EMPTY_ROOT, HASH_BYTES, joined_root
from tallystick.evidence.tile_path import TILE_WIDTH, TileName
from tallystick.evidence.trees import fold_tiles

Fetch = Callable[[Iterable[str]], Iterator[bytes | TallystickError]]
"""Reads paths below a server, in order: the bytes, or NotFoundError (there is none), another TerminalError (this key may not),
IntegrityError (the server owes it and does not give it). Raises TransientError when the server cannot be reached."""

_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class LeafTile:
    """The believed leaf hashes of one tile. ``bundle`` is what was served for its entries (None: not asked for), unchecked."""

    number: int
    hashes: bytes
    bundle: bytes | TallystickError | None
    bundle_path: str

    @property
    def first(self) -> int:
        return self.number * TILE_WIDTH

    @property
    def count(self) -> int:
        return len(self.hashes) // HASH_BYTES


class TileWalk:
    """One pass over a log. ``prefix`` is its path below the server, as in ``/log/root``."""

    def __init__(self, fetch: Fetch, prefix: str, head: Checkpoint, *, with_entries: bool) -> None:
        self._fetch = fetch
        self._prefix = prefix
        self._head = head
        self._with_entries = with_entries
        self._under_way: dict[int, bytes] = {}

    def leaves(self) -> Iterator[LeafTile | IntegrityError]:
        """All leaf tiles from the left; for a tile that does not hold, an error with its place, and nothing of what is below it.

        Raises ProofError, before anything else, when the right edge does not lead to the signed root.
        """
        names = _edge_of(self._head.size)
        answers = self._fetch(self._path(name) for name in names)
        edge = [(name, self._hashes(name, answer)) for name, answer in zip(names, answers, strict=True)]
        self._under_way = {_level(name): hashes for name, hashes in edge}
        if self.root_at(self._head.size) != self._head.root:
            place = ", ".join(self._path(name) for name in names)
            raise ProofError(f"the tiles do not lead to the signed root of size {self._head.size}", place=place)
        for name, hashes in edge:
            self._under_way[_level(name)] = hashes  # what lay below a higher tile of the edge has been under way meanwhile
            if name.level:
                yield from self._below(name, hashes)
            else:
                bundle = next(iter(self._fetch([self._bundle_path(name)]))) if self._with_entries else None
                yield LeafTile(name.number, hashes, bundle, self._bundle_path(name))

    def root_at(self, size: int) -> bytes:
        """The root of the tree over the first ``size`` leaves, for a size that the last leaf tile has brought into reach."""
        rest = b""
        for level in range(8):
            count = (size >> 8 * level) % TILE_WIDTH
            rest = joined_root(self._under_way[level][: count * HASH_BYTES] + rest) if count else rest
        return rest or EMPTY_ROOT

    def _below(self, parent: TileName, hashes: bytes) -> Iterator[LeafTile | IntegrityError]:
        """The leaf tiles under a believed tile."""
        level = _level(parent) - 1
        names = [TileName(level, parent.number * TILE_WIDTH + place) for place in range(len(hashes) // HASH_BYTES)]
        answers = self._fetch(path for name in names for path in self._paths(name))
        for place, name in enumerate(names):
            answer = next(answers)
            bundle = next(answers) if self._with_entries and not level else None
            try:
                tile = self._hashes(name, answer)
                if fold_tiles(tile) != hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]:
                    raise IntegrityError("the hashes of a tile are not those that the tree is signed over", place=self._path(name))
            except IntegrityError as error:
                yield error
                continue
            self._under_way[level] = tile
            if level:
                yield from self._below(name, tile)
            else:
                yield LeafTile(name.number, tile, bundle, self._bundle_path(name))

    def _paths(self, name: TileName) -> Iterator[str]:
        yield self._path(name)
        if self._with_entries and not name.level:
            yield self._bundle_path(name)

    def _path(self, name: TileName) -> str:
        return f"{self._prefix}/{name.path()}"

    def _bundle_path(self, name: TileName) -> str:
        return f"{self._prefix}/{TileName(None, name.number, name.width).path()}"

    def _hashes(self, name: TileName, answer: bytes | TallystickError) -> bytes:
        """The tile's bytes. Raises IntegrityError when there are none, or not as many as the signed size says."""
        if isinstance(answer, TallystickError):
            reason = f"a tile under the signed head is not served: {answer.message}"
            raise IntegrityError(reason, place=self._path(name)) from answer
        if len(answer) != name.width * HASH_BYTES:
            reason = f"a tile has {len(answer)} bytes, not {name.width * HASH_BYTES}"
            raise IntegrityError(reason, place=self._path(name))
        return answer


def split_bundle(bundle: bytes, count: int) -> list[bytes]:
    """The ``count`` entries of a bundle. Raises IntegrityError when it is not exactly them."""
    entries, at = [], 0
    while at + _LENGTH.size <= len(bundle):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(bundle, at)[0]
        entries.append(bundle[start:at])
    if at != len(bundle) or len(entries) != count:
        raise IntegrityError(f"a bundle of entries is not {count} whole entries")
    return entries


def path_count(size: int, *, with_entries: bool) -> int:
    """How many paths a walk over ``size`` leaves reads."""
    bundles = -(-size // TILE_WIDTH) if with_entries else 0
    return bundles + sum(-(-(size >> 8 * level) // TILE_WIDTH) for level in range(8))


def _edge_of(size: int) -> list[TileName]:
    """The partial tiles of a tree, highest level first."""
    widths = [(level, size >> 8 * level) for level in reversed(range(8))]
    return [TileName(level, count // TILE_WIDTH, count % TILE_WIDTH) for level, count in widths if count % TILE_WIDTH]


def _level(name: TileName) -> int:
    return name.level or 0
