"""The frame format."""

from __future__ import annotations

import google_crc32c
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import IntegrityError
from tallystick.journal.frame import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    Frame,
    FrameDecoder,
    FrameEncoder,
    FrameType,
    Stop,
    events_payload,
    frame_bytes,
)

SEGMENT, KEY = bytes(range(16)), bytes(range(32))
HANDLE = "abcdefghijklmnop"


def encode(lines: list[bytes], *, skip: int = 0, section: bytes = b"", **fields: int) -> bytes:
    encoder = FrameEncoder(SEGMENT, KEY, 7)
    for _ in range(skip):
        encoder.encode(FrameType.MARK, b"", first_seq=1)
    payload = events_payload(section, zstandard.compress(b"\n".join(lines)))
    values = {"first_seq": 1, "first_index": 0, **fields}
    return b"".join(encoder.encode(FrameType.EVENTS, payload, handle=HANDLE, count=len(lines), **values))


def decode(data: bytes, at: int = 0) -> Frame | Stop:
    return FrameDecoder(SEGMENT, 7, KEY).decode(data, at, 0)


def test_crc32c_is_the_castagnoli_polynomial() -> None:
    """The checksum is CRC32C: its published vector holds."""
    assert google_crc32c.value(b"123456789") == 0xE3069283


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line), min_size=1, max_size=20),
    section=st.binary(max_size=200),
    seq=st.integers(1, 2**63),
    index=st.integers(0, 2**63),
    skip=st.integers(0, 3),
)
def test_what_is_encoded_is_decoded(lines: list[bytes], section: bytes, seq: int, index: int, skip: int) -> None:
    """Header fields, lines and dedupe section of a frame come back as they went in."""
    data = encode(lines, section=section, first_seq=seq, first_index=index, skip=skip)
    frame = decode(data)
    assert isinstance(frame, Frame)
    assert (frame.first_seq, frame.first_index, frame.count, frame.ordinal, frame.handle) == (seq, index, len(lines), skip, HANDLE)
    assert frame.size == len(data)
    assert frame.lines() == lines
    assert frame.dedupe_section() == section


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    """No single flipped bit anywhere in a frame yields a frame."""
    data = bytearray(encode([b"line %d" % number for number in range(9)]))
    data[place % len(data)] ^= 1 << bit
    assert isinstance(decode(bytes(data)), Stop)


def test_frames_of_another_segment_are_none() -> None:
    """The UUID salts the checksum: bytes copied from another segment are no frame."""
    assert FrameDecoder(bytes(16), 7, KEY).decode(encode([b"a"]), 0, 0) is Stop.BAD


def test_a_huge_length_is_refused_before_anything_is_read() -> None:
    """A length over the bound stops at once instead of asking for more bytes."""
    data = (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(100)
    assert decode(data) is Stop.BAD


def test_zero_length_is_the_end() -> None:
    """Zeros mean that nothing was written here."""
    assert decode(bytes(100)) is Stop.END


def test_a_cut_frame_asks_for_more() -> None:
    """Every strict prefix of a frame is incomplete, not damaged."""
    data = encode([b"a"])
    assert {decode(data[:cut]) for cut in range(4, len(data))} == {Stop.MORE}


def test_a_wrong_key_opens_nothing() -> None:
    """Authenticated encryption: another key is an IntegrityError that names the place."""
    frame = FrameDecoder(SEGMENT, 7, bytes(32)).decode(encode([b"a"]), 0, 0)
    assert isinstance(frame, Frame)
    with pytest.raises(IntegrityError, match="offset 0"):
        frame.lines()


def test_header_is_bound_to_the_payload() -> None:
    """A header changed together with its checksum does not open: the AEAD covers it."""
    data = bytearray(encode([b"a"]))
    data[HEADER_BYTES - 1] += 1
    body = bytes(data[8:])
    data[4:8] = google_crc32c.extend(google_crc32c.value(SEGMENT), body).to_bytes(4, "big")
    frame = decode(bytes(data))
    assert isinstance(frame, Frame)
    assert frame.count == 2
    with pytest.raises(IntegrityError):
        frame.lines()


def test_candidates_find_every_frame_in_noise() -> None:
    """Resynchronisation proposes the true start of a frame among other bytes."""
    data = b"\x05" * 1000 + encode([b"a"]) + b"\x06" * 77
    places = FrameDecoder(SEGMENT, 7, KEY).candidates(data, 0)
    assert [place for place in places if isinstance(decode(data, place), Frame)] == [1000]


def test_frame_size_is_known_before_encryption() -> None:
    """``frame_bytes`` is exact, so a commit knows whether it fits."""
    encoder = FrameEncoder(SEGMENT, KEY, 7)
    assert sum(map(len, encoder.encode(FrameType.MARK, b"12345", first_seq=1))) == frame_bytes(5)


def test_contents_are_not_readable() -> None:
    """No part of a line is in the frame in clear."""
    assert b"marker" not in encode([b'{"action":"marker"}'])
