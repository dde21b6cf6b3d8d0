"""C2SP tlog-tiles v0.1.0: names of tiles and entry bundles, and which widths a tree has.

    tile/<level>/<N>[.p/<width>]        up to 256 hashes of one level (8,192 bytes when full)
    tile/entries/<N>[.p/<width>]        up to 256 entries, each uint16 length ‖ bytes

``N`` is written in groups of three digits, all but the last with an ``x``: 1234067 is ``x001/x234/067``. A partial tile
(width 1…255) names its width; tile n of level l of a tree of s leaves holds min(256, ⌊s/256^l⌋ − 256·n) hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tallystick.errors import NotFoundError

TILE_WIDTH = 256
_NAME = re.compile(r"\Atile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")


@dataclass(frozen=True, slots=True)
class TileName:
    """A tile (``level`` 0…63) or, with ``level`` None, an entry bundle. ``width`` 256 is a full one."""

    level: int | None
    number: int
    width: int = TILE_WIDTH

    def path(self) -> str:
        """The path below the log's prefix."""
        digits = f"{self.number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
        name = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
        kind = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{kind}/{name}{partial}"


def parse_tile_path(path: str) -> TileName:
    """Read a path; only the one canonical spelling counts. Raises NotFoundError."""
    match = _NAME.match(path)
    if match is None:
        raise NotFoundError("this is no path of a tile", place=path[:120])
    level = None if match[1] == "entries" else int(match[1])
    name = TileName(level, int(match[2].replace("x", "").replace("/", "")), int(match[3] or TILE_WIDTH))
    if (level is not None and level > 63) or name.width > TILE_WIDTH or name.path() != path:
        raise NotFoundError("this is no path of a tile", place=path[:120])
    return name


def tile_width(level: int | None, number: int, size: int) -> int:
    """How many hashes (or entries) tile ``number`` has in a tree of ``size`` leaves: 0…256."""
    hashes = size >> (8 * (level or 0))
    return max(0, min(TILE_WIDTH, hashes - number * TILE_WIDTH))


def tiles_of(size: int) -> Iterator[TileName]:
    """Every non-empty hash tile of a tree of ``size`` leaves, lowest level first."""
    level = 0
    while size >> (8 * level):
        count = size >> (8 * level)
        for number in range(-(-count // TILE_WIDTH)):
            yield TileName(level, number, tile_width(level, number, size))
        level += 1
