"""Taking a journal over after the last writer ended, however it ended.

Only the active segment, the last of the chain, is read; older ones ended under a successor's header (DESIGN 7.6).

1. Read headers; choose the active segment; load `cursors/numbering`, which names the numbers at its start.
2. Scan the active segment to the end of the file. What stops the scan is one of
   - **a torn tail**: it lies at or past the durable mark, and no frame behind it shows that it was ever durable (the pages of
     the last commit reach the disk in any order, so whole frames of that commit may follow; decision 0010). Nobody was told of
     it. The bytes go to `salvage/`, the valid end is the end of the last whole group, the numbers are issued again;
   - **corruption**: the mark lies behind it, or a mark frame of a later commit, or a seq that a head promises. Nothing is cut;
     the range is reported; the scan goes on.
3. Before that, sync it, for the last writer may have died before its sync. Should this fail, only bytes up to the durable
   mark are kept, for those were synced in the past.
4. Declare what may have been acknowledged and is gone: seqs up to the mark, to the mark frames and to what signed heads
   promise; indexes by the next frame or mark frame that names the tenant, and by sealed sizes. Each declared span becomes a
   LOST frame, written with the new segment in one step, so a crash in between repeats recovery and doubles nothing.

Nothing is truncated here: the new segment's header makes what is not kept void, and only then may it go. Salvage files have names made of
segment and offset, so that a repeated recovery writes the same file again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tallystick.durable import make_dir, replace_file, sync_data
from tallystick.errors import IntegrityError, StartError
from tallystick.journal.commit import JournalEnd
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.group import Group, Part
from tallystick.journal.mark import NO_MARK, Mark, MarkReader
from tallystick.journal.numbering import Numbering, NumberingFile
from tallystick.journal.scan import Gap, SegmentScanner, written_end
from tallystick.journal.segment import HEADER_BLOCK, KeyWrapper, SegmentHeader, SegmentList, list_segments
from tallystick.telemetry import log

_READ_ATTEMPTS = 10
_READ_PAUSE_S = 0.5


@dataclass(slots=True)
class Lost:
    """A span that may have been acknowledged and is gone. ``handle`` empty: seqs whose tenant is not known."""

    handle: str
    first_index: int
    count: int
    reason: str


@dataclass(slots=True)
class Recovered:
    """What a new writer starts from, and what the operator must hear."""

    end: JournalEnd
    lost: list[Lost] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    salvaged: list[Path] = field(default_factory=list)

    def lost_group(self) -> Group | None:
        """The LOST frames to open the new segment with."""
        parts = [
            Part(
                FrameType.LOST,
                lost.handle,
                [msgspec.json.encode({"first_index": lost.first_index, "count": lost.count, "reason": lost.reason})],
                lost.count if lost.handle else 0,
                first_index=lost.first_index,
            )
            for lost in self.lost
        ]
        return Group(parts, 0) if parts else None


def recover(
    data_dir: Path,
    keys: KeyWrapper,
    known_sizes: Mapping[str, int] | None = None,
    known_seq: int = 0,
    *,
    replay: Callable[[Frame], None] = lambda _: None,
    replay_from: int = 0,
) -> Recovered:
    """Steps 1–4. ``known_sizes``: sealed size of each tenant's tree; ``known_seq``: the highest seq a signed head promises.

    ``replay`` gets every EVENTS and ACCOUNT frame that is kept and has an entry at or after seq ``replay_from``, in order; older segments
    are read for it as far as needed. Raises FormatRefusedError for a newer journal, StartError when the active segment can
    neither be synced nor cut.
    """
    directory = data_dir / "journal"
    listed = list_segments(directory)
    mark = _last_mark(directory)
    numbering, start = _numbering_at(data_dir, listed)
    recovered = Recovered(JournalEnd(numbering=numbering))
    recovered.damage += [f"{path.name}: no readable header" for path in listed.unreadable]

    def pass_ids(frame: Frame) -> None:
        if frame.next_seq > replay_from:
            replay(frame)

    ends = listed.ends()
    for place, (path, header) in enumerate(listed.segments[:start]):
        if listed.segments[place + 1][1].first_seq > replay_from:
            for item in _items(path, header, keys.unwrap(header.wrapped_key, header.uuid), ends.get(header.uuid, HEADER_BLOCK)):
                if isinstance(item, Frame) and item.type in (FrameType.EVENTS, FrameType.ACCOUNT):
                    pass_ids(item)
    for path, header in listed.segments[start:]:
        recovery = _SegmentRecovery(path, header, keys, mark, max(mark.seq, known_seq), recovered, pass_ids)
        recovery.scan(ends.get(header.uuid) if header is not listed.segments[-1][1] else None)
    _declare_promised(recovered, mark, known_sizes or {}, known_seq)
    for text in recovered.damage:
        log.error("journal_damage", what=text)
    return recovered


class _SegmentRecovery:
    """Steps 2 and 3 for one segment."""

    def __init__(
        self,
        path: Path,
        header: SegmentHeader,
        keys: KeyWrapper,
        mark: Mark,
        promised_seq: int,
        recovered: Recovered,
        pass_ids: Callable[[Frame], None],
    ) -> None:
        self._path = path
        self._header = header
        self._key = keys.unwrap(header.wrapped_key, header.uuid)
        self._mark_offset = mark.offset if mark.segment == header.uuid else HEADER_BLOCK
        self._recovered = recovered
        self._numbering = recovered.end.numbering
        self._promised_seq = promised_seq
        self._pass_ids = pass_ids
        self._end = self._whole = HEADER_BLOCK
        self._group: list[Frame] = []
        self._doubtful: list[Frame | Gap] = []

    def scan(self, known_end: int | None) -> None:
        """``known_end``: where a successor says this segment ends; None for the active one, whose end is found here."""
        self._numbering.next_seq = max(self._numbering.next_seq, self._header.first_seq)
        limit = self._synced_size() if known_end is None else known_end
        for item in _items(self._path, self._header, self._key, limit):
            if isinstance(item, Gap) and item.end == limit and known_end is None:
                break  # nothing follows
            if known_end is None and (self._doubtful or isinstance(item, Gap)) and self._is_in_doubt(item):
                self._doubtful.append(item)
            else:
                self._take(item)
        if known_end is None:
            self._close_active()

    def _is_in_doubt(self, item: Frame | Gap) -> bool:
        """True from the first damage past the mark on, until a frame shows that those bytes were durable once."""
        if not self._doubtful:
            return isinstance(item, Gap) and item.start >= self._mark_offset
        if isinstance(item, Frame) and self._proves_durable(item, self._doubtful[0]):
            doubtful, self._doubtful = self._doubtful, []
            for earlier in doubtful:
                self._take(earlier)
            return False
        return True

    def _proves_durable(self, frame: Frame, damage: Gap | Frame) -> bool:
        """A mark frame behind the damage was written after the commit around the damage was synced; so was what a head promises."""
        if frame.first_seq <= self._promised_seq:
            return True
        record = _mark_record(frame) if frame.type == FrameType.MARK else None
        start = damage.start if isinstance(damage, Gap) else damage.offset
        return record is not None and record.segment == self._header.uuid.hex() and record.offset > start

    def _take(self, item: Frame | Gap) -> None:
        if isinstance(item, Gap):
            self._report(item)
            self._end_group()  # intact frames of a damaged group were acknowledged, and are kept
            return
        self._group.append(item)
        self._end = item.end
        if item.is_last_of_group:
            self._end_group()
            self._whole = item.end

    def _end_group(self) -> None:
        for frame in self._group:
            self._pass_frame(frame)
        self._group = []

    def _pass_frame(self, frame: Frame) -> None:
        lost = self._recovered.lost
        if frame.type == FrameType.EVENTS:
            if frame.first_index > self._numbering.next_index.get(frame.handle, 0):
                _lose_up_to(self._recovered, frame.handle, frame.first_index, f"damaged frames in {self._path.name}")
            self._pass_ids(frame)
        elif frame.type == FrameType.ACCOUNT:
            self._pass_ids(frame)
        elif frame.type == FrameType.LOST:
            declared = (frame.handle, frame.first_index, frame.count)
            lost[:] = [span for span in lost if (span.handle, span.first_index, span.count) != declared]
        elif frame.type == FrameType.MARK and frame.first_seq > self._numbering.next_seq:
            self._pass_mark(frame)
        self._numbering.pass_frame(frame)

    def _pass_mark(self, frame: Frame) -> None:
        """A mark frame behind lost frames: it still knows which tenants they belonged to."""
        record = _mark_record(frame)
        if record is None:
            self._recovered.damage.append(f"{self._path.name}: the mark frame at {frame.offset} does not open")
            return
        for handle, size in record.next.items():
            _lose_up_to(self._recovered, handle, size, f"damaged frames in {self._path.name}")

    def _report(self, gap: Gap) -> None:
        self._recovered.damage.append(f"{self._path.name}: bytes {gap.start} to {gap.end} are no frames")
        self._salvage(gap.start, gap.end)

    def _close_active(self) -> None:
        """Find the valid end of the active segment, and set apart what lies behind it."""
        if self._end <= self._mark_offset:
            self._end_group()  # the rest of this group was acknowledged and is gone
            kept = self._end
        else:
            kept = self._whole
        if kept < self._mark_offset:
            self._recovered.damage.append(f"{self._path.name}: ends at {kept}, but was durable to {self._mark_offset}")
        taken_over = self._recovered.end
        taken_over.previous, taken_over.previous_end = self._header.uuid, kept
        taken_over.previous_path = self._path if self._salvage(kept, written_end(self._path, kept)) else None

    def _synced_size(self) -> int:
        """Make durable what the last writer left unsynced, and say how far the file can be believed.

        A crash before the successor exists repeats this.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            sync_data(fd)
            return os.fstat(fd).st_size
        except OSError as error:
            if self._mark_offset <= HEADER_BLOCK:
                raise StartError(f"the journal cannot be synced: {error.strerror}", place=str(self._path)) from error
            self._recovered.damage.append(f"{self._path.name}: not synced ({error.strerror}); kept to the durable mark")
            return self._mark_offset
        finally:
            os.close(fd)

    def _salvage(self, start: int, end: int) -> bool:
        """Copy bytes that are not kept; False when that fails. They are ciphertext, as they were."""
        if end <= start:
            return True
        target = self._path.parent.parent / "salvage" / f"{self._header.uuid.hex()}-{start}.bin"
        try:
            make_dir(target.parent)
            with self._path.open("rb") as file:
                file.seek(start)
                replace_file(target, file.read(end - start))
        except OSError as error:
            # Never a reason to refuse intake: the bytes stay where they are until the segment is retired.
            self._recovered.damage.append(f"{self._path.name}: bytes {start} to {end} not salvaged: {error.strerror}")
            return False
        self._recovered.salvaged.append(target)
        log.warning("journal_bytes_salvaged", segment=self._path.name, start=start, end=end, file=target.name)
        return True


