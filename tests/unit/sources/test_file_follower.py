"""The follower of files: every line once, whatever becomes of the names."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallystick.config import Duration, Size
from tallystick.errors import ConfigError
from tallystick.sources.file import FileSettings
from tallystick.sources.file.follower import Follower
from tallystick.sources.file.tail import Portion


class Kit:
    """A directory with a log, and a follower that is started, stopped and killed. ``now`` is its clock."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.log = directory / "app.log"
        self.settings = FileSettings(paths=("app.log",), **settings)
        self.now = 0.0
        self.ids: list[str] = []
        self.got: list[str] = []
        self.faults: list[Any] = []
        self.gaps: list[dict[str, Any]] = []
        self.rewritten = 0
        self.start()

    def start(self) -> None:
        self.follower = Follower(self.settings, self.directory, self.directory / "state", clock=lambda: self.now)

    def write(self, text: str, name: str = "app.log") -> None:
        with (self.directory / name).open("a") as file:
            file.write(text)

    def drain(self, *, wait_s: float = 0.0) -> list[str]:
        """Look and read until nothing comes; the records, which are settled and saved."""
        self.now += wait_s
        before = len(self.got)
        while True:
            self.follower.scan()
            portion = self.follower.read()
            self._take(portion)
            self.follower.settle(portion)
            changes = self.follower.take_changes()
            self.gaps += [facts for _, facts in changes.gaps]
            self.rewritten += changes.rewritten
            if not portion.tails and not changes.rewritten:
                break
        self.follower.save()
        return self.got[before:]

    def crash_after_commit(self) -> None:
        """A portion is committed, and the process ends before its offset is saved."""
        self.follower.scan()
        self._take(self.follower.read())
        self.restart(save=False)

    def restart(self, *, save: bool = True) -> None:
        if save:
            self.follower.save()
        self.follower.close()
        self.start()

    def once(self) -> list[str]:
        """What the journal holds: records by id."""
        return list(dict(zip(self.ids, self.got, strict=True)).values())

    def _take(self, portion: Any) -> None:
        for record in portion.records:
            self.ids.append(record.id)
            self.got.append(record.data.decode())
        self.faults += portion.faults


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path, rotate_wait=Duration("5s"))


def test_new_lines_are_read_once(kit: Kit) -> None:
    """Lines come as they are written; the last one waits for its line feed."""
    kit.write("one\ntwo\nthr")
    assert kit.drain() == ["one", "two"]
    assert kit.drain() == []
    kit.write("ee\n\nfour\n")
    assert kit.drain() == ["three", "four"]


def test_renamed_and_created(kit: Kit) -> None:
    """What is still written to the renamed file is read, before the new file's lines; then it is let go with its last line."""
    kit.write("1\n2\n")
    kit.drain()
    kit.log.rename(kit.directory / "app.log.1")
    kit.write("3\n", "app.log.1")
    kit.write("4\n")
    assert kit.drain() == ["3", "4"]
    kit.write("late", "app.log.1")
    assert kit.drain(wait_s=4) == []
    assert kit.drain(wait_s=6) == ["late"]
    assert [tail.entry.path for tail in kit.follower.tails.values()] == [str(kit.log)]


def test_two_rotations_between_two_looks(kit: Kit) -> None:
    """A file that came and went between two looks is found under its rotated name and read whole; older ones are left alone."""
    kit.write("ancient\n", "app.log.3")
    os.utime(kit.directory / "app.log.3", ns=(1, 1))
    kit.write("1\n")
    kit.drain()
    kit.log.rename(kit.directory / "app.log.2")
    kit.write("2\n")
    kit.log.rename(kit.directory / "app.log.1")
    kit.write("3\n")
    assert sorted(kit.drain()) == ["2", "3"]


@pytest.mark.parametrize("is_down", [False, True])
def test_deleted_with_a_rest(kit: Kit, *, is_down: bool) -> None:
    """While it runs, the rest is read from the open file; gone while it was down, the missing bytes are on record."""
    kit.write("1\n")
    kit.drain()
    kit.write("2\n3")
    if is_down:
        kit.follower.read()  # its size is known, the lines are not committed
        kit.restart()
    kit.log.unlink()
    kit.write("4\n")
    assert kit.drain() + kit.drain(wait_s=6) == (["4"] if is_down else ["2", "4", "3"])
    assert [(gap["from_byte"], gap["to_byte"]) for gap in kit.gaps] == ([(2, 5)] if is_down else [])


def test_truncated(kit: Kit) -> None:
    """An emptied file is another file: its lines are new, though they stand where others stood and read the same."""
    kit.write("same\nsame\n")
    kit.drain()
    os.truncate(kit.log, 0)
    kit.write("same\n")
    assert kit.drain() == ["same"]
    assert len(set(kit.ids)) == 3
    assert kit.rewritten == 1
    assert kit.gaps == []


