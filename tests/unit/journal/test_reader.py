"""Readers, cursors, followers and retiring."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from support.journal_kit import (
    ACME,
    KEYS,
    append,
    events,
    flip,
    frames,
    read_all,
    segments,
    spans,
    with_journal,
    write,
)
from tallystick.errors import TransientError, UnreadableError
from tallystick.journal.cursor import START, Cursor, Position
from tallystick.journal.follower import Follower, Items
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.retire import retire_segments
from tallystick.journal.writer import Journal
from tallystick.telemetry import read_status


def lines_of(items: Items) -> list[bytes]:
    return [line for item in items if isinstance(item, Frame) and item.type == FrameType.EVENTS for line in item.lines()]


def seal_up(path: Path, offset: int, first: bytes) -> None:
    """Change a byte of ciphertext and repair the checksum, as malice would."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[offset : offset + 4], "big") + 8
    data[offset + 70] ^= 1
    crc = google_crc32c.extend(google_crc32c.value(first), bytes(data[offset + 8 : offset + size]))
    data[offset + 4 : offset + 8] = crc.to_bytes(4, "big")
    path.write_bytes(bytes(data))


def test_a_reader_before_the_first_writer_waits(tmp_path: Path) -> None:
    """No directory yet is no error: nothing to read, and reading starts when there is."""
    reader = JournalReader(tmp_path, KEYS)
    position = reader.oldest()
    assert position == START
    assert reader.read(position) == ([], START)
    assert not reader.wait(position, 0.01)
    write(tmp_path, [b"a"])
    assert reader.wait(position, 5)
    items: Items = []
    while not items:
        items, position = reader.read(position)
    assert lines_of(items) == [b"a"]


def test_a_reader_follows_over_rotations(tmp_path: Path) -> None:
    """While the writer goes through many segments, a reader gets every line once and in order."""
    got: list[bytes] = []
    sent = [b"%d %s" % (number, os.urandom(600).hex().encode()) for number in range(300)]

    def follow(stop: threading.Event) -> None:
        reader = JournalReader(tmp_path, KEYS)
        position = reader.oldest()
        while len(got) < len(sent) and not stop.is_set():
            items, position = reader.read(position)
            assert not [item for item in items if isinstance(item, DamagedSpan)]
            got.extend(lines_of(items))
            reader.wait(position, 0.05, stop)

    async def work(journal: Journal) -> None:
        stop = threading.Event()
        follower = asyncio.create_task(asyncio.to_thread(follow, stop))
        for line in sent:
            await append(journal, line)
        async with asyncio.timeout(10):
            await follower

    with_journal(tmp_path, work, segment="64KiB")
    assert got == sent
    assert len(segments(tmp_path)) > 3


def test_small_reads_give_the_same_as_large_ones(tmp_path: Path) -> None:
    """Blocks that cut frames anywhere, also smaller than a frame, change nothing."""
    write(tmp_path, *[[os.urandom(200).hex().encode()] for _ in range(20)])
    reader = JournalReader(tmp_path, KEYS)
    position, got = reader.oldest(), []
    while True:
        items, following = reader.read(position, 700)
        if following == position:
            break
        got += lines_of(items)
        position = following
    assert got == list(events(tmp_path).values())


def test_damage_is_a_span_and_reading_goes_on(tmp_path: Path) -> None:
    """A flipped bit at rest in a closed segment: exactly that frame is named, everything else is read."""
    write(tmp_path, [b"a"], [b"b1", b"b2"], [b"c"])
    write(tmp_path, [b"d"])
    hit = frames(tmp_path)[1]
    flip(segments(tmp_path)[0][0], hit.offset + 60)
    (span,) = spans(tmp_path)
    assert span == DamagedSpan(hit.segment, hit.offset, hit.end, 2, 3, {ACME.handle: (1, 2)})
    assert events(tmp_path) == {0: b"a", 3: b"c", 4: b"d"}


def test_damage_at_the_end_of_a_closed_segment(tmp_path: Path) -> None:
    """The successor's first seq says which entries the damaged end held."""
    write(tmp_path, [b"a"], [b"b"])
    write(tmp_path, [b"c"])
    path = segments(tmp_path)[0][0]
    os.truncate(path, frames(tmp_path)[1].offset + 1)
    (span,) = spans(tmp_path)
    assert (span.first_seq, span.last_seq) == (2, 2)
    assert events(tmp_path) == {0: b"a", 2: b"c"}


def test_a_forged_checksum_does_not_help(tmp_path: Path) -> None:
    """A changed frame whose CRC was repaired fails its AEAD, and is damage like any other."""
    write(tmp_path, [b"a"], [b"b"], [b"c"])
    path, header = segments(tmp_path)[0]
    hit = frames(tmp_path)[1]
    seal_up(path, hit.offset, header.uuid)
    assert events(tmp_path) == {0: b"a", 2: b"c"}
    (span,) = spans(tmp_path)
    assert (span.start, span.first_seq, span.last_seq) == (hit.offset, 2, 2)


