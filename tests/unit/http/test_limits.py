from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.config import IngestLimits, Size
from tallystick.errors import OverloadedError
from tallystick.http.limits import BodyReader, ClientGoneError, decompress
from tallystick.http.problem import Problem

LIMITS = IngestLimits(body=Size("1MiB"), decompressed=Size("4MiB"), ratio=200, bodies_in_flight=Size("6MiB"))
READER = BodyReader(LIMITS)


def body_of(*pieces: bytes, ends: bool = True) -> Any:
    """An ASGI receive that gives the pieces, then the end or a disconnect."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        messages[-1]["more_body"] = False

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


async def read(data: bytes, encoding: bytes | None = None) -> bytes:
    headers = {b"content-encoding": encoding} if encoding else {}
    return await READER.read(headers, body_of(data[:10], data[10:]), READER.hold("k"))


def status_of(data: bytes, encoding: str) -> int:
    with pytest.raises(Problem) as caught:
        decompress(data, encoding, LIMITS)
    return caught.value.status


async def test_bodies_come_back_whole() -> None:
    """Plain, gzip and zstd bodies, small ones and ones that are read in a thread, are the bytes that were sent."""
    for data in (b"", b"x", b"some text " * 1000, bytes(range(256)) * 2000):
        assert await read(data) == data
        assert await read(gzip.compress(data), b"GZIP") == data
        assert await read(zstandard.compress(data), b"zstd") == data


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_several_members_and_frames_are_one_body(parts: list[bytes]) -> None:
    """Concatenated gzip members and zstd frames decompress to the concatenation."""
    assert decompress(b"".join(map(gzip.compress, parts)), "gzip", LIMITS) == b"".join(parts)
    assert decompress(b"".join(map(zstandard.compress, parts)), "zstd", LIMITS) == b"".join(parts)


@settings(max_examples=80, deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), cut=st.integers(1, 50), junk=st.binary(min_size=1, max_size=9))
def test_cut_and_trailing_garbage_are_refused(data: bytes, cut: int, junk: bytes) -> None:
    """A body that ends early, or with bytes that begin no further member, is a 400."""
    for encoding, whole in (("gzip", gzip.compress(data)), ("zstd", zstandard.compress(data))):
        assert status_of(whole[: max(0, len(whole) - cut)], encoding) == 400
        assert status_of(whole + b"\x01" + junk, encoding) == 400


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bombs_are_stopped_at_the_cap_with_flat_memory(encoding: str) -> None:
    """A body that would grow to 2 GB ends with 413 and costs little more memory than the cap."""
    if encoding == "gzip":
        squeeze = zlib.compressobj(9, wbits=31)
        bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(500)) + squeeze.flush()
    else:
        buffer = io.BytesIO()
        with zstandard.ZstdCompressor(level=1).stream_writer(buffer, closefd=False) as writer:
            for _ in range(2000):
                writer.write(bytes(1 << 20))
        bomb = buffer.getvalue()
    tracemalloc.start()
    assert status_of(bomb, encoding) == 413
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_ratio_is_free_for_small_bodies_and_bounded_for_large() -> None:
    """A mebibyte may come out of anything; beyond it the ratio counts."""
    assert len(decompress(gzip.compress(bytes(1 << 20)), "gzip", LIMITS)) == 1 << 20
    assert status_of(gzip.compress(bytes(2 << 20)), "gzip") == 413


@pytest.mark.parametrize("encoding", [b"br", b"deflate", b"gzip, gzip", b"\xff"])
async def test_unknown_encodings_name_the_known_ones(encoding: bytes) -> None:
    """Other encodings are 415 with Accept-Encoding, before the body is read."""
    with pytest.raises(Problem) as caught:
        await READER.read({b"content-encoding": encoding}, None, READER.hold("k"))  # type: ignore[arg-type]
    assert caught.value.status == 415
    assert caught.value.headers["accept-encoding"] == "gzip, zstd"


async def test_body_past_the_limit_is_refused_at_the_limit() -> None:
    """A body without a length is refused once it is too large, and the rest of it is not asked for."""
    taken = []

    async def receive() -> Any:
        taken.append(1)
        return {"type": "http.request", "body": b"x" * 300_000, "more_body": True}

    with pytest.raises(Problem) as caught:
        await READER.read({}, receive, READER.hold("k"))
    assert caught.value.status == 413
    assert caught.value.headers["connection"] == "close"
    assert len(taken) == 4


async def test_client_that_goes_away_is_no_body() -> None:
    """A disconnect inside the body is an error, never a short body."""
    with pytest.raises(ClientGoneError):
        await READER.read({}, body_of(b"half", ends=False), READER.hold("k"))


async def test_bodies_in_flight_are_bounded_before_they_are_read() -> None:
    """Past the bound a declared body is refused unread; who holds less still gets room, and what is given back is free again."""
    reader = BodyReader(LIMITS)
    declared = {b"content-length": b"%d" % 2**20}
    holds = [reader.hold("loud") for _ in range(3)]
    for hold in holds:
        await reader.read(declared, body_of(b"x" * 2**20), hold)
    with reader.hold("loud") as more, pytest.raises(OverloadedError):
        await reader.read(declared, None, more)  # type: ignore[arg-type]
    with reader.hold("quiet") as other:
        await reader.read(declared, body_of(b"x" * 2**20), other)
        assert reader.in_flight_bytes == 4 * 2**20
    for hold in holds:
        with hold:
            pass
    assert reader.in_flight_bytes == 0


async def test_bodies_without_a_length_and_plain_bytes_count_too() -> None:
    """A chunked body is counted as it comes, a compressed one grows to what it holds; a failure gives everything back."""
    reader = BodyReader(LIMITS)
    with reader.hold("a") as hold:
        await reader.read({}, body_of(b"x" * 1000, b"y" * 500), hold)
        assert reader.in_flight_bytes == 1500
        packed = gzip.compress(bytes(range(256)) * 4096)
        with reader.hold("b") as second:
            await reader.read({b"content-encoding": b"gzip"}, body_of(packed), second)
            assert reader.in_flight_bytes == 1500 + len(packed) + 2**20
    with pytest.raises(ClientGoneError), reader.hold("a") as hold:
        await reader.read({}, body_of(b"x" * 1000, ends=False), hold)
    assert reader.in_flight_bytes == 0
