"""Request bodies within bounds: bytes as sent, bytes after decompression, the ratio between them, and the sum over all requests.

Output is produced in small pieces and counted before more is made, so a bomb costs at most one piece above its cap. What a request
holds is counted from before its body is read until it is answered: its Content-Length, or what has come so far, and then the
plain bytes too (one body at a time is decompressed, so the sum is passed by one body at most).
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Self

import zstandard
from prometheus_client import Counter

from tallystick.config import IngestLimits
from tallystick.errors import OverloadedError
from tallystick.holdings import Holdings
from tallystick.http.problem import Problem
from tallystick.http.turns import Turns
from tallystick.shared_bytes import SharedBytes

Receive = Callable[[], Awaitable[Any]]

_PIECE = 256 * 1024
_GZIP = 31  # zlib's window bits for "a gzip header must follow"
# A zstd block of 4 bytes can stand for 128 KiB, and the library has no bound on output: feed few bytes at a time.
_ZSTD_FEED = 512
_ZSTD_WINDOW_MAX = 16 * 2**20
_RATIO_FREE = 2**20
_INLINE_MAX = 64 * 1024
_REFUSED = Counter("tallystick_bodies_refused", "Requests refused because too many bytes of bodies were in flight.")


class ClientGoneError(Problem):
    """The client closed the connection before its body was whole; nobody reads the answer."""

    def __init__(self) -> None:
        super().__init__(400, "client_gone", "the connection was closed before the body was whole")


class BodyHold:
    """What one request holds of the bodies in flight; a context that gives it back at its end. ``lane``: whose share it is."""

    __slots__ = ("_shared", "_size", "lane")

    def __init__(self, shared: SharedBytes, lane: str) -> None:
        self._shared = shared
        self._size = 0
        self.lane = lane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._size:
            self._shared.give(self.lane, self._size)
            self._size = 0

    def grow_to(self, size: int) -> None:
        """Hold ``size`` bytes in all. Raises OverloadedError when there is no room for them."""
        if size <= self._size:
            return
        shared = self._shared
        if not shared.has_room(self.lane, size, instead_of=self._size):
            _REFUSED.inc()
            raise OverloadedError(
                f"request bodies of {shared.total} bytes are being worked on, {shared.held(self.lane)} of them of this sender; "
                f"{shared.bytes_max} is the bound, and one sender may hold as much as is left free"
            )
        shared.take(self.lane, size - self._size)
        self._size = size


class BodyReader:
    """Reads whole request bodies within ``limits``; ``holdings``: where bodies in flight are counted, when other processes do too."""

    def __init__(self, limits: IngestLimits, turns: Turns | None = None, holdings: Holdings | None = None) -> None:
        self._limits = limits
        self._turns = turns or Turns()
        self._in_flight = SharedBytes(limits.bodies_in_flight.bytes, holdings)

    def meet(self, limits: IngestLimits) -> None:
        """From now on these limits hold; what is in flight stays counted."""
        self._limits = limits
        self._in_flight.bytes_max = limits.bodies_in_flight.bytes

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of all bodies that are being received or worked on."""
        return self._in_flight.total

    def hold(self, lane: str) -> BodyHold:
        """The place for one request's body, to be kept open until the request is answered."""
        return BodyHold(self._in_flight, lane)

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, hold: BodyHold) -> bytes:
        """The body of an ASGI request, decompressed; ``headers`` have lower-case names.

        Raises Problem 413 (too large), 415 (encoding unknown), 400 (damaged), ClientGoneError, and OverloadedError: with a
        Content-Length before any of the body is read. Compressed bodies over 64 KiB are decompressed in their turn.
        """
        encoding = headers.get(b"content-encoding", b"identity").strip().lower().decode("latin-1")
        if encoding not in ("identity", "gzip", "x-gzip", "zstd"):
            raise Problem(
                415,
                "encoding_unknown",
                f"Content-Encoding {encoding[:32]!r} is not supported",
                headers={"accept-encoding": "gzip, zstd"},
            )
        declared = headers.get(b"content-length", b"")
        if declared.isdigit():
            hold.grow_to(min(int(declared), self._limits.body.bytes))
        body = await _collect(receive, self._limits.body.bytes, hold)
        if encoding == "identity":
            return body
        if len(body) <= _INLINE_MAX:
            plain = decompress(body, encoding, self._limits)
        else:
            plain = await self._turns.work(hold.lane, decompress, body, encoding, self._limits)
        hold.grow_to(len(body) + len(plain))
        return plain


def decompress(body: bytes, encoding: str, limits: IngestLimits) -> bytes:
    """The plain bytes of a gzip (any number of members) or zstd (any number of frames) body. Raises Problem 400, 413."""
    return b"".join(plain_pieces(body, encoding, limits))


def plain_pieces(body: bytes, encoding: str, limits: IngestLimits) -> Iterator[bytes]:
    """The same piece by piece, so that no more than one needs to be held."""
    cap = min(limits.decompressed.bytes, max(_RATIO_FREE, limits.ratio * len(body)))
    size = 0
    for piece in _unzstd(body) if encoding == "zstd" else _gunzip(body):
        size += len(piece)
        if size > cap:
            raise Problem(
                413,
                "body_too_large",
                f"the body grows past {cap} bytes when it is decompressed (limits: {limits.decompressed.bytes} bytes, ratio {limits.ratio})",
            )
        yield piece


async def _collect(receive: Receive, cap: int, hold: BodyHold) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece = message.get("body", b"")
        size += len(piece)
        if size > cap:
            raise Problem(413, "body_too_large", f"the body is larger than {cap} bytes", headers={"connection": "close"})
        hold.grow_to(size)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _gunzip(body: bytes) -> Iterator[bytes]:
    rest = body
    while rest:
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            try:
                piece = member.decompress(rest, _PIECE)
            except zlib.error:
                raise _damaged("gzip") from None
            rest = member.unconsumed_tail
            if not piece and not rest and not member.eof:
                raise _damaged("gzip")
            yield piece
        rest = member.unused_data
    if not body:
        raise _damaged("gzip")


def _unzstd(body: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    frame, at = decompressor.decompressobj(), 0
    is_whole = False
    while at < len(body):
        if is_whole:
            frame, is_whole = decompressor.decompressobj(), False
        piece_in = body[at : at + _ZSTD_FEED]
        try:
            piece = frame.decompress(piece_in)
        except zstandard.ZstdError:
            raise _damaged("zstd") from None
        is_whole = frame.eof
        at += len(piece_in) - (len(frame.unused_data) if is_whole else 0)
        yield piece
    if not is_whole:
        raise _damaged("zstd")


def _damaged(encoding: str) -> Problem:
    return Problem(400, "encoding_damaged", f"the body is not whole {encoding} data, or other bytes follow it")
