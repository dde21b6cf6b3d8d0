"""Recovery, one test per kind of damage: what is kept, what is declared, what is never lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from support.journal_kit import (
    ACME,
    GLOBEX,
    append,
    batch,
    copy_dir,
    events,
    flip,
    frames,
    open_journal,
    overwrite,
    segments,
    spans,
    with_journal,
    write,
)
from tallystick.durable import set_observer
from tallystick.errors import FormatRefusedError
from tallystick.journal.entries import Append, Committed
from tallystick.journal.frame import FrameType
from tallystick.journal.mark import MarkReader, MarkWriter
from tallystick.journal.segment import HEADER_BLOCK, SegmentHeader
from tallystick.journal.writer import Journal


def killed(tmp_path: Path, *requests: Append) -> Path:
    """A data directory as kill -9 leaves it after the last of ``requests`` was answered."""
    target = tmp_path / "data"

    async def work(journal: Journal) -> None:
        for request in requests:
            await journal.append(request)
        copy_dir(tmp_path / "live", target)

    with_journal(tmp_path / "live", work)
    return target


def one(line: bytes) -> Append:
    return Append([batch([line])])


def active(data: Path) -> Path:
    return segments(data)[-1][0]


def set_mark(data: Path, **fields: object) -> None:
    """Put the durable mark somewhere else, as a power cut or a lying disk would have it."""
    old = MarkReader(data / "journal").read()
    assert old is not None
    writer = MarkWriter(data / "journal")
    writer.publish(old._replace(**fields))
    writer.close()


def restart(data: Path, **known: object) -> dict[str, object]:
    """Open, append one line, close; returns the status after opening."""

    async def work(journal: Journal) -> dict[str, object]:
        status = journal.status()
        await append(journal, b"after")
        return status

    return with_journal(data, work, **known)


def salvaged(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((data / "salvage").glob("*"))]


def test_clean_tail(tmp_path: Path) -> None:
    """Nothing is wrong after kill -9 between two commits: all is kept, nothing is reported."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    status = restart(data)
    assert (status["damage"], status["salvaged"], status["durable"]) == ([], [], 2)
    assert events(data) == {0: b"a", 1: b"b", 2: b"after"}


def test_torn_tail(tmp_path: Path) -> None:
    """A frame cut short past the mark: its bytes are salvaged, its numbers given again."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    (_, last) = frames(data)
    overwrite(active(data), last.end - 5, bytes(5))
    set_mark(data, seq=1, offset=frames(tmp_path / "live")[0].end)
    status = restart(data)
    assert status["damage"] == []
    (tail,) = salvaged(data)
    assert tail.startswith(active_bytes(tmp_path / "live", tail, 20))
    assert events(data) == {0: b"a", 1: b"after"}
    assert spans(data) == []


def active_bytes(data: Path, tail: bytes, size: int) -> bytes:
    """The ``size`` bytes of the live segment that ``tail`` begins with, to show that salvage is a copy."""
    content = segments(data)[0][0].read_bytes()
    return content[content.index(tail[:size]) :][:size]


def test_whole_group_past_the_mark(tmp_path: Path) -> None:
    """A whole request that was written but not yet marked is kept: nobody was told, but nothing speaks against it."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    set_mark(data, seq=1, offset=frames(data)[0].end)
    restart(data)
    assert events(data) == {0: b"a", 1: b"b", 2: b"after"}


def test_half_a_group_at_the_tail(tmp_path: Path) -> None:
    """Of a request over two tenants only one frame arrived: none of it is kept."""
    request = Append([batch([b"x"]), batch([b"y"], GLOBEX)])
    data = killed(tmp_path, one(b"a"), request)
    first, second = frames(data)[0], frames(data)[2]
    overwrite(active(data), second.offset, bytes(second.size))
    set_mark(data, seq=1, offset=first.end)
    assert restart(data)["damage"] == []
    assert events(data) == {0: b"a", 1: b"after"}
    assert events(data, GLOBEX) == {}
    assert len(salvaged(data)) == 1


