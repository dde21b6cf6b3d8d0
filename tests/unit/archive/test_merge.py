from __future__ import annotations

from tallystick.archive.catalog import ChunkRow
from tallystick.archive.merge import plan_merge
from unit.archive.lines import HANDLE

BELOW = 1 << 20
MONTH, LATER = "2026-09", "2026-10"


def _rows(*sizes: int, retention_class: str = "standard", month: str = MONTH, start: int = 0) -> list[ChunkRow]:
    return [
        ChunkRow(
            bytes(16),
            HANDLE,
            retention_class,
            month,
            number,
            number,
            1,
            None,
            None,
            None,
            None,
            size,
            bytes(32),
            f"{number}.parquet",
        )
        for number, size in enumerate(sizes, start)
    ]


def test_enough_for_a_large_chunk_are_merged() -> None:
    """As many neighbours as make one chunk that is not small any more."""
    rows = _rows(BELOW // 2, BELOW // 4, BELOW // 4, BELOW // 4)
    assert plan_merge(rows, BELOW, MONTH) == rows[:3]


def test_large_chunks_are_left_alone_and_part_neighbours() -> None:
    """A chunk that is large is never rewritten, and what lies on its two sides is not adjacent."""
    assert plan_merge(_rows(BELOW // 2, BELOW, BELOW // 2), BELOW, MONTH) is None
    assert plan_merge(_rows(BELOW, 2 * BELOW), BELOW, LATER) is None


def test_eight_of_a_size_are_merged() -> None:
    """Small chunks wait until eight neighbours are of about the same size; a larger one before them is left out."""
    assert plan_merge(_rows(*[1000] * 7), BELOW, MONTH) is None
    rows = _rows(100_000, *[1000] * 8)
    assert plan_merge(rows, BELOW, MONTH) == rows[1:]


def test_a_month_that_is_over_is_cleared_up() -> None:
    """What is left of a past month becomes one chunk; a single one is left as it is."""
    rows = _rows(1000, 5000)
    assert plan_merge(rows, BELOW, MONTH) is None
    assert plan_merge(rows, BELOW, LATER) == rows
    assert plan_merge(rows[:1], BELOW, LATER) is None


def test_classes_and_months_stay_apart() -> None:
    """Chunks of other classes or months are no neighbours."""
    rows = [*_rows(*[1000] * 4), *_rows(*[1000] * 4, retention_class="long", start=4), *_rows(*[1000] * 4, month=LATER, start=8)]
    assert plan_merge(rows, BELOW, MONTH) is None


def test_merging_ends_and_each_event_is_rewritten_a_few_times() -> None:
    """A thousand equal flushes end in few chunks, and all rewriting together is a small multiple of what was flushed."""
    rows: list[ChunkRow] = []
    written = 0
    for number in range(1000):
        rows += _rows(20_000, start=number)
        while (chosen := plan_merge(rows, BELOW, MONTH)) is not None:
            size = sum(row.size for row in chosen)
            written += size
            rows = sorted(
                [row for row in rows if row not in chosen] + _rows(size, start=chosen[0].first), key=lambda row: row.first
            )
    assert len(rows) < 40
    assert written < 5 * 1000 * 20_000
