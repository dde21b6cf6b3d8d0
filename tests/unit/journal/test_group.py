"""Groups: what is stored without compression, and numbers that are only taken by what is durable."""

from __future__ import annotations

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.journal.frame import FrameEncoder, FrameType
from tallystick.journal.group import STORED_MAX, Group, Part, encode_groups, stored
from tallystick.journal.numbering import Numbering


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=STORED_MAX))
def test_stored_text_is_a_zstd_frame(text: bytes) -> None:
    """Any zstd reader opens what was stored without compressing."""
    assert zstandard.ZstdDecompressor().decompress(stored(text)) == text


def test_encoding_takes_no_numbers() -> None:
    """Seqs run over all parts, indexes per tenant; the numbering itself stays until the commit is durable."""
    numbering = Numbering(10, {"aaaaaaaaaaaaaaaa": 5})
    parts = [
        Part(FrameType.EVENTS, "aaaaaaaaaaaaaaaa", [b"x", b"y"], 2),
        Part(FrameType.FILTERED, "aaaaaaaaaaaaaaaa", [b"{}"], 1),
        Part(FrameType.EVENTS, "bbbbbbbbbbbbbbbb", [b"z"], 1),
    ]
    groups = [Group(parts, 0), Group([Part(FrameType.EVENTS, "aaaaaaaaaaaaaaaa", [b"w"], 1)], 0)]
    for group in groups:
        group.prepare(zstandard.ZstdCompressor())
    encoded = encode_groups(FrameEncoder(bytes(16), bytes(32), 1), groups, numbering)
    assert [(part.first_seq, part.first_index) for group in groups for part in group.parts] == [(10, 5), (12, 0), (13, 0), (14, 7)]
    assert (encoded.next_seq, encoded.sizes) == (15, {"aaaaaaaaaaaaaaaa": 8, "bbbbbbbbbbbbbbbb": 1})
    assert (numbering.next_seq, numbering.next_index) == (10, {"aaaaaaaaaaaaaaaa": 5})
    assert sum(group.size for group in groups) == sum(map(len, encoded.frames))
