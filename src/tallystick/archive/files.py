"""The archive's directory as plain files: what can be checked of it without keys, and without the libraries that open chunks.

Manifests are signed in clear and name each chunk's size and SHA-256, so a missing, exchanged or changed chunk is found by its
bytes alone. Only the lines inside stay unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tallystick.archive.catalog import Catalog
from tallystick.errors import NotFoundError, TerminalError


class ChunkFiles:
    """A local archive for `evidence.verify`; its chunks cannot be opened. Names are paths below ``directory``."""

    def __init__(self, directory: Path, catalog: Catalog) -> None:
        self._directory = directory
        self._catalog = catalog

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        """(name, signed note) of every manifest, sorted by name."""
        for name in self._list("*.manifest"):
            yield name, (self._directory / name).read_bytes()

    def names(self) -> Iterator[str]:
        """Every chunk that lies there or that the catalog counts on, sorted."""
        yield from sorted(self.counted().union(self._list("*.parquet")))

    def counted(self) -> set[str]:
        """The chunks that the catalog counts on."""
        return self._catalog.counted()

    def digest(self, name: str) -> tuple[int, str]:
        """Size in bytes and hexadecimal SHA-256 of a chunk. Raises NotFoundError."""
        path = self._directory / name
        try:
            with path.open("rb") as file:
                return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise NotFoundError("no such object in the archive", place=str(path)) from error

    def lines(self, name: str) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        """Not to be had here."""
        raise TerminalError("a chunk cannot be opened without its key", place=name)

    def _list(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self._directory)) for path in self._directory.rglob(pattern))
