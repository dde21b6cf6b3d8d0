from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.archive.buffer import TenantBuffer
from tallystick.journal.cursor import START

_moves = st.lists(
    st.tuples(
        st.sampled_from(["add", "lost"]),
        st.integers(0, 3),
        st.lists(st.binary(max_size=40_000).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=4),
    ),
    max_size=8,
)


@given(st.integers(0, 5), _moves)
@settings(deadline=None, max_examples=60)
def test_what_goes_in_comes_out(start: int, moves: list[tuple[str, int, list[bytes]]]) -> None:
    """Lines come back with their indexes and seqs, and with the lost spans they cover the window without overlap."""
    buffer = TenantBuffer("h", start, 0.0, 0, START)
    expected: list[tuple[int, int, bytes]] = []
    lost: set[int] = set()
    index, seq = start, 100
    for kind, gap, lines in moves:
        if kind == "add":
            lost.update(range(index, index + gap))
            index, seq = index + gap, seq + gap
            buffer.add(index, seq, lines)
            expected += [(index + place, seq + place, line) for place, line in enumerate(lines)]
            index, seq = index + len(lines), seq + len(lines)
        else:
            buffer.add_lost(max(0, index - gap), len(lines) + gap)
            lost.update(range(index, max(0, index - gap) + len(lines) + gap))
            index = max(index, max(0, index - gap) + len(lines) + gap)
    taken = buffer.take()
    assert list(zip(taken.indexes, taken.seqs, taken.lines, strict=True)) == expected
    assert {number for first, count in taken.lost for number in range(first, first + count)} == lost
    assert (taken.start, taken.end, buffer.size) == (start, index, sum(len(line) for _, _, line in expected))
    assert buffer.take() == taken
