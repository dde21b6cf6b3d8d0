"""The tool that makes the documentation's pictures smaller."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from tools.png import reduce_colours

WIDTH, HEIGHT = 23, 20
Rows = list[list[int]]


def encode(rows: Rows, depth: int = 8) -> bytes:
    """A PNG whose rows use the five filters in turn, written as the specification says it."""
    out, above = b"", [0] * (3 * WIDTH)
    for number, row in enumerate(rows):
        kind = number % 5
        out += bytes([kind, *((value - guess(kind, row, above, place)) & 255 for place, value in enumerate(row))])
        above = row
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(out)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + name + data + b"crc?" for name, data in parts)


def guess(kind: int, row: list[int], above: list[int], place: int) -> int:
    left, up = (row[place - 3] if place >= 3 else 0), above[place]
    slant = above[place - 3] if place >= 3 else 0
    near = min((abs(left + up - slant - value), order, value) for order, value in enumerate((left, up, slant)))
    return (0, left, up, (left + up) // 2, near[2])[kind]


def decode(png: bytes) -> Rows:
    """The pixels of a picture with a palette and no filters; every checksum is looked at."""
    found, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(name + data)
        found[name], at = data, at + 12 + length
    places, palette = zlib.decompress(found[b"IDAT"]), found[b"PLTE"]
    rows = [places[start : start + WIDTH + 1] for start in range(0, len(places), WIDTH + 1)]
    assert all(row[0] == 0 for row in rows)
    return [[value for place in row[1:] for value in palette[3 * place : 3 * place + 3]] for row in rows]


def picture(colours: int) -> Rows:
    made = random.Random(colours)
    palette = [[made.randrange(256) for _ in range(3)] for _ in range(colours)]
    return [[value for _ in range(WIDTH) for value in made.choice(palette)] for _ in range(HEIGHT)]


def test_up_to_256_colours_stay_as_they_are() -> None:
    """Every filter is undone exactly, and no pixel changes."""
    rows = picture(200)
    assert decode(reduce_colours(encode(rows))) == rows


def test_more_colours_become_their_neighbours() -> None:
    """The picture keeps its size, has at most 256 colours, and no pixel is far from what it was."""
    rows = [[(x * 11) & 255 if channel else (y * 12) & 255 for x in range(WIDTH) for channel in range(3)] for y in range(HEIGHT)]
    made = decode(reduce_colours(encode(rows)))
    pixels = {tuple(row[at : at + 3]) for row in made for at in range(0, 3 * WIDTH, 3)}
    assert 250 <= len(pixels) <= 256
    assert max(abs(a - b) for old, new in zip(rows, made, strict=True) for a, b in zip(old, new, strict=True)) <= 24


@pytest.mark.parametrize("png", [b"GIF89a", encode(picture(2), depth=16)])
def test_other_pictures_are_refused(png: bytes) -> None:
    """What is not understood is an error, never a broken file."""
    with pytest.raises(ValueError):
        reduce_colours(png)
