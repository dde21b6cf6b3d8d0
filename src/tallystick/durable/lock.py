"""Role locks: one process per role on a data directory, with an epoch that rises at every start.

The lock is ``flock`` on an opened file, so the kernel releases it when the process dies, however it dies; a stale file
blocks nobody. After locking, the inode is compared with the name, so that a deleted lock file does not let two
processes in. The epoch is raised and synced before the role does anything, and goes into what the role writes.

A lock file that is deleted while its role runs would let a second process in under a new file of that name. What starts the
roles therefore locks the data directory as well (``whole``), which nobody can delete without deleting what it guards.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tallystick.durable.files import make_dir, sync_data, write_all
from tallystick.errors import LockedError


class RoleLock:
    """Holds ``locks/<role>`` of a data directory until ``release`` or the end of the process."""

    def __init__(self, data_dir: Path, role: str, *, whole: bool = False) -> None:
        self.path = data_dir / "locks" / role
        self.role = role
        self.epoch = 0
        self._whole = data_dir if whole else None
        self._fd = -1
        self._directory_fd = -1

    def acquire(self) -> int:
        """Take the lock and raise the epoch durably; returns the epoch. Raises LockedError at once when it is held, OSError."""
        make_dir(self.path.parent)
        if self._whole is not None:
            self._directory_fd = os.open(self._whole, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._whole is not None:
                self._lock(self._directory_fd, self._whole)
            self._fd = self._lock_file()
            self._raise_epoch()
        except BaseException:
            self.release()
            raise
        return self.epoch

    def release(self) -> None:
        """Give the role up. Harmless when it is not held."""
        for fd in (self._fd, self._directory_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory_fd = -1

    def _lock_file(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._lock(fd, self.path)
            except BaseException:
                os.close(fd)
                raise
            if _same_file(fd, self.path):
                return fd
            os.close(fd)

    def _lock(self, fd: int, place: Path) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"another process is the {self.role} of this data directory",
                place=str(place),
                hint="Stop it first, or name another --data directory",
            ) from error

    def _raise_epoch(self) -> None:
        text = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
        self.epoch = (int(text) if text.isdigit() else 0) + 1
        # A crash before the sync returned may repeat this epoch: the role had not begun to write under it.
        write_all(self._fd, f"{self.epoch:020d}\n".encode(), 0)
        sync_data(self._fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
