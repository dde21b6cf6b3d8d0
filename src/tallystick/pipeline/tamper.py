"""Ways to tamper with a copy of the evidence: what somebody would do who can write to the disk but has no signing key.

Each takes a data directory and returns False when there is too little in it to be changed that way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_HASH = 32


def _largest(directory: Path, pattern: str) -> Path | None:
    """The largest file of a pattern, without the root log's."""
    found = [path for path in directory.glob(pattern) if path.is_file() and "root" not in path.parts]
    return max(found, key=lambda path: path.stat().st_size, default=None)


def _flip(path: Path | None) -> bool:
    if path is None or not path.stat().st_size:
        return False
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return True


def _flip_leaf(directory: Path) -> bool:
    return _flip(_largest(directory, "trees/*/level-0"))


def _flip_chunk(directory: Path) -> bool:
    return _flip(_largest(directory, "archive/**/*.parquet"))


def _drop_leaf(directory: Path) -> bool:
    path = _largest(directory, "trees/*/level-0")
    if path is None or path.stat().st_size < 2 * _HASH:
        return False
    data = path.read_bytes()
    path.write_bytes(data[_HASH:])
    return True


def _drop_chunk(directory: Path) -> bool:
    path = _largest(directory, "archive/**/*.parquet")
    if path is None:
        return False
    path.unlink()
    return True


def _reorder(directory: Path) -> bool:
    path = _largest(directory, "trees/*/level-0")
    if path is None or path.stat().st_size < 2 * _HASH:
        return False
    data = path.read_bytes()
    path.write_bytes(data[_HASH : 2 * _HASH] + data[:_HASH] + data[2 * _HASH :])
    return True


def _truncate(directory: Path) -> bool:
    """The newest root entry, its leaf, and every head: as if the last minutes had never been."""
    root = directory / "trees" / "root"
    leaves = (root / "level-0").read_bytes()
    if len(leaves) < 2 * _HASH:
        return False
    (root / "level-0").write_bytes(leaves[:-_HASH])
    (root / "entries").write_bytes(b"".join((root / "entries").read_bytes().splitlines(keepends=True)[:-1]))
    (root / "entries.index").write_bytes((root / "entries.index").read_bytes()[:-16])
    return True


def _back_date(directory: Path) -> bool:
    """The year in the first entry of the root log that has a time."""
    path = directory / "trees" / "root" / "entries"
    data = path.read_bytes()
    at = data.find(b'"at":"2')
    if at < 0:
        return False
    place = at + len(b'"at":"')
    path.write_bytes(data[:place] + b"%04d" % (int(data[place : place + 4]) - 1) + data[place + 4 :])
    return True


TAMPERINGS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "flip": ("one bit of a leaf hash", _flip_leaf),
    "flip a chunk": ("one bit of an archived chunk", _flip_chunk),
    "drop": ("one leaf of a tenant's tree", _drop_leaf),
    "drop a chunk": ("one archived chunk", _drop_chunk),
    "reorder": ("two events exchanged in their tree", _reorder),
    "truncate": ("the newest entry of the root log cut off", _truncate),
    "back-date": ("a time in the root log, one year earlier", _back_date),
}
