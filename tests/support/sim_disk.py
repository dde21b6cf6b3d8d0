"""A disk that forgets what was not synced: the image that a power cut would leave, at any durable step.

It listens at the one seam where Tallystick syncs (`durable.set_observer`). A file's bytes are durable as they are when
its sync begins; a name is durable when its directory's sync begins. `image` writes the directory as the machine would
find it: each page that was written but not synced is there or not by the toss of a coin.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

_PAGE = 512
_SYNCS = ("sync_data", "sync_file", "preallocate", "truncate")


class SimDisk:
    """Watches one data directory. ``fail_next``: errno values for the next syncs of the journal's commit thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fail_next: list[int] = []
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._countdown = -1
        self._target: Path | None = None
        self._coin = random.Random(0)
        self._lock = threading.RLock()

    def __call__(self, operation: str, path: Path | None, fd: int) -> None:
        with self._lock:
            is_commit = threading.current_thread().name == "journal-commit"
            if is_commit and self._target is not None:
                self._countdown -= 1
                if self._countdown < 0:
                    self.image(self._target, self._coin)
                    self._target = None
            if is_commit and operation == "sync_data" and self.fail_next:
                raise OSError(self.fail_next.pop(0), "injected")
            if operation in _SYNCS:
                file = Path(f"/proc/self/fd/{fd}")
                self._contents[file.stat().st_ino] = file.read_bytes()
            elif operation == "sync_dir" and path is not None:
                self._sync_dir(path)

    def cut_after(self, steps: int, target: Path, coin: random.Random) -> None:
        """Write the image to ``target`` before the commit thread's durable step number ``steps`` from now."""
        self._countdown, self._target, self._coin = steps, target, coin

    @property
    def is_cut(self) -> bool:
        """True when the image asked for was written."""
        return self._target is None

    def image(self, target: Path, coin: random.Random) -> None:
        """What a power cut would leave now."""
        with self._lock:
            target.mkdir(parents=True)
            for directory, names in self._names.items():
                if not directory.is_relative_to(self.root):
                    continue
                place = target / directory.relative_to(self.root)
                place.mkdir(parents=True, exist_ok=True)
                for name, inode in names.items():
                    if inode in self._contents:
                        (place / name).write_bytes(self._torn(inode, directory / name, coin))

    def _sync_dir(self, directory: Path) -> None:
        names: dict[str, int] = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    names[entry.name] = entry.inode()
                else:
                    self._names.setdefault(Path(entry.path), {})
        self._names[directory] = names

    def _torn(self, inode: int, path: Path, coin: random.Random) -> bytes:
        synced = self._contents[inode]
        try:
            if path.stat().st_ino != inode:
                return synced
            current = path.read_bytes()
        except FileNotFoundError:
            return synced
        size = max(len(synced), len(current))
        synced, current = synced.ljust(size, b"\0"), current.ljust(size, b"\0")
        pages = (current if coin.random() < 0.5 else synced for _ in range(0, size, _PAGE))
        return b"".join(chosen[at * _PAGE : (at + 1) * _PAGE] for at, chosen in enumerate(pages))