def test_unreadable_pages_are_a_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO on one page of a segment costs the frames on that page; the others are delivered."""
    lines = [b"%04d" % number for number in range(200)]
    write(tmp_path, *[[line] for line in lines])
    pread = os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        if offset < 12_288 and offset + size > 8_192 and os.readlink(f"/proc/self/fd/{fd}").endswith(".seg"):
            raise OSError(5, "injected")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    items = read_all(tmp_path, patience_s=0)
    (span,) = [item for item in items if isinstance(item, DamagedSpan)]
    kept = {
        item.first_index + place: line for item in items if isinstance(item, Frame) for place, line in enumerate(lines_of([item]))
    }
    assert span.end >= 8_192
    assert span.start < 12_288
    assert 100 < len(kept) < 200
    assert all(kept[index] == lines[index] for index in kept)


def test_a_reader_that_stood_at_the_mark_goes_on_into_later_segments(tmp_path: Path) -> None:
    """The segment that was active when it was listed has ended since: its rest is given at once, not after another look."""
    write(tmp_path, [b"a"])
    reader = JournalReader(tmp_path, KEYS)
    _, position = reader.read(reader.oldest())

    with_journal(tmp_path, more_of(b"b"))
    with_journal(tmp_path, more_of(b"c"))
    items: Items = []
    while lines_of(items) != [b"b", b"c"]:
        found, after = reader.read(position)
        assert found or after != position, "nothing, though the mark is ahead"
        items += found
        position = after


def more_of(line: bytes) -> Callable[[Journal], Coroutine[Any, Any, object]]:
    """Work that appends one line."""

    async def work(journal: Journal) -> object:
        return await append(journal, line)

    return work


def test_read_errors_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages, an open or a header that give EIO are no damage until the patience ends; when the disk is back nothing was skipped."""
    write(tmp_path, [b"a"], [b"b"])
    write(tmp_path, [b"c"])

    def failing(*_: object, **__: object) -> bytes:
        raise OSError(5, "injected")

    reader = JournalReader(tmp_path, KEYS, patience_s=60)
    position, items = reader.oldest(), []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        for _ in range(3):
            with pytest.raises(UnreadableError):
                reader.read(position)
    while True:
        found, after = reader.read(position)
        items += found
        if after == position:
            break
        position = after
    assert lines_of(items) == [b"a", b"b", b"c"]
    assert not [item for item in items if isinstance(item, DamagedSpan)]


def test_an_unreadable_header_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment between two others whose header gives EIO is not passed over while the patience lasts."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    reader = JournalReader(tmp_path, KEYS, patience_s=60)
    hidden, _ = segments(tmp_path)[1]
    away = hidden.rename(hidden.with_suffix(".away"))
    hidden.mkdir()  # open succeeds, read fails with an error
    position, items = reader.oldest(), []
    for _ in range(10):
        try:
            found, position = reader.read(position)
        except UnreadableError:
            if away.exists():
                hidden.rmdir()
                away.rename(hidden)
            continue
        items += found
    assert not away.exists()
    assert lines_of(items) == [b"a", b"b", b"c"]


def test_offline_without_mark(tmp_path: Path) -> None:
    """A copied directory without MARK is read to its last whole group."""
    write(tmp_path, [b"a"], [b"b"])
    write(tmp_path, [b"c"])
    (tmp_path / "journal" / "MARK").unlink()
    assert lines_of(read_all(tmp_path, is_offline=True)) == [b"a", b"b", b"c"]
    assert read_all(tmp_path) == []


def test_a_position_survives_its_segment(tmp_path: Path) -> None:
    """When the segment of a cursor is gone, reading goes on at the seq that the cursor names."""
    write(tmp_path, [b"a"], [b"b"], [b"c"])
    reader = JournalReader(tmp_path, KEYS)
    items, position = reader.read(Position(bytes(range(16)), 99, 2))
    items, position = reader.read(position)
    assert lines_of(items) == [b"b", b"c"]
    assert position.seq == 4


def test_cursor_round_trip_and_damage(tmp_path: Path) -> None:
    """A cursor keeps position and extra; with one copy damaged the older one is used, with both none."""
    cursor = Cursor(tmp_path, "sealer")
    assert cursor.load() is None
    cursor.save(Position(b"s" * 16, 4096, 1), {"size": 1})
    cursor.save(Position(b"s" * 16, 5000, 9), {"size": 2})
    again = Cursor(tmp_path, "sealer")
    assert again.load() == Position(b"s" * 16, 5000, 9)
    assert again.extra == {"size": 2}
    slots = sorted((tmp_path / "cursors").glob("sealer.*"))
    newest = next(slot for slot in slots if b'"size":2' in slot.read_bytes())
    newest.write_bytes(b"noise")
    damaged = Cursor(tmp_path, "sealer")
    assert damaged.load() == Position(b"s" * 16, 4096, 1)
    assert damaged.is_damaged
    for slot in slots:
        slot.write_bytes(b"noise")
    assert Cursor(tmp_path, "sealer").load() is None


