"""The journal against the trees: no damage in it, nothing acknowledged missing at its end, every line its leaf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tallystick.errors import TallystickError
from tallystick.evidence.verify.lines import EventTree
from tallystick.evidence.verify.report import Report
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.segment import HEADER_BLOCK, list_segments

_RUN_EVENTS = 1_000


def check_journal(journal: JournalReader, data_dir: Path, trees: dict[str, EventTree], promised: int, report: Report) -> str:
    """``promised`` is the highest seq that a signed head says was durable. Adds problems; returns how far it got."""
    for path in list_segments(data_dir / "journal").unreadable:
        report.fail("the header of a journal segment is damaged", f"{path}, bytes 0 to {HEADER_BLOCK - 1}")
    mark = journal.mark()
    position, frames, last = journal.oldest(), 0, 0
    while True:
        items, following = journal.read(position)
        if not items and following == position:
            break
        position = following
        found = [item for item in items if isinstance(item, Frame)]
        frames += len(found)
        _check_frames(found, trees, report)
        for item in items:
            if isinstance(item, Frame):
                last = max(last, item.next_seq - 1)
                continue
            last = max(last, item.last_seq)
            if item.start == item.end and journal.oldest().seq > item.last_seq:
                continue  # retired while we read: its lines must be in the archive, or the absences will say so
            report.fail(*_describe(item, data_dir))
    last = max(last, position.seq - 1)
    if last < max(promised, mark.seq):
        text = f"acknowledged entries are missing: the journal ends at {last}, {max(promised, mark.seq)} was promised"
        report.fail(text, str(data_dir / "journal"))
    return f"{frames} frames"


def _describe(span: DamagedSpan, data_dir: Path) -> tuple[str, str]:
    """What a span is, and where: segments are named by the first digits of their UUID."""
    names = sorted((data_dir / "journal").glob(f"*-{span.segment.hex()[:8]}.seg"))
    where = str(names[0]) if names else f"segment {span.segment.hex()}"
    entries = f", entries {span.first_seq} to {span.last_seq}" if span.last_seq >= span.first_seq else ""
    if span.start == span.end:
        return f"a part of the journal is missing{entries}", f"behind {where}, offset {span.start}"
    return f"the journal is damaged{entries}", f"{where}, bytes {span.start} to {span.end - 1}"


def _check_frames(frames: list[Frame], trees: dict[str, EventTree], report: Report) -> None:
    """Small frames are checked together where they follow one another in a tree; one by one when that does not hold."""
    for run in _runs(frames):
        if not _run_holds(run, trees):
            for frame in run:
                _check_frame(frame, trees, report)


def _runs(frames: list[Frame]) -> Iterator[list[Frame]]:
    """Frames of events of one tenant that continue each other, about `_RUN_EVENTS` together; every other frame alone."""
    run: list[Frame] = []
    end = 0
    for frame in frames:
        is_next = bool(run) and frame.type == FrameType.EVENTS == run[0].type and frame.handle == run[0].handle
        if not is_next or frame.first_index != end or end - run[0].first_index >= _RUN_EVENTS:
            if run:
                yield run
            run = []
        run.append(frame)
        end = frame.first_index + frame.count
    if run:
        yield run


def _run_holds(run: list[Frame], trees: dict[str, EventTree]) -> bool:
    tree = trees.get(run[0].handle)
    if tree is None or run[0].type != FrameType.EVENTS:
        return False
    try:
        lines = run[0].lines() if len(run) == 1 else [line for frame in run for line in frame.lines()]
        return tree.holds(run[0].first_index, lines)
    except TallystickError:
        return False  # which frame it is, and why, is said when each is checked alone


def _check_frame(frame: Frame, trees: dict[str, EventTree], report: Report) -> None:
    try:
        if frame.type == FrameType.EVENTS and frame.handle in trees:
            span = range(frame.first_index, frame.first_index + frame.count)
            trees[frame.handle].check(span, frame.lines(), frame.place, report)
        elif frame.type in (FrameType.QUARANTINED, FrameType.FILTERED, FrameType.ACCOUNT):
            frame.records()
    except TallystickError as error:
        report.fail(f"a journal frame does not open: {error.message}", frame.place)
