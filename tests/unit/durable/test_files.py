"""The durable steps: in which order they happen, and what readers see."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tallystick import durable

Step = tuple[str, str]


@pytest.fixture
def steps() -> Iterator[list[Step]]:
    """Every durable step with the name of the file it was told."""
    seen: list[Step] = []
    durable.set_observer(lambda operation, path, fd: seen.append((operation, path.name if path else "")))
    yield seen
    durable.set_observer(None)


def test_replacing_syncs_before_the_name_moves(tmp_path: Path, steps: list[Step]) -> None:
    """Bytes, then the name, then the directory."""
    durable.replace_file(tmp_path / "x", b"data")
    assert steps == [("write", ""), ("sync_file", ""), ("rename", "x"), ("sync_dir", tmp_path.name)]
    assert (tmp_path / "x").read_bytes() == b"data"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_volatile_file_costs_no_sync(tmp_path: Path, steps: list[Step]) -> None:
    """But is replaced in one step as well."""
    durable.replace_volatile(tmp_path / "x", b"data")
    assert steps == [("write", "")]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_readers_see_old_or_new_and_nothing_between(tmp_path: Path) -> None:
    """Hundreds of replacements beside a reader."""
    path, bodies = tmp_path / "x", {bytes([65 + n]) * (n * 1000 + 1) for n in range(5)}
    durable.replace_volatile(path, min(bodies))
    seen, is_done = set(), threading.Event()

    def read() -> None:
        while not is_done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(60):
        for body in bodies:
            durable.replace_volatile(path, body)
    is_done.set()
    reader.join()
    assert seen <= bodies


@pytest.mark.parametrize("create", [durable.write_new, durable.publish_new])
def test_new_files_replace_nothing(tmp_path: Path, create: object, steps: list[Step]) -> None:
    """A name that is taken is an error, and its bytes stay; a new one ends with a sync of the directory."""
    assert callable(create)
    create(tmp_path / "x", b"first")
    assert steps[-1] == ("sync_dir", tmp_path.name)
    with pytest.raises(FileExistsError):
        create(tmp_path / "x", b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"first"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link that somebody planted under our temporary name is no way to write elsewhere."""
    (tmp_path / "x.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        durable.replace_file(tmp_path / "x", b"data")
    assert not (tmp_path / "elsewhere").exists()


def test_directories_are_made_for_their_owner_and_synced(tmp_path: Path, steps: list[Step]) -> None:
    """Each parent that gained a name, from above; what is there stays as it is."""
    durable.make_dir(tmp_path / "a" / "b")
    assert steps[-2:] == [("sync_dir", tmp_path.name), ("sync_dir", "a")]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    steps.clear()
    durable.make_dir(tmp_path / "a" / "b")
    assert steps == []


def test_a_directory_that_is_there_is_synced_once(tmp_path: Path, steps: list[Step]) -> None:
    """Whoever made it may have been killed before the sync. A parent that is not ours to open is let be; an error is not."""
    (tmp_path / "a").mkdir()
    durable.make_dir(tmp_path / "a")
    assert steps == [("sync_dir", tmp_path.name)]
    durable.make_dir(tmp_path / "a")
    assert len(steps) == 1
    for code, is_ours in ((errno.EACCES, False), (errno.EIO, True)):
        (tmp_path / str(code)).mkdir()
        durable.set_observer(_failing(code))
        with pytest.raises(OSError, match="injected") if is_ours else contextlib.nullcontext():
            durable.make_dir(tmp_path / str(code))


def _failing(code: int) -> Callable[[str, Path | None, int], None]:
    def fail(operation: str, path: Path | None, fd: int) -> None:
        raise OSError(code, "injected")

    return fail


def test_writes_go_on_after_short_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take part of a buffer; all of it is written, at its place or at the end."""
    pwrite, write = os.pwrite, os.write
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:3], at))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    durable.write_all(fd, b"0123456789", 2)
    os.close(fd)
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_APPEND)
    durable.append_all(fd, b"abcdefgh")
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"\0\x000123456789abcdefgh"


def test_sizes_are_made_and_cut_with_a_sync(tmp_path: Path) -> None:
    """Zeros ahead, and away again."""
    with (tmp_path / "x").open("w+b") as file:
        durable.preallocate(file.fileno(), 5000)
        assert (tmp_path / "x").read_bytes() == bytes(5000)
        durable.truncate(file.fileno(), 7)
        assert (tmp_path / "x").stat().st_size == 7


def test_names_go_and_move_durably(tmp_path: Path, steps: list[Step]) -> None:
    """Each with a sync of the directory; removing what is not there is no error unless it is asked for."""
    (tmp_path / "x").write_text("x")
    durable.rename(tmp_path / "x", tmp_path / "y")
    durable.unlink(tmp_path / "y")
    durable.unlink(tmp_path / "y")
    assert steps == [
        ("rename", "y"),
        ("sync_dir", tmp_path.name),
        *[("unlink", "y"), ("sync_dir", tmp_path.name)] * 2,
    ]
    with pytest.raises(FileNotFoundError):
        durable.unlink(tmp_path / "y", missing_ok=False)
