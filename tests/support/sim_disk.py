"""A disk that forgets what was not synced: the image that a power cut would leave, before any durable step.

It listens at the one seam where Tallystick syncs (`durable.set_observer`). A file's bytes are durable as they are when
its sync begins; a name is durable when its directory's sync begins. `image` writes the directory as the machine would
find it, and what was only pending is there or not by the toss of a coin, each piece by itself:

- each page that was written and not synced (so writes are torn, and reach the disk in any order);
- the length of a file that grew;
- each name that was made, moved or removed.

A lying disk (``lies``) says yes to a sync and forgets it now and then. An SQLite file is taken as it is: SQLite calls the
kernel by itself and is set to sync each commit, so whatever it has committed is durable, and what it has not it undoes.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

_PAGE = 512
_SYNCS = ("sync_data", "sync_file", "preallocate", "truncate")
_SQLITE = (".sqlite", ".sqlite-wal")


def any_thread() -> bool:
    return True


def commit_thread() -> bool:
    """The journal's own: steps of its other threads are not counted."""
    return threading.current_thread().name == "journal-commit"


class SimDisk:
    """Watches the directory ``root``. Steps are counted, cut and made to fail only where ``is_counted`` is true.

    ``fail_next``: errno values for the next syncs. ``fail_at``: (steps from now, errno) for one step of any kind.
    ``before_step`` is called before each counted step, and may take images.
    """

    def __init__(self, root: Path, is_counted: Callable[[], bool] = commit_thread) -> None:
        self.root = root
        self.fail_next: list[int] = []
        self.fail_at: tuple[int, int] | None = None
        self.before_step: Callable[[str], None] = lambda _: None
        self.lies = 0.0
        self._is_counted = is_counted
        self._contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._countdown = -1
        self._is_closed = False
        self._target: Path | None = None
        self._coin = random.Random(0)
        self._lock = threading.RLock()

    def __call__(self, operation: str, path: Path | None, fd: int) -> None:
        with self._lock:
            if self._is_closed:
                return
            if self._is_counted():
                self._count(operation)
            if self.lies and self._coin.random() < self.lies:
                return
            if operation in _SYNCS:
                self._sync_file(fd)
            elif operation == "sync_dir" and path is not None and path.is_relative_to(self.root):
                self._sync_dir(path)

    def knows_all(self) -> None:
        """What a restart finds is durable."""
        with self._lock:
            for path in [self.root, *self.root.rglob("*")]:
                if path.is_dir():
                    self._sync_dir(path)
                elif path.is_file():
                    with path.open("rb") as file:
                        self._sync_file(file.fileno())

    def lie(self, share: float, coin: random.Random) -> None:
        """From now on forget this share of all syncs, or none."""
        self.lies, self._coin = share, coin

    def cut_after(self, steps: int, target: Path, coin: random.Random) -> None:
        """Write the image to ``target`` before the counted step number ``steps`` from now."""
        self._countdown, self._target, self._coin = steps, target, coin

    @property
    def is_cut(self) -> bool:
        """True when the image asked for was written."""
        return self._target is None

    def image(self, target: Path, coin: random.Random) -> None:
        """What a power cut would leave now."""
        with self._lock:
            target.mkdir(mode=0o700, parents=True)
            self._image(self.root, target, coin)

    def close(self) -> None:
        """Let go of the files that are held; what comes now is not heard."""
        with self._lock:
            self._is_closed = True
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()

    def _count(self, operation: str) -> None:
        if self._target is not None:
            self._countdown -= 1
            if self._countdown < 0:
                self.image(self._target, self._coin)
                self._target = None
        self.before_step(operation)
        if operation == "sync_data" and self.fail_next:
            raise OSError(self.fail_next.pop(0), "injected")
        if self.fail_at is not None:
            left, code = self.fail_at
            self.fail_at = (left - 1, code) if left else None
            if not left:
                raise OSError(code, "injected")

    def _sync_file(self, fd: int) -> None:
        file = Path(f"/proc/self/fd/{fd}")
        inode = os.fstat(fd).st_ino
        self._contents[inode] = file.read_bytes()
        if inode not in self._held:
            self._held[inode] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # so that no other file gets its number

    def _sync_dir(self, directory: Path) -> None:
        self._names[directory] = _files_in(directory)
        named = {inode for names in self._names.values() for inode in names.values()}
        for inode in self._contents.keys() - named:
            if os.fstat(self._held[inode]).st_nlink == 0:
                os.close(self._held.pop(inode))
                del self._contents[inode]

    def _image(self, directory: Path, target: Path, coin: random.Random) -> None:
        durable, current = self._names.get(directory, {}), _files_in(directory)
        for name in sorted(durable.keys() | current.keys()):
            if name.endswith(_SQLITE):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(directory / name, target / name)
                continue
            choices = [durable.get(name), current.get(name)]
            inode = choices[0] if choices[0] == choices[1] else coin.choice(choices)
            if inode is not None:
                (target / name).write_bytes(self._torn(inode, directory, current, coin))
                (target / name).chmod(0o600)
        for path in sorted(directory.iterdir()):
            if path.is_dir() and (path in self._names or coin.random() < 0.5):
                (target / path.name).mkdir(mode=0o700)
                self._image(path, target / path.name, coin)

    def _torn(self, inode: int, directory: Path, current_names: dict[str, int], coin: random.Random) -> bytes:
        synced = self._contents.get(inode, b"")
        path = next((directory / name for name, number in current_names.items() if number == inode), None)
        if path is None and inode in self._held:
            path = Path(f"/proc/self/fd/{self._held[inode]}")  # it has another name by now, or none
        if path is None:
            return synced
        try:
            current = path.read_bytes()
        except FileNotFoundError:  # another thread is just taking it away
            return synced
        if current == synced:
            return synced
        size = coin.choice([len(synced), len(current)])
        pages = [current if coin.random() < 0.5 else synced for _ in range(0, size, _PAGE)]
        return b"".join(chosen[at * _PAGE : (at + 1) * _PAGE].ljust(_PAGE, b"\0") for at, chosen in enumerate(pages))[:size]


def _files_in(directory: Path) -> dict[str, int]:
    """Names of plain files, and the inodes that they stand for."""
    with os.scandir(directory) as entries:
        return {entry.name: entry.inode() for entry in entries if entry.is_file(follow_symlinks=False)}
