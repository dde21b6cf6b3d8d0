"""The file destination after crashes, rotation and other people's writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.delivery import make_cut, make_line
from tallystick.destinations.file import FileDestination, FileSettings
from tallystick.durable import set_observer
from tallystick.plugin import AnswerKind


def make(path: Path) -> FileDestination:
    return FileDestination("disk", FileSettings(path=str(path)))


def lines(first: int, count: int) -> list[bytes]:
    return [make_line(index) for index in range(first, first + count)]


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def expected(count: int) -> list[str]:
    return [f"acme-{index}" for index in range(count)]


@given(kept=st.integers(min_value=0, max_value=10_000), is_first=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_torn_tail_of_a_cut_is_completed(tmp_path: Path, kept: int, is_first: bool) -> None:
    """However many bytes of the cut a crash left in the file, sending it again leaves each event once."""
    path = tmp_path / f"{kept}-{is_first}.jsonl"
    path.unlink(missing_ok=True)
    destination = make(path)
    after = "" if is_first else (await destination.send(make_cut(destination, lines(0, 3)))).where
    first = 0 if is_first else 3
    cut = make_cut(destination, lines(first, 4), first, after=after)
    with path.open("ab") as file:
        file.write(cut.body[:kept])
    assert (await make(path).send(cut)).kind is AnswerKind.DELIVERED
    assert ids(path) == expected(first + 4)
    assert not path.with_name(path.name + ".salvage").exists()


async def test_more_than_the_cut_beyond_the_settled_offset_is_kept(tmp_path: Path) -> None:
    """An older state generation repeats two cuts: both are recognised, and nothing is cut off or doubled."""
    path = tmp_path / "events.jsonl"
    destination = make(path)
    settled = await destination.send(make_cut(destination, lines(0, 2)))
    second = make_cut(destination, lines(2, 2), 2, after=settled.where)
    answer = await destination.send(second)
    await destination.send(make_cut(destination, lines(4, 2), 4, after=answer.where))
    again = await make(path).send(second)
    await make(path).send(make_cut(destination, lines(4, 2), 4, after=again.where))
    assert ids(path) == expected(6)


@pytest.mark.parametrize("before", [b"", b'{"somebody":"else"}\n'])
@pytest.mark.parametrize("torn", [0, 1, 30])
async def test_a_whole_first_round_is_recognised(tmp_path: Path, before: bytes, torn: int) -> None:
    """Several cuts of the very first round were written and none settled: sent again, each event is there once."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(before)
    destination = make(path)
    cuts = [lines(0, 2), lines(2, 9), lines(11, 1)]
    for attempt in range(2):
        destination, after, first = make(path), "", 0
        for part in cuts:
            after = (await destination.send(make_cut(destination, part, first, after=after))).where
            first += len(part)
        if attempt == 0:
            os.truncate(path, path.stat().st_size - torn)
    assert path.read_bytes().startswith(before)
    assert [json.loads(line)["id"] for line in path.read_bytes()[len(before) :].splitlines()] == expected(12)


async def test_other_peoples_bytes_are_salvaged_not_destroyed(tmp_path: Path) -> None:
    """Bytes that are not this cut's are copied aside before the cut takes its place."""
    path = tmp_path / "events.jsonl"
    destination = make(path)
    settled = await destination.send(make_cut(destination, lines(0, 2)))
    with path.open("ab") as file:
        file.write(b"somebody was here\n")
    await destination.send(make_cut(destination, lines(2, 2), 2, after=settled.where))
    assert ids(path) == expected(4)
    assert (tmp_path / "events.jsonl.salvage").read_bytes() == b"somebody was here\n"


async def test_a_file_that_was_there_before_is_appended_to(tmp_path: Path) -> None:
    """The first cut goes behind what the operator's file holds; its unfinished last line is closed first."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id":"old-1"}\n{"id":"old-2"}')
    destination = make(path)
    cut = make_cut(destination, lines(0, 2))
    await destination.send(cut)
    await make(path).send(cut)
    assert ids(path) == ["old-1", "old-2", "acme-0", "acme-1"]


async def test_rotation_between_cuts_begins_a_new_file(tmp_path: Path) -> None:
    """logrotate moved the file away: the next cut starts the new one, and both together hold everything once."""
    path, rotated = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    destination = make(path)
    settled = await destination.send(make_cut(destination, lines(0, 3)))
    path.rename(rotated)
    await destination.send(make_cut(destination, lines(3, 3), 3, after=settled.where))
    assert ids(rotated) + ids(path) == expected(6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_rotation_over_a_crash_is_found_by_the_inode(tmp_path: Path, share: float) -> None:
    """A cut was written in part or whole, the answer lost, and the file rotated: each event is in one of the files, once."""
    path, rotated = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    destination = make(path)
    settled = await destination.send(make_cut(destination, lines(0, 3)))
    cut = make_cut(destination, lines(3, 3), 3, after=settled.where)
    with path.open("ab") as file:
        file.write(cut.body[: int(len(cut.body) * share)])
    path.rename(rotated)
    answer = await make(path).send(cut)
    assert answer.kind is AnswerKind.DELIVERED
    await make(path).send(make_cut(destination, lines(6, 2), 6, after=answer.where))
    assert ids(rotated) + ids(path) == expected(8)


async def test_copytruncate_begins_at_the_start(tmp_path: Path) -> None:
    """A file shorter than the settled offset is a new one."""
    path = tmp_path / "events.jsonl"
    destination = make(path)
    settled = await destination.send(make_cut(destination, lines(0, 3)))
    os.truncate(path, 0)
    await destination.send(make_cut(destination, lines(3, 2), 3, after=settled.where))
    assert ids(path) == ["acme-3", "acme-4"]


async def test_a_failed_sync_settles_nothing_and_the_retry_writes_the_bytes_again(tmp_path: Path) -> None:
    """After fsync failed the same bytes are written once more, since a later success says nothing about the first ones."""
    path = tmp_path / "events.jsonl"
    destination = make(path)
    cut = make_cut(destination, lines(0, 3))
    steps: list[str] = []

    def fail(step: str, where: Path | None, fd: int) -> None:
        steps.append(step)
        if step == "sync_data" and steps.count("sync_data") == 1:
            raise OSError(5, "Input/output error")

    set_observer(fail)
    try:
        assert (await destination.send(cut)).kind is AnswerKind.RETRY
        assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    finally:
        set_observer(None)
    assert steps.count("write") == 2
    assert ids(path) == expected(3)


async def test_the_new_files_directory_is_synced_before_anything_settles(tmp_path: Path) -> None:
    """Order of durable steps for a new file: its name, then the bytes, then their sync."""
    destination = make(tmp_path / "events.jsonl")
    steps: list[str] = []
    set_observer(lambda step, path, fd: steps.append(step))
    try:
        await destination.send(make_cut(destination, lines(0, 1)))
    finally:
        set_observer(None)
    assert steps[-3:] == ["sync_dir", "write", "sync_data"]
    assert set(steps[:-3]) <= {"sync_dir"}  # the directory's own name, which this process may be the first to rely on
