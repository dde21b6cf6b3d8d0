"""Files of one Merkle tree: for each level one flat, append-only file of 32-byte hashes (docs/formats/trees.md).

    level-0    leaf hashes
    level-L    hash n is the root of the full subtree of 256^L leaves from n·256^L: the hash of tile n of level L-1

So tile N of level L is the slice [N·8192, N·8192 + 32·width) of ``level-L``, and a root or proof reads at most 255 hashes a
level. Rules:

1. The files say nothing about the size; a signed head does. Bytes beyond the size in force are leftovers of a round that
   signed nothing, and are written over.
2. ``append`` reads back the hashes it has written before it hashes them into the next level, and ``root`` reads
   everything from the files: what is signed is what is stored.
3. Nothing is synced but by ``sync``; names are synced with the first one, whoever made the files. After a power cut the files up to the last synced size are whole; what follows is
   appended again from the journal, the same bytes at the same places.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tallystick.durable import make_dir, sync_data, sync_dir, write_all
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.merkle import EMPTY_ROOT, HASH_BYTES, hash_pairs, joined_root, prove_consistency, prove_inclusion
from tallystick.evidence.tile_path import TILE_WIDTH, tile_width

_TILE_BYTES = TILE_WIDTH * HASH_BYTES
_PIECE_TILES = 1024


class TreeFiles:
    """One tree's level files. One writer; any number of readers, each with its own object."""

    def __init__(self, directory: Path, size: int | None = None) -> None:
        """``size`` is the number of leaves in force; None takes what the leaf file holds."""
        self.dir = directory
        self._fds: dict[int, int] = {}
        self._writable: set[int] = set()
        self._unsynced: set[int] = set()
        self._named: set[int] = set()
        self.size = self.stored_size() if size is None else size

    def stored_size(self) -> int:
        """How many leaf hashes the files hold, whether or not a head covers them."""
        try:
            return self._path(0).stat().st_size // HASH_BYTES
        except FileNotFoundError:
            return 0

    def append(self, hashes: bytes | Sequence[bytes]) -> None:
        """Add leaf hashes (a sequence of 32-byte hashes, or their joined bytes). Not durable before ``sync``. Raises OSError."""
        data = hashes if isinstance(hashes, bytes) else b"".join(hashes)
        if len(data) % HASH_BYTES:
            raise ValueError("hashes to append are not 32 bytes each")
        if data:
            self._extend(0, self.size, data)
            self.size += len(data) // HASH_BYTES

    def refold(self) -> None:
        """Make every level above the leaves anew from them, when one was damaged. The leaves decide; a signed root says if they are right."""
        tile, last = 0, self.size // TILE_WIDTH
        while tile < last:
            count = min(_PIECE_TILES, last - tile)
            self._extend(1, tile, fold_tiles(self.hashes(0, tile * TILE_WIDTH, count * TILE_WIDTH)))
            tile += count

    def sync(self) -> None:
        """Make every appended hash durable. A crash before it returns loses none that an earlier sync covered."""
        for level in sorted(self._unsynced):
            sync_data(self._fds[level])
        if self._unsynced - self._named:
            sync_dir(self.dir)
        self._named |= self._unsynced
        self._unsynced.clear()

    @property
    def is_synced(self) -> bool:
        """True when nothing was appended since the last ``sync``."""
        return not self._unsynced

    def root(self, size: int | None = None) -> bytes:
        """The root hash at ``size`` leaves (default: now), read from the files. Raises IntegrityError when hashes are missing."""
        size = self.size if size is None else size
        return self.range_root(0, size) if size else EMPTY_ROOT

    def range_root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) for a subtree: ``start`` is a multiple of the power of two at or above ``end - start``."""
        count = end - start
        level = (count.bit_length() - 1) // 8
        unit = 8 * level
        hashes = self.hashes(level, start >> unit, count >> unit)
        rest = (end >> unit) << unit
        if rest < end:
            hashes += self.range_root(rest, end)
        return joined_root(hashes)

    def leaf(self, index: int) -> bytes:
        """The leaf hash at ``index``. Raises NotFoundError beyond the tree."""
        if not 0 <= index < self.size:
            raise NotFoundError(f"the tree has no leaf {index} yet", place=str(self.dir))
        return self.hashes(0, index, 1)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The inclusion proof of leaf ``index`` in the tree of ``size`` leaves. Raises ProofError, IntegrityError."""
        return prove_inclusion(index, size, self.range_root)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The consistency proof between two sizes. Raises ProofError, IntegrityError."""
        return prove_consistency(old, new, self.range_root)

    def tile(self, level: int, number: int, width: int) -> bytes:
        """``width`` hashes of a tile, joined. Raises NotFoundError when the tree is not that large."""
        if not 1 <= width <= tile_width(level, number, self.size):
            raise NotFoundError("the tree has no such tile yet", place=str(self.dir))
        return self.hashes(level, number * TILE_WIDTH, width)

    def hashes(self, level: int, first: int, count: int) -> bytes:
        """Joined hashes of one level. Raises IntegrityError with file and offset when the file ends before them."""
        if not count:
            return b""
        try:
            fd = self._open(level)
        except FileNotFoundError as error:
            raise IntegrityError("a level of a tree is missing", place=str(self._path(level))) from error
        data = os.pread(fd, count * HASH_BYTES, first * HASH_BYTES)
        if len(data) != count * HASH_BYTES:
            place = f"{self._path(level)}, offset {first * HASH_BYTES + len(data)}"
            raise IntegrityError(f"a tree is cut: level {level} ends before hash {first + count - 1}", place=place)
        return data

    def close(self) -> None:
        """Release the descriptors. What was appended and not synced stays unsynced for good: call ``sync`` before."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._writable.clear()

    def _extend(self, level: int, start: int, data: bytes) -> None:
        """Write hashes at ``start``, and the roots of the tiles they complete into the level above."""
        # A crash here leaves hashes that no head covers; the sealer writes the same ones again from the journal.
        write_all(self._open_writable(level), data, start * HASH_BYTES)
        self._unsynced.add(level)
        tile, last = start // TILE_WIDTH, (start + len(data) // HASH_BYTES) // TILE_WIDTH
        while tile < last:
            count = min(_PIECE_TILES, last - tile)
            self._extend(level + 1, tile, fold_tiles(self.hashes(level, tile * TILE_WIDTH, count * TILE_WIDTH)))
            tile += count

    def _path(self, level: int) -> Path:
        return self.dir / f"level-{level}"

    def _open(self, level: int) -> int:
        fd = self._fds.get(level)
        if fd is None:
            fd = self._fds[level] = os.open(self._path(level), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return fd

    def _open_writable(self, level: int) -> int:
        if level in self._writable:
            return self._fds[level]
        if level in self._fds:
            os.close(self._fds.pop(level))
        path = self._path(level)
        make_dir(self.dir)
        self._fds[level] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._writable.add(level)
        return self._fds[level]


def fold_tiles(hashes: bytes) -> bytes:
    """The roots of whole tiles (256 joined hashes each), joined: eight rounds of pairing, as tiles are aligned."""
    if len(hashes) % _TILE_BYTES:
        raise ValueError("only whole tiles fold")
    for _ in range(8):
        hashes = hash_pairs(hashes)
    return hashes