def test_truncated_and_longer_than_before(kit: Kit) -> None:
    """A file that was emptied and has outgrown its old length by the next look is found by its bytes."""
    kit.write("old 1\nold 2\n")
    kit.drain()
    kit.log.write_text("new 1\nnew 2\nnew 3\n")
    assert kit.drain() == ["new 1", "new 2", "new 3"]


def test_truncated_with_an_unread_rest(kit: Kit) -> None:
    """Bytes that were seen and not read before they were cut off are on record as missing, once no copy was found."""
    kit.write("1\n" + "x" * 30 + "\n")
    kit.follower.scan()
    (tail,) = kit.follower.tails.values()
    tail.read(portion := Portion(), 2, 0.0)
    tail.is_rewritten()
    kit.follower.settle(portion)
    kit.log.write_text("2\n")
    assert kit.drain() == ["2"]
    kit.drain(wait_s=6)
    assert [(gap["from_byte"], gap["to_byte"]) for gap in kit.gaps] == [(2, 33)]


def test_cut_at_its_end(kit: Kit) -> None:
    """A file that lost its last bytes, as by a power cut, is read again from its beginning: where the new bytes begin is not known."""
    kit.write("1\n2\n3\n")
    kit.drain()
    os.truncate(kit.log, 4)
    kit.write("after\n")
    assert kit.drain() == ["1", "2", "after"]


@pytest.mark.parametrize("is_down", [False, True])
def test_copied_and_truncated(kit: Kit, *, is_down: bool) -> None:
    """The rest that was not read before `copytruncate` is read from the copy, once, and the copy is not read as a file of its own."""
    kit.write("1\n2\n")
    kit.drain()
    if is_down:
        kit.restart()
    kit.write("3\n")
    shutil.copy(kit.log, kit.directory / "app.log.1")
    os.truncate(kit.log, 0)
    kit.write("4\n")
    assert sorted(kit.drain()) == ["3", "4"]
    kit.drain(wait_s=6)
    kit.restart()
    assert kit.drain() == []
    assert kit.gaps == []


def test_a_copy_that_is_being_made_is_no_new_file(tmp_path: Path) -> None:
    """With a pattern that names the copies too, a copy is known by its bytes, before the truncation and after it."""
    kit = Kit(tmp_path, rotate_wait=Duration("5s"))
    kit.settings = FileSettings(paths=("app.log*",), rotate_wait=Duration("5s"))
    kit.restart()
    kit.write("1\n2\n3\n")
    kit.drain()
    kit.write("1\n2\n", "app.log.1")
    assert kit.drain() == []
    kit.write("3\n", "app.log.1")
    os.truncate(kit.log, 0)
    kit.write("4\n")
    assert kit.drain() == ["4"]


COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_with_a_rest(kit: Kit, suffix: str) -> None:
    """Rotated and compressed while the server was down: only what was not read is taken from the compressed file, under the old ids."""
    kit.write("".join(f"line {number}\n" for number in range(500)))
    kit.drain()
    kit.write("rest 1\nrest 2")
    data = kit.log.read_bytes()
    kit.restart()
    kit.log.unlink()
    (kit.directory / f"app.log.1{suffix}").write_bytes(COMPRESSORS[suffix](data))
    kit.write("new\n")
    assert sorted(kit.drain()) == ["new", "rest 1", "rest 2"]
    assert len({name.split(":")[0] for name in kit.ids}) == 2
    kit.restart()
    assert kit.drain() == []
    assert kit.gaps == []


