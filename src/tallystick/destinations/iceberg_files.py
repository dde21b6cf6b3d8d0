"""Files of an Iceberg table in a local directory, synced before a commit names them.

pyiceberg's own file access never syncs. A table whose metadata names a data file that a power cut took would be broken for all its
readers, and the cut in it lost after it was settled. So what `OutputFile.create` returns is on disk, name and bytes, when it is closed. A crash
before the commit leaves files that no metadata names: Iceberg's orphans, which its maintenance removes.
"""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from tallystick import durable


def local_path(location: str) -> Path | None:
    """The path behind a location without a scheme or with `file:`; None for every other."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else location)


class _SyncedFile(io.FileIO):
    """A file for writing whose ``close`` returns when its bytes and its name are on disk."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        durable.make_dir(path.parent)
        self._path = path
        super().__init__(path, "w" if overwrite else "x")

    def close(self) -> None:
        if not self.closed:
            durable.sync_file(self.fileno())
            super().close()
            durable.sync_dir(self._path.parent)


class _LocalFile(InputFile, OutputFile):
    """A file that can be read and made."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        path = local_path(location)
        if path is None:
            raise ValueError(f"{location} is not in a local directory")
        self._path = path

    def __len__(self) -> int:
        return self._path.stat().st_size

    def exists(self) -> bool:
        return self._path.exists()

    def open(self, seekable: bool = True) -> InputStream:
        return self._path.open("rb")

    def to_input_file(self) -> InputFile:
        return self

    def create(self, overwrite: bool = False) -> OutputStream:
        return _SyncedFile(self._path, overwrite=overwrite)


class SyncedFileIO(FileIO):
    """pyiceberg's `py-io-impl` for warehouses in a local directory."""

    def new_input(self, location: str) -> InputFile:
        return _LocalFile(location)

    def new_output(self, location: str) -> OutputFile:
        return _LocalFile(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        path = local_path(location if isinstance(location, str) else location.location)
        if path is not None:
            durable.unlink(path, missing_ok=False)
