"""Joined byte strings read like the list that was joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.journal.pieces import Pieces, joined


@given(st.integers(1, 40), st.integers(0, 12), st.data())
def test_pieces_read_like_a_list(width: int, count: int, data: st.DataObject) -> None:
    """Length, items from both ends, slices and iteration agree; joined again they are what they were."""
    wanted = [data.draw(st.binary(min_size=width, max_size=width)) for _ in range(count)]
    pieces = Pieces(b"".join(wanted), width)
    assert (list(pieces), len(pieces), joined(pieces), joined(wanted)) == (wanted, count, b"".join(wanted), b"".join(wanted))
    start, stop, step = (data.draw(st.none() | st.integers(-15, 15)) for _ in range(3))
    assert pieces[start : stop : step or None] == wanted[start : stop : step or None]
    for at in range(-count, count):
        assert pieces[at] == wanted[at]
    with pytest.raises(IndexError):
        pieces[count]
