"""The source `file` over an intake: offsets follow commits, and a slow intake holds it back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.running import Running, context_of, until
from tallystick.config import Duration, Size
from tallystick.sources.file import FileSettings, FileSource
from tallystick.testing.source import MemoryIntake


def source_in(directory: Path, **settings: Any) -> FileSource:
    given = {"paths": ("*.log",), "poll": Duration("10ms"), "rotate_wait": Duration("50ms"), **settings}
    return FileSource(FileSettings(**given), context_of(directory, "audit"))


def lines(run: Running) -> list[str]:
    return [record.data.decode() for record in run.intake.records]


@pytest.mark.parametrize("watch", ["poll", "inotify"])
async def test_lines_are_committed_as_they_come(tmp_path: Path, watch: str) -> None:
    """Written, committed, noted as read; a second run goes on where the first ended. With inotify the next poll is not waited for."""
    file = tmp_path / "a.log"
    file.write_text("1\n2\n")
    poll = Duration("10ms" if watch == "poll" else "1h")
    run = Running(source_in(tmp_path, watch=watch, poll=poll), MemoryIntake())
    await until(lambda: len(run.intake.records) == 2, "two lines")
    await asyncio.sleep(0.3 if watch == "inotify" else 0)  # the kernel's watch is being set up meanwhile
    with file.open("a") as out:
        out.write("3\n")
    await until(lambda: len(run.intake.records) == 3, "the third line")
    await until(lambda: run.page["unread_bytes"] == 0, "everything to be read")
    assert run.page["files"] == 1
    assert run.page["reason"] == ""
    await run.end()
    again = Running(source_in(tmp_path), MemoryIntake())
    with file.open("a") as out:
        out.write("4\n")
    await until(lambda: lines(again) == ["4"], "the fourth line alone")
    assert again.intake.records[0].id != run.intake.records[0].id
    await again.end()


async def test_a_slow_intake_holds_it_back(tmp_path: Path) -> None:
    """While a commit waits nothing more is read, however much there is, and what is not committed is not noted as read."""
    (tmp_path / "a.log").write_text("".join(f"{number:063d}\n" for number in range(200_000)))
    intake = MemoryIntake()
    intake.is_open.clear()
    run = Running(source_in(tmp_path), intake)
    await until(lambda: run.page.get("unread_bytes", 0) > 10_000_000, "the source to wait")
    waiting = run.page["unread_bytes"]
    await asyncio.sleep(0.1)
    assert run.page["unread_bytes"] == waiting
    assert intake.records == []
    intake.is_open.set()
    await until(lambda: len(intake.records) == 200_000, "all lines", 30)
    assert max(intake.commits) < 20_000
    assert lines(run) == [f"{number:063d}" for number in range(200_000)]
    await run.end()


async def test_what_was_not_committed_is_read_again(tmp_path: Path) -> None:
    """A commit that the stop of the server ends leaves its lines to the next run, under the same ids."""
    (tmp_path / "a.log").write_text("1\n2\n")
    intake = MemoryIntake()
    intake.is_open.clear()
    intake.is_stopping = True
    run = Running(source_in(tmp_path), intake)
    with pytest.raises(Exception, match="the server stops"):
        await run.task
    again = Running(source_in(tmp_path), MemoryIntake())
    await until(lambda: lines(again) == ["1", "2"], "both lines")
    await again.end()


async def test_long_lines_and_gaps_are_told(tmp_path: Path) -> None:
    """The beginning of a line that is too long goes to the quarantine; bytes that are gone go into the account."""
    file = tmp_path / "a.log"
    file.write_text("x" * 5000 + "\n1\n")
    run = Running(source_in(tmp_path, line_max=Size("1KiB")), MemoryIntake())
    await until(lambda: run.intake.faults and lines(run) == ["1"], "the long line and the other")
    assert run.intake.faults[0].code == "line_too_long"
    await run.end()
    with file.open("a") as out:
        out.write("2\n" + "y" * 100)  # the last line is seen, is not whole, and gone by the next run
    again = Running(source_in(tmp_path), MemoryIntake())
    await until(lambda: lines(again) == ["2"], "the second line")
    await again.end()
    file.unlink()
    more = Running(source_in(tmp_path), MemoryIntake())
    await until(lambda: more.intake.gaps, "a gap")
    (gap,) = more.intake.gaps.values()
    assert (gap["path"], gap["to_byte"] - gap["from_byte"]) == (str(file), 100)
    await more.end()