def test_a_file_that_is_still_being_compressed(kit: Kit) -> None:
    """Half of a compressed file is no error for good: it is read when it is whole."""
    kit.write("1\n")
    kit.drain()
    kit.write("".join(f"{number} {os.urandom(8).hex()}\n" for number in range(2, 400)))
    data = gzip.compress(kit.log.read_bytes())
    kit.restart()
    kit.log.unlink()
    target = kit.directory / "app.log.1.gz"
    (kit.directory / "other").touch()  # takes the inode that has become free
    target.write_bytes(data[: len(data) // 2])
    kit.follower.scan()
    kit.drain()
    assert "cannot be decompressed" in kit.follower.problems[str(target)] or not kit.follower.problems
    target.write_bytes(data)
    kit.drain(wait_s=20)
    assert [line.split()[0] for line in kit.once()] == [str(number) for number in range(1, 400)]


def test_a_crash_between_commit_and_save(kit: Kit) -> None:
    """What was committed and not noted as read is read again, under the same ids."""
    kit.write("1\n2\n")
    kit.crash_after_commit()
    kit.write("3\n")
    kit.drain()
    assert kit.got == ["1", "2", "1", "2", "3"]
    assert kit.once() == ["1", "2", "3"]


def test_a_lost_register(kit: Kit) -> None:
    """With both copies of the register damaged files are read again from the beginning, under the same ids."""
    kit.write("1\n2\n")
    kit.drain()
    kit.follower.close()
    for slot in (kit.directory / "state").iterdir():
        slot.write_bytes(b"damaged")
    kit.start()
    assert kit.drain() == ["1", "2"]
    assert len(set(kit.ids)) == 2


def test_an_inode_used_again(kit: Kit) -> None:
    """A new file under an old inode's number is a new file: its bytes tell."""
    kit.write("old 1\n")
    kit.drain()
    kit.restart()
    kit.log.write_text("new 1\nnew 2\n")  # the same inode
    assert kit.drain() == ["new 1", "new 2"]


def test_long_lines_go_to_the_quarantine(tmp_path: Path) -> None:
    """The beginning of a line over the bound is kept with its place and length; the lines around it are read."""
    kit = Kit(tmp_path, line_max=Size("1KiB"))
    kit.write("a\n" + "x" * 600_000 + "\nb\n")
    assert kit.drain() == ["a", "b"]
    (fault,) = kit.faults
    assert fault.code == "line_too_long"
    assert fault.record == b"x" * 1024
    assert "at byte 2" in fault.message
    assert "600000 bytes" in fault.message


def test_records_of_several_lines(tmp_path: Path) -> None:
    """A stack trace is one record; a crash in the middle of one loses and repeats nothing."""
    kit = Kit(tmp_path, start=r"^\d{4}-")
    kit.write("2026-01-01 a\n  at x\n2026-01-01 b\n  at y\n")
    assert kit.drain() == ["2026-01-01 a\n  at x"]
    kit.restart()
    kit.write("  at z\n2026-01-01 c\n")
    assert kit.drain() == ["2026-01-01 b\n  at y\n  at z"]
    assert kit.drain(wait_s=3) == ["2026-01-01 c"]


def test_audit_records_are_joined_by_serial(tmp_path: Path) -> None:
    """Mixed lines of two serials become two records, over a restart in between too."""
    kit = Kit(tmp_path, join="auditd")
    one, two = "msg=audit(1700000000.123:71)", "msg=audit(1700000000.124:72)"
    kit.write(f"type=SYSCALL {one}: syscall=59\ntype=SYSCALL {two}: syscall=2\ntype=EXECVE {one}: argc=1\n")
    kit.write(f"type=PATH {two}: item=0\ntype=EOE {two}: \n")
    assert [len(record.split("\n")) for record in kit.drain()] == [3]
    kit.restart()
    kit.write(f"type=EOE {one}: \n")
    (record,) = kit.drain()
    assert [line.split()[0] for line in record.split("\n")] == ["type=SYSCALL", "type=EXECVE", "type=EOE"]


def test_from_the_end(tmp_path: Path) -> None:
    """What is there at the first start is left out, but for a line that is not whole; what comes later is read from its beginning."""
    (tmp_path / "app.log").write_text("old\nhalf")
    kit = Kit(tmp_path, read_from="end")
    assert kit.drain() == []
    kit.write(" and half\n")
    assert kit.drain() == ["half and half"]
    kit.restart()
    kit.log.rename(tmp_path / "app.log.1")
    kit.write("new\n")
    assert kit.drain() == ["new"]


def test_descriptors_are_bounded(tmp_path: Path) -> None:
    """With more files than may be open, all are read, and those that change are opened again."""
    kit = Kit(tmp_path, files_max=3)
    kit.settings = FileSettings(paths=("*.log",), files_max=3)
    kit.restart()
    for number in range(10):
        kit.write(f"{number}\n", f"{number}.log")
    assert sorted(kit.drain()) == [str(number) for number in range(10)]
    kit.follower.scan()
    assert len(kit.follower.tails) == 3
    for number in range(10):
        kit.write(f"{number}+\n", f"{number}.log")
    assert sorted(kit.drain()) == [f"{number}+" for number in range(10)]


def test_odd_files(tmp_path: Path) -> None:
    """A pipe and a directory are no files; one that may not be read is a problem in status, and not the end of the others."""
    kit = Kit(tmp_path)
    kit.settings = FileSettings(paths=("*",), exclude=("*.skip",))
    kit.restart()
    os.mkfifo(tmp_path / "pipe")
    kit.write("\ufeffa\r\nb\r\n")
    kit.write("no\n", "x.skip")
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    assert kit.drain() == ["a", "b"]
    assert list(kit.follower.problems) == [str(tmp_path / "broken.gz")]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"start": "("}, "start"),
        ({"join": "x"}, "join"),
        ({"start": "a", "join": "auditd"}, "join"),
        ({"join_end": "x"}, "join_end"),
    ],
)
def test_settings_that_do_not_go(settings: dict[str, Any], place: str) -> None:
    """Patterns that RE2 does not take, a key without a group, and ways that exclude each other are refused with the setting's name."""
    with pytest.raises(ConfigError) as caught:
        FileSettings(paths=("x",), **settings).check(Path())
    assert caught.value.place == place


def test_old_entries_are_forgotten(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many entries of files that are gone are kept."""
    monkeypatch.setattr("tallystick.sources.file.register.GONE_MAX", 3)
    for number in range(8):
        kit.write(f"{number}\n")
        kit.drain()
        kit.log.unlink()
        kit.drain()
        kit.drain(wait_s=6)
    assert kit.got == [str(number) for number in range(8)]
    assert len(kit.follower._register.entries) == 3
