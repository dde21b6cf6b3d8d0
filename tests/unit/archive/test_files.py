"""The archive as plain files shows the same objects as the archive read through its libraries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tallystick.archive.files import ChunkFiles
from tallystick.archive.reader import ChunkSource
from tallystick.archive.store import ArchiveStore
from tallystick.errors import NotFoundError, TerminalError
from unit.archive.bench import Bench, finish
from unit.archive.lines import make_lines


async def test_files_and_store_show_the_same_objects(make_bench: Callable[..., Bench]) -> None:
    """Names, manifests and digests agree with those that the object store gives."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(20))
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    finish(archiver)
    files = ChunkFiles(bench.data_dir / "archive", bench.catalog)
    source = ChunkSource(ArchiveStore.open(bench.config), bench.keys, bench.catalog)
    assert list(files.names()) == list(source.names()) != []
    assert list(files.manifests()) == list(source.manifests()) != []
    for name in files.names():
        assert files.digest(name) == source.digest(name)
        with pytest.raises(TerminalError, match="without its key"):
            files.lines(name)


async def test_a_chunk_that_the_catalog_counts_on_is_missed(make_bench: Callable[..., Bench]) -> None:
    """A chunk that was removed is still named, and asking for it says so."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(5))
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    finish(archiver)
    files = ChunkFiles(bench.data_dir / "archive", bench.catalog)
    [name] = files.names()
    (bench.data_dir / "archive" / name).unlink()
    assert list(files.names()) == [name]
    with pytest.raises(NotFoundError):
        files.digest(name)
