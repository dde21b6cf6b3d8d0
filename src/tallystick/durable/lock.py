"""Role locks: one process per role on a data directory, with an epoch that rises at every start.

The lock is ``flock`` on an opened file, so the kernel releases it when the process dies, however it dies; a stale file
blocks nobody. After locking, the inode is compared with the name, so that a deleted lock file does not let two
processes in. The epoch is raised and synced before the role does anything, and goes into what the role writes.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tallystick.durable.files import make_dir, sync_data, write_all
from tallystick.errors import LockedError


class RoleLock:
    """Holds ``locks/<role>`` of a data directory until ``release`` or the end of the process."""

    def __init__(self, data_dir: Path, role: str) -> None:
        self.path = data_dir / "locks" / role
        self.role = role
        self.epoch = 0
        self._fd = -1

    def acquire(self) -> int:
        """Take the lock and raise the epoch durably; returns the epoch. Raises LockedError at once when it is held, OSError."""
        make_dir(self.path.parent)
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(fd)
                raise LockedError(
                    f"another process is the {self.role} of this data directory",
                    place=str(self.path),
                    hint="Stop it first, or name another --data directory",
                ) from error
            if _same_file(fd, self.path):
                break
            os.close(fd)
        try:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            self.epoch = (int(text) if text.isdigit() else 0) + 1
            # A crash before the sync returned may repeat this epoch: the role had not begun to write under it.
            write_all(fd, f"{self.epoch:020d}\n".encode(), 0)
            sync_data(fd)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return self.epoch

    def release(self) -> None:
        """Give the role up. Harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