def test_torn_commit_with_whole_frames_behind(tmp_path: Path) -> None:
    """The pages of the last, unsynced commit came in any order: whole frames behind a torn one are not corruption."""
    request = Append([batch([b"x"]), batch([b"y"], GLOBEX)])
    data = killed(tmp_path, one(b"a"), request)
    first, torn = frames(data)[0], frames(data)[1]
    overwrite(active(data), torn.offset, bytes(torn.size))
    set_mark(data, seq=1, offset=first.end)
    assert restart(data)["damage"] == []
    assert (events(data), events(data, GLOBEX)) == ({0: b"a", 1: b"after"}, {})
    assert len(salvaged(data)) == 1


def test_old_mark_and_damage_before_a_later_commit(tmp_path: Path) -> None:
    """After a power cut the mark is old, but a later commit's mark frame proves that the damaged frame was durable: declared."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"))
    flip(active(data), frames(data)[1].offset + 80)
    set_mark(data, seq=1, offset=frames(tmp_path / "live")[0].end)
    assert restart(data)["damage"]
    assert events(data) == {0: b"a", 2: b"c", 3: b"after"}


def test_garbage_in_the_tail(tmp_path: Path) -> None:
    """Noise behind the last frame, past the mark, is a torn tail."""
    data = killed(tmp_path, one(b"a"))
    noise = os.urandom(10_000).strip(b"\0")
    overwrite(active(data), frames(data)[-1].end + 64, noise)
    assert restart(data)["damage"] == []
    assert salvaged(data) == [bytes(64) + noise]
    assert events(data) == {0: b"a", 1: b"after"}


def test_damaged_frame_in_the_middle(tmp_path: Path) -> None:
    """One flipped bit costs its frame: the others stay, the range is named, the lost indexes are declared and not given again."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"))
    hit = frames(data)[1]
    flip(active(data), hit.offset + 80)
    status = restart(data)
    assert status["damage"] == [f"{segments(data)[0][0].name}: bytes {hit.offset} to {hit.end} are no frames"]
    assert events(data) == {0: b"a", 2: b"c", 3: b"after"}
    (span,) = spans(data)
    assert (span.start, span.end, span.first_seq, span.last_seq, span.lost) == (hit.offset, hit.end, 2, 2, {ACME.handle: (1, 1)})
    (lost,) = frames(data, FrameType.LOST)
    assert (lost.handle, lost.first_index, lost.count) == (ACME.handle, 1, 1)


def test_damaged_last_frame_of_a_tenant(tmp_path: Path) -> None:
    """No later frame of the tenant shows the loss, but the mark frame behind it does: its index is not given again."""
    data = killed(tmp_path, one(b"a"), Append([batch([b"g"], GLOBEX)]), one(b"b"))
    flip(active(data), frames(data)[1].offset + 80)
    restart(data)
    (lost,) = frames(data, FrameType.LOST)
    assert (lost.handle, lost.first_index, lost.count) == (GLOBEX.handle, 0, 1)
    committed: Committed = with_journal(data, lambda journal: append(journal, b"next", tenant=GLOBEX))
    assert committed.tenants[0].ranges == [[1, 1]]


def test_recovery_of_damage_is_repeatable(tmp_path: Path) -> None:
    """Declared once: further restarts neither report nor double it."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"))
    flip(active(data), frames(data)[1].offset + 80)
    assert restart(data)["damage"]
    for _ in range(3):
        assert restart(data)["damage"] == []
    assert len(frames(data, FrameType.LOST)) == 1
    assert len(salvaged(data)) == 1


def test_crash_while_recovering(tmp_path: Path) -> None:
    """Killed before the new segment has its name: the next start recovers the same again and doubles nothing."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"))
    flip(active(data), frames(data)[1].offset + 80)

    class KilledError(BaseException):
        pass

    def kill(operation: str, path: Path | None, fd: int) -> None:
        if operation == "rename" and path is not None and path.suffix == ".seg":
            raise KilledError

    for _ in range(3):
        set_observer(kill)
        with pytest.raises(KilledError):
            open_journal(data)
        set_observer(None)
    restart(data)
    assert events(data) == {0: b"a", 2: b"c", 3: b"after"}
    assert len(frames(data, FrameType.LOST)) == 1
    assert len(salvaged(data)) == 1
    assert not list((data / "journal").glob("spare-*"))


