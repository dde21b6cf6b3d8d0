"""One file's bytes in order, plain or compressed, read from a descriptor: the name may be moved or removed meanwhile."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import zstandard

_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast("IO[bytes]", bz2.BZ2File(file)),
    ".xz": lambda file: cast("IO[bytes]", lzma.LZMAFile(file)),  # noqa: SIM115 - closed with its descriptor
    ".zst": lambda file: cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)),
}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class DamagedFileError(Exception):
    """A compressed file whose bytes are not whole: damaged, or still being written."""


class ByteStream:
    """``position`` is the next byte to be read, of the content. ``read`` gives fewer bytes only at the end. Blocking."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, for what is no regular file too."""
        self.path = path
        self.position = 0
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            self.stat = os.fstat(self.fd)
            if not stat.S_ISREG(self.stat.st_mode):
                raise OSError(f"{path} is no regular file")
            opener = _OPENERS.get(path.suffix)
            self._inner: Any = opener(os.fdopen(self.fd, "rb", closefd=False)) if opener else None
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def is_compressed(self) -> bool:
        return self._inner is not None

    def size(self) -> int:
        """Bytes in the file now, as it is stored."""
        self.stat = os.fstat(self.fd)
        return self.stat.st_size

    def read(self, size: int) -> bytes:
        """The next bytes. Raises DamagedFileError, or OSError."""
        parts: list[bytes] = []
        while size > 0:
            part = self._read_some(size)
            if not part:
                break
            self.position += len(part)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def peek(self, position: int, size: int) -> bytes:
        """Bytes of a plain file at any place."""
        return os.pread(self.fd, size, position)

    def skip_to(self, position: int) -> None:
        """Go on to ``position``; past the end it stops there."""
        if self._inner is None:
            self.position = position
        while self.position < position and self.read(min(position - self.position, 1 << 18)):
            pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _read_some(self, size: int) -> bytes:
        if self._inner is None:
            return os.pread(self.fd, size, self.position)
        try:
            return bytes(self._inner.read(size))
        except _DAMAGE as error:
            raise DamagedFileError(f"{self.path.name} cannot be decompressed to its end: {error}") from error


def is_compressed(path: Path) -> bool:
    """By its name."""
    return path.suffix in _OPENERS
