"""Makes a screenshot smaller: a PNG of 24 bits a pixel becomes one of at most 256 colours (PNG specification, third edition).

Kept as they are: the most frequent colours, then again and again the one that is farthest from all kept so far, so that a rare
link stays blue. Every other colour becomes the nearest of them. On a page of text that changes some shades at the edges of
letters, which nobody sees, and makes the file less than half as large.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS, _FREQUENT = 256, 128
_RGB, _PALETTE = 2, 3
Bytes = NDArray[np.uint8]


def reduce_colours(png: bytes) -> bytes:
    """The same picture with a palette. Takes 8-bit RGB without interlacing, as browsers write it; raises ValueError for others."""
    chunks = list(_chunks(png))
    width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if (depth, kind, interlace) != (8, _RGB, 0):
        raise ValueError("only 8-bit RGB without interlacing is understood")
    pixels = _decode(zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT")), width, height)
    palette, places = _quantise(pixels)
    rows = np.hstack([np.zeros((height, 1), np.uint8), places])  # filter 0: neighbouring places in a palette mean nothing
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in parts)


def _quantise(pixels: Bytes) -> tuple[Bytes, Bytes]:
    """(palette, place of each pixel in it)."""
    height, width, _ = pixels.shape
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, inverse, counts = np.unique(packed.ravel(), return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1).astype(np.int32)
    chosen = list(np.argsort(-counts, kind="stable")[:_FREQUENT])
    distance = np.min([((colours - colours[place]) ** 2).sum(axis=1) for place in chosen], axis=0)
    while len(chosen) < _COLOURS and distance.any():
        chosen.append(distance.argmax())
        distance = np.minimum(distance, ((colours - colours[chosen[-1]]) ** 2).sum(axis=1))
    palette = colours[chosen]
    nearest = np.array([((palette - colour) ** 2).sum(axis=1).argmin() for colour in colours], np.uint8)
    return palette.astype(np.uint8), nearest[inverse].reshape(height, width)


def _decode(data: bytes, width: int, height: int) -> Bytes:
    """Undo the filter of each row."""
    stride = 3 * width
    rows = np.frombuffer(data, np.uint8).reshape(height, stride + 1)
    out = np.zeros((height, stride), np.uint8)
    above = np.zeros(stride, np.uint8)
    for number in range(height):
        kind, row = rows[number, 0], rows[number, 1:]
        if kind == 1:
            out[number] = np.cumsum(row.reshape(width, 3), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            out[number] = row + above
        elif kind in (3, 4):
            out[number] = _decode_row(int(kind), row.tolist(), above.tolist())
        else:
            out[number] = row
        above = out[number]
    return out.reshape(height, width, 3)


def _decode_row(kind: int, row: list[int], above: list[int]) -> list[int]:
    """Filters 3 (average) and 4 (Paeth), which depend on the byte just decoded."""
    made = [0, 0, 0]
    corner = [0, 0, 0, *above]
    for place, value in enumerate(row):
        left, up = made[place], above[place]
        if kind == 3:
            guess = (left + up) >> 1
        else:
            slant = corner[place]
            far_left, far_up, far_slant = abs(up - slant), abs(left - slant), abs(left + up - 2 * slant)
            guess = left if far_left <= far_up and far_left <= far_slant else up if far_up <= far_slant else slant
        made.append((value + guess) & 255)
    return made[3:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not png.startswith(_SIGNATURE):
        raise ValueError("this is no PNG")
    at = len(_SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