def test_zeroed_block_in_the_middle(tmp_path: Path) -> None:
    """4 KiB of zeros are not taken for the end: frames behind them are found."""
    lines = [os.urandom(900).hex().encode() for _ in range(20)]
    data = killed(tmp_path, *[one(line) for line in lines])
    overwrite(active(data), 3 * 4096, bytes(4096))
    restart(data)
    kept = events(data)
    assert kept.pop(20) == b"after"
    lost = {index for frame in frames(data, FrameType.LOST) for index in range(frame.first_index, frame.first_index + frame.count)}
    assert lost
    assert lost | set(kept) == set(range(20))
    assert all(kept[index] == lines[index] for index in kept)


def test_block_of_another_place_in_the_same_segment(tmp_path: Path) -> None:
    """A page overwritten with another page of the same file, whole frames included, serves no wrong content."""
    lines = [b"line %05d" % number for number in range(200)]
    for source, target in ((2, 5), (6, 3)):
        data = killed(tmp_path / f"{source}", *[one(line) for line in lines])
        content = active(data).read_bytes()
        overwrite(active(data), target * 4096, content[source * 4096 : (source + 1) * 4096])
        restart(data)
        kept = events(data)
        assert kept.pop(200) == b"after"
        assert 100 < len(kept) < 200
        assert all(kept[index] == lines[index] for index in kept)


def test_inserted_byte(tmp_path: Path) -> None:
    """One byte too many in the middle shifts what follows; it is still found."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"), one(b"d"))
    path, place = active(data), frames(data)[1].offset + 70
    content = path.read_bytes()
    path.write_bytes((content[:place] + b"!" + content[place:])[: len(content)])
    restart(data)
    assert events(data) == {0: b"a", 2: b"c", 3: b"d", 4: b"after"}


def test_tail_shorter_than_the_mark(tmp_path: Path) -> None:
    """The journal ends before what was acknowledged: said so, seqs not given again, sealed indexes declared lost."""
    data = killed(tmp_path, one(b"a"), one(b"b"), one(b"c"))
    path, keep = active(data), frames(data)[0].end
    path.write_bytes(path.read_bytes()[:keep].ljust(path.stat().st_size, b"\0"))
    status = restart(data, known_sizes={ACME.handle: 3})
    assert "acknowledged entries are missing" in str(status["damage"])
    assert events(data) == {0: b"a", 3: b"after"}
    lost = [(frame.handle, frame.first_index, frame.count) for frame in frames(data, FrameType.LOST)]
    assert lost == [(ACME.handle, 1, 2), ("", 0, 0)]
    assert [frame.first_seq for frame in frames(data)] == [1, 6]


def test_tail_cut_below_the_mark_by_file_size(tmp_path: Path) -> None:
    """A truncated active segment is the same as one whose end is zero."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    os.truncate(active(data), frames(data)[1].offset + 3)
    assert "acknowledged entries are missing" in str(restart(data, known_sizes={ACME.handle: 2})["damage"])
    assert events(data) == {0: b"a", 2: b"after"}


def test_heads_that_promise_more(tmp_path: Path) -> None:
    """Without MARK, a signed head's seq still shows that the journal ends too early."""
    data = killed(tmp_path, one(b"a"))
    (data / "journal" / "MARK").unlink()
    status = restart(data, known_seq=5)
    assert "seq 2 to 5" in str(status["damage"])
    assert frames(data)[-1].first_seq == 6


def test_damaged_mark(tmp_path: Path) -> None:
    """MARK is a hint: overwritten with noise, recovery goes by the frames and writes it anew."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    (data / "journal" / "MARK").write_bytes(os.urandom(64))
    assert restart(data)["damage"] == []
    assert events(data) == {0: b"a", 1: b"b", 2: b"after"}


def test_swapped_segments(tmp_path: Path) -> None:
    """Two files that exchanged their names read as before: the header is the truth."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    (first, _), (second, _), _ = segments(tmp_path)
    spare = first.with_suffix(".x")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    restart(tmp_path)
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c", 3: b"after"}
    assert spans(tmp_path) == []