class _MarkRecord(msgspec.Struct):
    seq: int
    segment: str
    offset: int
    next: dict[str, int]


def _mark_record(frame: Frame) -> _MarkRecord | None:
    try:
        return msgspec.json.decode(frame.records()[0], type=_MarkRecord)
    except (IntegrityError, msgspec.MsgspecError, IndexError):
        return None


def _declare_promised(recovered: Recovered, mark: Mark, known_sizes: Mapping[str, int], known_seq: int) -> None:
    """Step 4 for what no frame shows any more."""
    numbering = recovered.end.numbering
    for handle, size in known_sizes.items():
        _lose_up_to(recovered, handle, size, "sealed, but no longer in the journal")
    promised = max(mark.seq, known_seq)
    if promised >= numbering.next_seq:
        text = f"acknowledged entries are missing: seq {numbering.next_seq} to {promised}"
        recovered.damage.append(text)
        recovered.lost.append(Lost("", 0, 0, text))
        numbering.next_seq = promised + 1


def _lose_up_to(recovered: Recovered, handle: str, size: int, reason: str) -> None:
    expected = recovered.end.numbering.next_index.get(handle, 0)
    if size > expected:
        recovered.lost.append(Lost(handle, expected, size - expected, reason))
        recovered.end.numbering.raise_index(handle, size)


