"""A data directory with a real journal and an archiver, for tests of the whole package."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tallystick.archive.archiver import Archiver
from tallystick.archive.catalog import Catalog
from tallystick.archive.reader import ArchiveReader
from tallystick.archive.store import ArchiveStore
from tallystick.config import ArchiveSettings, Config, DataSettings, KeysSettings
from tallystick.evidence.manifest import manifest_key_name
from tallystick.journal.entries import Append, QuarantinedRecord, TenantBatch
from tallystick.journal.tenants import Tenant, TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore

NOW = 1_789_380_000.0  # 2026-09-14T10:00:00Z, when the lines of `make_line` were received
HOUR = 3600.0


class Bench:
    """A data directory with a real journal, and an archiver whose clock the test sets."""

    def __init__(self, path: Path, archive: dict[str, Any]) -> None:
        self.data_dir = path / "data"
        self.data_dir.mkdir(exist_ok=True)
        self.config = Config(
            data=DataSettings(dir=str(self.data_dir)),
            keys=KeysSettings(dir=str(path / "data.keys")),
            archive=ArchiveSettings(**archive),
        )
        self.keys = KeyStore.create(path / "data.keys")
        self.keys.signing_key(manifest_key_name(self.config.server.name), create=True)
        self.tenants = TenantRegistry(self.data_dir)
        self.now = NOW
        self.journal: Journal | None = None
        self.sent: dict[str, list[bytes]] = {}

    async def append(self, tenant: Tenant, lines: list[bytes], quarantined: list[QuarantinedRecord] | None = None) -> None:
        if self.journal is None:
            self.journal = Journal.open(self.data_dir, self.keys, self.config.journal, self.config.data)
        batches = [TenantBatch(tenant, lines, [None] * len(lines), [None] * len(lines))] if lines else []
        await self.journal.append(Append(batches=batches, quarantined=quarantined or []))
        self.sent.setdefault(tenant.handle, []).extend(lines)

    def archiver(self, store: ArchiveStore | None = None) -> Archiver:
        archiver = Archiver(self.config, self.keys, store=store, clock=lambda: self.now)
        archiver.start()
        return archiver

    def reader(self) -> ArchiveReader:
        return ArchiveReader(self.config, self.keys)

    def run_until(self, archiver: Archiver, is_done: Callable[[], bool], *, now: float) -> None:
        """Run the role's own loop in a thread until ``is_done``, at most ten seconds."""
        self.now = now
        (self.data_dir / "run").mkdir(exist_ok=True)
        stop, pause = threading.Event(), threading.Event()
        thread = threading.Thread(target=archiver.run, args=(stop,))
        thread.start()
        try:
            for _ in range(500):
                if is_done():
                    break
                pause.wait(0.02)
        finally:
            stop.set()
            thread.join(10)
        assert is_done()

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.data_dir / "catalog.sqlite")

    def check(self) -> None:
        """Every event is archived exactly once, in order, and the store holds what the catalog names and nothing else."""
        reader = self.reader()
        for handle, lines in self.sent.items():
            assert reader.catalog.mark(handle) == len(lines)
            assert reader.lines(handle, 0, len(lines) + 10) == list(enumerate(lines))
            indexes = [
                index for row in reader.catalog.chunks(handle) for index in reader.open_chunk(row, ["index"])["index"].to_pylist()
            ]
            assert sorted(indexes) == list(range(len(lines)))
        rows = [row.name for handle in reader.catalog.marks() for row in reader.catalog.chunks(handle)]
        rows += [row.name for row in reader.catalog.replaced(2**40)]
        expected = [*rows, *(name.replace(".parquet", ".manifest") for name in rows)]
        assert sorted(ArchiveStore.open(self.config).list()) == sorted(expected)


def finish(archiver: Archiver) -> None:
    """Let the archiver do all that can be done now."""
    while archiver.step():
        pass