def test_missing_segment(tmp_path: Path) -> None:
    """A segment that is gone is declared by its seqs; intake goes on, numbers are not given again."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    segments(tmp_path)[1][0].unlink()
    restart(tmp_path)
    assert events(tmp_path) == {0: b"a", 2: b"c", 3: b"after"}
    (span,) = spans(tmp_path)
    assert (span.first_seq, span.last_seq) == (2, 2)


def test_missing_active_segment(tmp_path: Path) -> None:
    """The newest segment is gone: the mark says what is missing."""
    for line in (b"a", b"b"):
        write(tmp_path, [line])
    segments(tmp_path)[1][0].unlink()
    status = restart(tmp_path, known_sizes={ACME.handle: 2})
    assert "seq 2 to 2" in str(status["damage"])
    assert events(tmp_path) == {0: b"a", 2: b"after"}


def test_damaged_segment_header(tmp_path: Path) -> None:
    """Without its header a segment cannot be opened: it is named, left in place, and the others are read."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    path, _ = segments(tmp_path)[1]
    flip(path, 100)
    status = restart(tmp_path)
    assert f"{path.name}: no readable header" in str(status["damage"])
    assert path.exists()
    assert events(tmp_path) == {0: b"a", 2: b"c", 3: b"after"}


@pytest.mark.parametrize("slots", ["ab", "a", "b"])
def test_damaged_numbering(tmp_path: Path, slots: str) -> None:
    """`cursors/numbering` lost or one generation old: the numbers are found in the frames."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    for slot in slots:
        (tmp_path / "cursors" / f"numbering.{slot}").write_bytes(b"noise")
    restart(tmp_path)
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c", 3: b"after"}


def test_newer_major_format_is_refused(tmp_path: Path) -> None:
    """A segment of a later major version: refused, and not a byte is written to the journal."""
    write(tmp_path, [b"a"])
    path, header = segments(tmp_path)[0]
    block = bytearray(header.encode())
    block[8:10] = (2).to_bytes(2, "big")
    block[-4:] = google_crc32c.value(bytes(block[:-4])).to_bytes(4, "big")
    overwrite(path, 0, bytes(block))
    before = {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()}
    with pytest.raises(FormatRefusedError):
        open_journal(tmp_path)
    assert {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()} == before


def test_a_failed_sync_in_recovery_keeps_to_the_mark(tmp_path: Path) -> None:
    """What lies past the mark and cannot be synced now is not kept: it may be only in memory."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    set_mark(data, seq=1, offset=frames(data)[0].end)
    failures = [errno.EIO]

    def fail(operation: str, path: Path | None, fd: int) -> None:
        if operation == "sync_data" and Path(f"/proc/self/fd/{fd}").resolve().suffix == ".seg" and failures:
            raise OSError(failures.pop(), "injected")

    set_observer(fail)
    try:
        restart(data)
    finally:
        set_observer(None)
    assert events(data) == {0: b"a", 1: b"after"}


def test_many_restarts_keep_the_directory_small(tmp_path: Path) -> None:
    """A crash loop does not fill the disk: closed segments give their zeros back."""
    for _ in range(10):
        write(tmp_path, [b"a"])
    sizes = [path.stat().st_blocks * 512 for path, _ in segments(tmp_path)]
    assert sum(sizes[:-1]) <= 9 * 8192
    assert len(events(tmp_path)) == 10


def test_header_round_trip(tmp_path: Path) -> None:
    """A segment header decodes to what was encoded and fills one block."""
    write(tmp_path, [b"a"])
    path, header = segments(tmp_path)[0]
    assert SegmentHeader.decode(path.read_bytes()[:HEADER_BLOCK]) == header
    assert len(header.encode()) == HEADER_BLOCK


def test_a_mark_frame_names_the_mark(tmp_path: Path) -> None:
    """The record in a mark frame is the mark as published before that commit."""
    data = killed(tmp_path, one(b"a"), one(b"b"))
    (mark,) = frames(data, FrameType.MARK)
    first = frames(data)[0]
    record = msgspec.json.decode(mark.records()[0])
    assert record == {"seq": 1, "segment": first.segment.hex(), "offset": first.end, "next": {ACME.handle: 1}}


def test_lost_lock_files_do_not_turn_the_journal_round(tmp_path: Path) -> None:
    """Epochs begin anew with them; order, numbers and recovery stay as they were."""
    write(tmp_path, [b"a"], [b"b"])
    write(tmp_path, [b"c"])
    write(tmp_path)
    for path in (tmp_path / "locks").iterdir():
        path.unlink()
    write(tmp_path)
    write(tmp_path, [b"d"])
    assert events(tmp_path) == {0: b"a", 1: b"b", 2: b"c", 3: b"d"}
    assert not spans(tmp_path)
    assert [header.first_seq for _, header in segments(tmp_path)] == sorted(header.first_seq for _, header in segments(tmp_path))
