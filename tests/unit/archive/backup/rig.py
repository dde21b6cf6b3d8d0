"""A small installation on disk, without a server: journal, seals, archive, and more of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tallystick.archive.archiver import Archiver
from tallystick.config import Config, load_config
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.journal.cursor import Cursor
from tallystick.journal.dedupe import Digester
from tallystick.journal.entries import AccountEntry, Append, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.pipeline.context import Installation, open_installation
from tallystick.pipeline.start import server_key_names

SMALL: dict[str, dict[str, Any]] = {
    "data": {"free_min": "1MiB", "reserve": "64KiB"},
    "journal": {"segment_size": "1MiB", "dedupe_events": 1000},
    "seal": {"root_interval": "0s"},
    "archive": {"max_age": "0s", "merge_below": "0B"},
}


class Rig:
    """``base/data``, ``base/data.keys`` and a backup store at ``base/store``."""

    def __init__(self, base: Path, **backup: Any) -> None:
        self.base = base
        tables: dict[str, dict[str, Any]] = {name: dict(table) for name, table in SMALL.items()}
        tables["data"]["dir"] = str(base / "data")
        tables["backup"] = {"store": str(base / "store"), **backup}
        self.config: Config = load_config(None, tables)
        self.installation: Installation = open_installation(self.config, create=True)
        for name in server_key_names(self.installation.server_name):
            self.installation.keys.signing_key(name, create=True)
        self.written = 0

    def write(self, count: int = 10, tenant: str = "acme") -> None:
        """Accept events with ids that go on where the last ones ended."""
        asyncio.run(self._write(count, tenant))

    def seal(self) -> None:
        installation = self.installation
        reader = JournalReader(self.config.data_dir, installation.keys)
        place = SealerPlace(self.config.data_dir, self.config.keys_dir, self.config.server.name, self.config.hash)
        sealer = Sealer(place, installation.keys, self.config.seal, reader, Cursor(self.config.data_dir, "sealer"))
        sealer.start()
        try:
            while sealer.seal():
                pass
            sealer.stop()
        finally:
            sealer.close()
            reader.close()

    def archive(self) -> None:
        archiver = Archiver(self.config, self.installation.keys, needed_by=["sealer", "archiver"])
        archiver.start()
        while archiver.step():
            pass

    async def _write(self, count: int, tenant: str) -> None:
        keys, config = self.installation.keys, self.config
        journal = Journal.open(config.data_dir, keys, config.journal, config.data)
        registry = TenantRegistry(config.data_dir)
        found = registry.get(tenant) or registry.create(tenant)
        digester = Digester(keys.derive("dedupe"))
        numbers = range(self.written, self.written + count)
        lines = [_line(number, tenant) for number in numbers]
        ids = digester.ids(found.handle, [f"e{number}" for number in numbers])
        account = [AccountEntry(handle=found.handle, id=f"r{self.written}", entry={"type": "review", "by": "me"})]
        await journal.append(Append([TenantBatch(found, lines, ids, digester.contents(lines))], account=account))
        await journal.close()
        self.written += count


def _line(number: int, tenant: str) -> bytes:
    return (
        b'{"v":1,"id":"e%d","tenant":"%s","occurred_at":"2026-11-25T10:00:00.000000Z","received_at":"2026-11-25T10:00:00.000000Z",'
        b'"action":"a.b","actor":{"type":"user","id":"u%d"},"outcome":"success"}' % (number, tenant.encode(), number % 3)
    )
