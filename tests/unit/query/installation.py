"""An installation as the engine sees it: a real journal, a real archiver whose work the test decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tallystick.archive.archiver import Archiver
from tallystick.config import ArchiveSettings, Config, DataSettings, JournalSettings, KeysSettings, QuerySettings, Size
from tallystick.evidence.manifest import manifest_key_name
from tallystick.journal.entries import Append, TenantBatch
from tallystick.journal.tenants import Tenant, TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore
from tallystick.query.engine import QueryEngine

NOW = 1_789_380_000.0  # 2026-09-14T10:00:00Z


def make_line(number: int, **changes: Any) -> bytes:
    """One canonical line; later numbers happened later, one second apart. None leaves a member out."""
    minute, second = divmod(number, 60)
    event: dict[str, Any] = {
        "v": 1,
        "id": f"e{number}",
        "tenant": "acme",
        "occurred_at": f"2026-09-14T{8 + minute // 60:02d}:{minute % 60:02d}:{second:02d}.000000Z",
        "received_at": "2026-09-14T10:00:00.000000Z",
        "action": "role.grant" if number % 2 else "user.login",
        "actor": {"type": "user", "id": f"u_{number % 7}"},
        "targets": [{"type": "role", "id": f"r_{number % 3}"}],
        "outcome": "success" if number % 5 else "denied",
        "context": {"ip": f"10.0.{number % 4}.1"},
        "metadata": {"n": number, "note": f"Note {number} of Many"},
        "source": {"name": "app", "type": "http"},
        "ingest": {"class": "standard", "config": "c0", "salt": "0011223344556677"},
    }
    event.update(changes)
    return msgspec.json.encode({name: value for name, value in event.items() if value is not None})


def make_lines(count: int, start: int = 0, **changes: Any) -> list[bytes]:
    return [make_line(number, **changes) for number in range(start, start + count)]


class Installation:
    """One data directory. ``sent`` keeps what was appended, by tenant name."""

    def __init__(self, path: Path, query: dict[str, Any], archive: dict[str, Any]) -> None:
        self.config = Config(
            data=DataSettings(dir=str(path / "data")),
            keys=KeysSettings(dir=str(path / "data.keys")),
            journal=JournalSettings(segment_size=Size("1MiB")),
            query=QuerySettings(**query),
            archive=ArchiveSettings(**archive),
        )
        self.config.data_dir.mkdir()
        self.keys = KeyStore.create(self.config.keys_dir)
        self.keys.signing_key(manifest_key_name(self.config.server.name), create=True)
        self.tenants = TenantRegistry(self.config.data_dir)
        self.sent: dict[str, list[bytes]] = {}
        self.now = NOW
        self._journal: Journal | None = None
        self._archiver: Archiver | None = None
        self._engine: QueryEngine | None = None

    @property
    def engine(self) -> QueryEngine:
        if self._engine is None:
            self._engine = QueryEngine(self.config, self.keys)
        return self._engine

    def tenant(self, name: str) -> Tenant:
        return self.tenants.get(name) or self.tenants.create(name)

    async def append(self, lines: list[bytes], tenant: str = "acme") -> None:
        """Put lines into the journal; durable when this returns."""
        if self._journal is None:
            self._journal = Journal.open(self.config.data_dir, self.keys, self.config.journal, self.config.data)
        batch = TenantBatch(self.tenant(tenant), lines, [None] * len(lines), [None] * len(lines))
        await self._journal.append(Append(batches=[batch]))
        self.sent.setdefault(tenant, []).extend(lines)

    def archive(self) -> None:
        """Everything in the journal goes to the archive, one chunk for each tenant and class."""
        if self._archiver is None:
            self._archiver = Archiver(self.config, self.keys, clock=lambda: self.now)
            self._archiver.start()
        before = None
        while before != self._archiver._position:
            before = self._archiver._position
            self._archiver.step()
        self._archiver.flush()

    async def restart_journal(self) -> None:
        """The next append opens a new segment."""
        if self._journal is not None:
            await self._journal.close()
            self._journal = None

    async def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._journal is not None:
            await self._journal.close()


Make = Callable[..., Installation]