def drain(follower: Follower) -> None:
    while follower.step():
        pass


def test_a_follower_goes_on_where_it_was(tmp_path: Path) -> None:
    """Handled once per life in order; after a restart it resumes at its cursor, with what it kept beside it."""
    got: list[bytes] = []

    def handle(items: Items, position: Position) -> dict[str, object]:
        got.extend(lines_of(items))
        return {"count": len(got)}

    write(tmp_path, [b"a"], [b"b"])
    first = Follower("test", tmp_path, KEYS, handle)
    drain(first)
    write(tmp_path, [b"c"])
    second = Follower("test", tmp_path, KEYS, handle)
    assert second.status() == {"seq": 2, "lag": 1, "reason": None, "count": 2}
    drain(second)
    assert got == [b"a", b"b", b"c"]
    assert second.status()["lag"] == 0


def test_a_crash_before_the_cursor_repeats_work(tmp_path: Path) -> None:
    """A follower that dies in `handle` gets the same items again: duplicates, never loss."""
    got: list[bytes] = []
    write(tmp_path, [b"a"])

    def die(items: Items, position: Position) -> None:
        got.extend(lines_of(items))
        if len(got) == 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        drain(Follower("test", tmp_path, KEYS, die))
    drain(Follower("test", tmp_path, KEYS, die))
    assert got == [b"a", b"a"]


def test_a_transient_error_is_retried_and_told(tmp_path: Path) -> None:
    """While `handle` cannot go on, status says why; then the same items go through."""
    write(tmp_path, [b"a"])
    told: list[str | None] = []
    calls = 0

    def handle(items: Items, position: Position) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TransientError("the store is down")
        told.append((read_status(tmp_path, "test") or {})["reason"])

    follower = Follower("test", tmp_path, KEYS, handle)
    drain(follower)
    assert calls == 2
    assert told == ["the store is down"]
    assert follower.reason is None


def test_run_stops_and_saves(tmp_path: Path) -> None:
    """`run` follows a live writer until it is stopped, and leaves its cursor at the end."""
    got: list[bytes] = []
    stop = threading.Event()

    def handle(items: Items, position: Position) -> None:
        got.extend(lines_of(items))

    async def work(journal: Journal) -> None:
        follower = Follower("test", tmp_path, KEYS, handle, cursor_interval_s=60)
        running = asyncio.create_task(asyncio.to_thread(follower.run, stop))
        for number in range(5):
            await append(journal, b"%d" % number)
        async with asyncio.timeout(5):
            while len(got) < 5:
                await asyncio.sleep(0.005)
        stop.set()
        await running

    with_journal(tmp_path, work)
    saved = Cursor(tmp_path, "test").load()
    assert saved is not None
    assert saved.seq == 6


def test_segments_go_when_everyone_has_passed(tmp_path: Path) -> None:
    """Retiring stops at the slowest cursor, never takes the active segment, and needs every cursor to be readable."""
    for line in (b"a", b"b", b"c"):
        write(tmp_path, [line])
    names = [path.name for path, _ in segments(tmp_path)]
    sealer = Follower("sealer", tmp_path, KEYS, lambda items, position: None)
    assert retire_segments(tmp_path, ["sealer"]) == []
    drain(sealer)
    Cursor(tmp_path, "archiver").save(Position(segments(tmp_path)[1][1].uuid, 4096, 2))
    assert retire_segments(tmp_path, ["sealer", "archiver", "missing"]) == []
    assert retire_segments(tmp_path, ["sealer", "archiver"]) == names[:1]
    archiver = Follower("archiver", tmp_path, KEYS, lambda items, position: None)
    drain(archiver)
    assert retire_segments(tmp_path, ["sealer", "archiver"]) == names[1:2]
    assert [path.name for path, _ in segments(tmp_path)] == names[2:]
    write(tmp_path, [b"d"])
    assert events(tmp_path) == {2: b"c", 3: b"d"}
    assert spans(tmp_path) == []


def test_retiring_waits_for_dedupe(tmp_path: Path) -> None:
    """A segment whose ids are not in dedupe's own files is kept."""
    write(tmp_path, [b"a"])
    write(tmp_path, [b"b"])
    drain(Follower("sealer", tmp_path, KEYS, lambda items, position: None))
    for slot in (tmp_path / "cursors").glob("dedupe.*"):
        slot.unlink()
    assert retire_segments(tmp_path, ["sealer"]) == []
    Cursor(tmp_path, "dedupe").save(Position(bytes(16), 0, 2))
    assert len(retire_segments(tmp_path, ["sealer"])) == 1
