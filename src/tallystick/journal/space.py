"""Refusing before the disk is full: quota, low-water mark of free space, and the reserve file.

- Quota: blocks allocated under the data directory, counted in the background, at a pace that keeps the count's own cost
  low. Free space: one statvfs a second. `refusal` only reads the last answer, so it may be asked for each request.
- On ENOSPC, EDQUOT or EFBIG the reserve file is freed, so that cursors and checkpoints can still be written, and intake
  refuses until there is room again; then the reserve is made anew. No step needs an operator. It is freed as well when less
  than half of `free_min` is left: the followers are out of space then, and they write to no journal.
- On a small file system the sizes shrink with it (a sixteenth of it for a segment, a thirty-second for the reserve and for
  the free bytes to leave), so that the defaults also work on a 64 MiB disk.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from tallystick.config import DataSettings
from tallystick.durable import preallocate, unlink
from tallystick.telemetry import log

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_COUNT_INTERVAL_S = 10.0
_COUNT_SHARE = 50


def fitting_segment_bytes(data_dir: Path, settings: DataSettings, wanted: int) -> int:
    """The segment size to use: ``wanted``, or a sixteenth of the file system or quota when that is less."""
    share = min(_disk_bytes(data_dir), settings.quota.bytes) // 16
    return min(wanted, max(2**20, share))


class SpaceGuard:
    """Knows whether the data directory may grow. `measure` and `report_full` may be called from any thread."""

    def __init__(self, data_dir: Path, settings: DataSettings, segment_bytes: int) -> None:
        share = _disk_bytes(data_dir) // 32
        self.refusal: str | None = None
        self.used_bytes = 0
        self._data_dir = data_dir
        self._quota = settings.quota.bytes
        self._free_min = min(settings.free_min.bytes, share)
        self._reserve_bytes = min(settings.reserve.bytes, share)
        self._segment_bytes = segment_bytes
        self._reserve = data_dir / "reserve"
        self._counted_at = float("-inf")
        self._count_cost_s = 0.0
        self._is_full = False

    def report_full(self, error: OSError) -> None:
        """A write failed for want of space: free the reserve and refuse until `measure` finds room."""
        self._is_full = True
        self.refusal = f"the disk is full: {error.strerror}"
        self._free_reserve()

    def measure(self) -> None:
        """Look at the disk and update `refusal`; makes the reserve when there is room. Blocking."""
        now = time.monotonic()
        if now - self._counted_at >= max(_COUNT_INTERVAL_S, _COUNT_SHARE * self._count_cost_s) or self.refusal:
            self.used_bytes = allocated_bytes(self._data_dir)
            self._counted_at = now
            self._count_cost_s = time.monotonic() - now
        free = _free_bytes(self._data_dir)
        if self._is_full and free >= self._free_min + self._segment_bytes:
            self._is_full = False
        self.refusal = self._reason(free)
        if free < self._free_min // 2:
            self._free_reserve()
        if self.refusal is None and free >= self._free_min + self._segment_bytes + self._reserve_bytes:
            self._make_reserve()

    def _reason(self, free: int) -> str | None:
        if self._is_full:
            return "the disk is full"
        if self.used_bytes >= self._quota:
            return f"the data directory uses {self.used_bytes} bytes of its quota of {self._quota}"
        if free < self._free_min:
            return f"only {free} bytes are free on the file system; {self._free_min} are to be left"
        return None

    def _free_reserve(self) -> None:
        """A crash here leaves the file or not; either is looked at anew."""
        try:
            if self._reserve.exists():
                unlink(self._reserve)
                log.warning("reserve_freed", bytes=self._reserve_bytes)
        except OSError as failure:
            log.error("reserve_not_freed", error=str(failure))

    def _make_reserve(self) -> None:
        """A crash here leaves a short reserve, which is filled again: nothing depends on its content."""
        try:
            fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_blocks * 512 < self._reserve_bytes:
                    preallocate(fd, self._reserve_bytes)
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("reserve_not_made", error=str(error))


def allocated_bytes(directory: Path) -> int:
    """Bytes that the files under ``directory`` take on disk. Files that vanish meanwhile count nothing."""
    total = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def _disk_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
