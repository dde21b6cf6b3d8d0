"""Byte strings of one length, joined: as they come off a socket and go into a table, without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Pieces(Sequence[bytes]):
    """Reads like a list of byte strings, ``width`` bytes each."""

    __slots__ = ("joined", "width")

    def __init__(self, joined: bytes, width: int) -> None:
        self.joined = joined
        self.width = width

    def __len__(self) -> int:
        return len(self.joined) // self.width

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at] * self.width
        return self.joined[place : place + self.width]

    def __iter__(self) -> Iterator[bytes]:
        joined, width = self.joined, self.width
        return iter([joined[at : at + width] for at in range(0, len(joined), width)])


def joined(pieces: Iterable[bytes]) -> bytes:
    """All of them as one."""
    return pieces.joined if isinstance(pieces, Pieces) else b"".join(pieces)
