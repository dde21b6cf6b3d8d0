"""Reading events by index from a journal that many tenants share, and from the archive behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.delivery import blocks
from tallystick.delivery.blocks import JournalBlocks
from tallystick.delivery.events import EventReader
from tallystick.errors import IntegrityError, NotFoundError, TransientError
from tallystick.journal.cursor import Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan

SEGMENT = b"s" * 16


class FakeFrame(Frame):
    """A frame that holds its lines in clear."""

    __slots__ = ("_lines",)

    def lines(self) -> list[bytes]:
        return list(self._lines)


def make_frame(handle: str, first: int, count: int, number: int, kind: FrameType = FrameType.EVENTS, size: int = 1000) -> FakeFrame:
    frame = FakeFrame(kind, 1, 1, number, number, handle, first, count, SEGMENT, number, size, b"", None)
    frame._lines = [f"{handle}{index}".encode() for index in range(first, first + count)]
    return frame


@dataclass
class FakeJournal:
    """Items by position; ``step`` are given per read, as a reader with a byte limit does."""

    items: list[FakeFrame | DamagedSpan] = field(default_factory=list)
    oldest_item: int = 0
    step: int = 3
    reads: int = 0

    def oldest(self) -> Position:
        return Position(SEGMENT, self.oldest_item, self.oldest_item)

    def read(self, position: Position, max_bytes: int = 0) -> tuple[list[FakeFrame | DamagedSpan], Position]:
        self.reads += 1
        if position.offset < self.oldest_item:
            raise FileNotFoundError("retired")
        items = self.items[position.offset : position.offset + self.step]
        end = position.offset + len(items)
        return list(items), Position(SEGMENT, end, end)


@dataclass
class FakeArchive:
    """Lines by (handle, index) below each handle's mark."""

    marks: dict[str, int] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    error: Exception | None = None
    bad: set[int] = field(default_factory=set)
    lost_spans: list[tuple[int, int]] = field(default_factory=list)

    def lost(self, handle: str) -> list[tuple[int, int]]:
        return self.lost_spans

    def mark(self, handle: str) -> int:
        return self.marks.get(handle, 0)

    def lines(self, handle: str, first_index: int, count: int) -> list[tuple[int, bytes]]:
        wanted = range(first_index, min(first_index + count, self.mark(handle)))
        if self.error is not None and self.bad & set(wanted):
            raise self.error
        return [(index, f"{handle}{index}".encode()) for index in wanted if index not in self.missing]


def make_reader(journal: FakeJournal, archive: FakeArchive | None = None, cache: int = 1 << 20) -> EventReader:
    reader = EventReader(journal, journal, archive or FakeArchive(), cache)
    reader.advance()
    return reader


