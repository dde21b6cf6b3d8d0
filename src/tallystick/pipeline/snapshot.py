"""The bytes of the configuration in force, handed to every child process as a descriptor.

A child that starts again after a crash, hours after somebody began to edit the file, must meet the configuration that was checked, and the
same as its siblings. So the supervisor reads the file once, at start and at each reload, and the children read what it
read: a file without a name, in memory, gone with the supervisor. Nothing of it (there may be secrets) comes to lie in the data directory.
"""

from __future__ import annotations

import os


class Snapshot:
    """The supervisor's side. ``fd`` is to be inherited; children read it with `read_snapshot`."""

    def __init__(self, data: bytes) -> None:
        self.fd = os.memfd_create("tallystick-config", os.MFD_CLOEXEC)
        self.data = b""
        self.put(data)

    def put(self, data: bytes) -> None:
        """From now on children read ``data``: those that start, and those that are told to look again."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)
        self.data = data

    def close(self) -> None:
        os.close(self.fd)


def read_snapshot(fd: int) -> bytes:
    """What the supervisor put there last."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