def _last_mark(directory: Path) -> Mark:
    reader = MarkReader(directory)
    try:
        return reader.read() or NO_MARK
    finally:
        reader.close()


def _numbering_at(data_dir: Path, listed: SegmentList) -> tuple[Numbering, int]:
    """The numbers to start scanning with, and the place in the list to start at."""
    saved = NumberingFile(data_dir).load()
    for place, (_, header) in enumerate(listed.segments):
        if saved is not None and header.uuid == saved[0]:
            return saved[1], place
    if len(listed.segments) > 1:
        log.warning("journal_numbering_rebuilt", segments=len(listed.segments))
    numbering = Numbering()
    ends = listed.ends()
    for path, header in listed.segments[:-1]:
        numbering.next_seq = max(numbering.next_seq, header.first_seq)
        for item in _items(path, header, None, ends.get(header.uuid, path.stat().st_size)):
            if isinstance(item, Frame):
                numbering.pass_frame(item)
    return numbering, max(len(listed.segments) - 1, 0)


def _items(path: Path, header: SegmentHeader, key: bytes | None, limit: int) -> Iterator[Frame | Gap]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        scanner = SegmentScanner(fd, header, key)
        offset = HEADER_BLOCK
        while offset < limit:
            items, following = scanner.read(offset, limit)
            for _ in range(_READ_ATTEMPTS):
                if scanner.unreadable is None:
                    break
                log.error("journal_unreadable", segment=path.name, error=str(scanner.unreadable))
                time.sleep(_READ_PAUSE_S)  # what is believed to be damaged now is declared for ever: give the disk some time
                items, following = scanner.read(offset, limit)
            yield from items
            offset = following
    finally:
        os.close(fd)