def texts(handle: str, first: int, end: int) -> list[bytes]:
    return [f"{handle}{index}".encode() for index in range(first, end)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.sampled_from([0, 3_000, 1 << 30]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_range_of_any_tenant_is_found(runs: list[tuple[str, int]], step: int, cache: int, data: st.DataObject) -> None:
    """However the tenants' frames are mixed, blocked, read and evicted, each index gives its own line."""
    sizes: dict[str, int] = {}
    journal = FakeJournal(step=step)
    for number, (handle, count) in enumerate(runs):
        journal.items.append(make_frame(handle, sizes.get(handle, 0), count, number))
        sizes[handle] = sizes.get(handle, 0) + count
    small = blocks.BLOCK_BYTES
    blocks.BLOCK_BYTES = 4_000
    try:
        reader = make_reader(journal, cache=cache)
    finally:
        blocks.BLOCK_BYTES = small
    for _ in range(5):
        handle = data.draw(st.sampled_from(sorted(sizes)))
        first = data.draw(st.integers(0, sizes[handle] - 1))
        end = data.draw(st.integers(first + 1, sizes[handle]))
        assert reader.read(handle, first, end, 1_000, 1 << 20).lines == texts(handle, first, end)


def test_what_the_journal_no_longer_has_comes_from_the_archive() -> None:
    """A destination added later reads the retired part from the archive and the rest from the journal."""
    journal = FakeJournal([make_frame("a", number * 10, 10, number) for number in range(6)])
    reader = make_reader(journal, FakeArchive({"a": 40}), cache=0)
    journal.oldest_item = 4
    reader.advance()
    assert reader.read("a", 0, 60, 1_000, 1 << 20).lines == texts("a", 0, 60)


def test_lost_by_the_journal_and_expired_in_the_archive_have_their_reasons() -> None:
    """Gaps carry why: declared lost, damaged, or gone from the archive."""
    lost = make_frame("a", 10, 5, 1, FrameType.LOST)
    damage = DamagedSpan(SEGMENT, 0, 0, 0, 0, {"a": (20, 5)})
    journal = FakeJournal([make_frame("a", 0, 10, 0), lost, make_frame("a", 15, 5, 2), damage, make_frame("a", 25, 5, 4)])
    reader = make_reader(journal)
    span = reader.read("a", 0, 30, 1_000, 1 << 20)
    assert span.gaps == dict.fromkeys([*range(10, 15), *range(20, 25)], "lost")
    assert [line for line in span.lines if line] == texts("a", 0, 10) + texts("a", 15, 20) + texts("a", 25, 30)
    reader = make_reader(FakeJournal(), FakeArchive({"b": 5}, missing={2, 3}, lost_spans=[(3, 1)]))
    assert reader.read("b", 0, 5, 10, 1 << 20).gaps == {2: "expired", 3: "lost"}


def test_a_hole_between_frames_is_lost_and_one_before_the_first_is_waited_for() -> None:
    """The journal has events on both sides: gone. It begins later: the archive may just not be readable, so nothing is declared."""
    journal = FakeJournal([make_frame("a", 10, 5, 0), make_frame("a", 20, 5, 1)])
    reader = make_reader(journal)
    assert reader.read("a", 10, 25, 100, 1 << 20).gaps == dict.fromkeys(range(15, 20), "lost")
    with pytest.raises(TransientError, match="cannot be read yet"):
        reader.read("a", 5, 25, 100, 1 << 20)


def test_what_is_read_while_the_archive_is_asked_is_no_gap() -> None:
    """The tail arrives from another thread between the look into the journal and the look for a gap, with events behind it."""
    journal = FakeJournal([make_frame("a", 0, 5, 0)])

    class Arriving(FakeArchive):
        def mark(self, handle: str) -> int:
            if len(journal.items) == 1:
                journal.items += [make_frame("a", 5, 5, 1), make_frame("a", 10, 5, 2)]
                reader.advance()
            return 0

    reader = EventReader(journal, journal, Arriving(), 1 << 20)
    reader.advance()
    span = reader.read("a", 0, 15, 100, 1 << 20)
    assert span.gaps == {}
    assert span.lines == texts("a", 0, 15)


def test_a_catalog_that_is_being_made_anew_loses_nothing() -> None:
    """Rows that vanish between two looks are asked for again; a mark that fell back is a reason to wait."""

    class Vanishing(FakeArchive):
        def lines(self, handle: str, first_index: int, count: int) -> list[tuple[int, bytes]]:
            self.marks[handle] = 0
            return []

    with pytest.raises(TransientError, match="made anew"):
        make_reader(FakeJournal(), Vanishing({"a": 20})).read("a", 0, 20, 100, 1 << 20)


@pytest.mark.parametrize(("error", "reason"), [(NotFoundError("key destroyed"), "expired"), (IntegrityError("bad"), "damaged")])
def test_a_bad_chunk_costs_its_own_events_only(error: Exception, reason: str) -> None:
    """Its neighbours are read; its own indexes are gaps with the reason."""
    reader = make_reader(FakeJournal(), FakeArchive({"a": 20}, error=error, bad={7, 8}))
    span = reader.read("a", 0, 20, 100, 1 << 20)
    assert span.gaps == {7: reason, 8: reason}
    assert [line for line in span.lines if line] == texts("a", 0, 7) + texts("a", 9, 20)


def test_sealed_but_not_readable_yet_is_transient() -> None:
    """Nothing is declared lost merely because it is not there at this moment."""
    reader = make_reader(FakeJournal([make_frame("a", 0, 5, 0)]))
    with pytest.raises(TransientError, match="cannot be read yet"):
        reader.read("a", 5, 8, 10, 1 << 20)


def test_a_tail_that_grows_is_read_once() -> None:
    """Following costs one pass: what was just followed is served from memory."""
    journal = FakeJournal([make_frame("a", 0, 5, 0)])
    found = JournalBlocks(journal, journal, 1 << 20)
    found.advance()
    reads = journal.reads
    for number in range(1, 20):
        journal.items.append(make_frame("a", number * 5, 5, number))
        found.advance()
        assert found.lines_from("a", number * 5 + 2) == texts("a", number * 5 + 2, number * 5 + 5)
    assert journal.reads == reads + 2 * 19
