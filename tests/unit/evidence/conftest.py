"""A small installation: a real journal and key store, and a sealer on top."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tallystick import durable
from tallystick.config import DataSettings, Duration, JournalSettings, SealSettings, Size
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.evidence.verify import ChunkSource, Evidence, Report, verify_data
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import AccountEntry, Append, FilterCount, QuarantinedRecord, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore

SERVER = "audit.example.com"
JOURNAL = JournalSettings(segment_size=Size("1MiB"), dedupe_events=1000)
DATA = DataSettings(quota=Size("1GiB"), free_min=Size("1MiB"), reserve=Size("1MiB"))
SEAL = SealSettings(interval=Duration("10ms"), root_interval=Duration("0s"), heartbeat=Duration("1h"))


@dataclass
class Installation:
    """Directories, keys and what was written, so that a test can say what must come out."""

    data_dir: Path
    keys_dir: Path
    keys: KeyStore
    tenants: TenantRegistry
    loop: asyncio.Runner
    journal: Journal | None = None

    def write(self, name: str, lines: Sequence[bytes], *, account: Sequence[dict[str, Any]] = (), filtered: int = 0) -> str:
        """One append; returns the tenant's handle."""
        tenant = self.tenants.create(name)
        handle = tenant.handle
        batches = [TenantBatch(tenant, list(lines), [None] * len(lines), [None] * len(lines))] if lines else []
        request = Append(
            batches=batches,
            account=[AccountEntry(handle=handle, id=f"e{time.monotonic_ns()}", entry=entry) for entry in account],
            filtered=[FilterCount(handle=handle, source="http", filter="noise", count=filtered, received_at="x")]
            if filtered
            else [],
            quarantined=[QuarantinedRecord(handle=handle, source="http", code="bad", message="m", received_at="y", data=b"secret")]
            if filtered
            else [],
        )

        self.loop.run(self.open_journal().append(request))
        return handle

    def open_journal(self) -> Journal:
        """The writer, opened when it is first needed."""
        if self.journal is None:
            self.journal = Journal.open(self.data_dir, self.keys, JOURNAL, DATA)
        return self.journal

    def close_journal(self) -> None:
        """End the writer's life; the next write begins a new segment."""
        if self.journal is not None:
            self.loop.run(self.journal.close())
            self.journal = None

    def sealer(self, **settings: Any) -> Sealer:
        """A started sealer; the caller stops or closes it."""
        place = SealerPlace(self.data_dir, self.keys_dir, SERVER, settings.pop("config_hash", "ab" * 32))
        sealer = Sealer(
            place, self.keys, SEAL, JournalReader(self.data_dir, self.keys), Cursor(self.data_dir, "sealer"), **settings
        )
        sealer.start()
        return sealer

    def seal(self) -> None:
        """Seal everything there is, and stop in good order."""
        sealer = self.sealer()
        while sealer.seal():
            pass
        sealer.stop()

    def verify(self, chunks: ChunkSource | None = None, **changes: Any) -> Report:
        """Verify with everything that lies in the key directory."""
        heads = self.keys_dir / "heads"
        given: dict[str, Any] = {
            "public_key": (self.keys_dir / "root.vkey").read_text().strip(),
            "remembered": heads.read_text() if heads.exists() else None,
            "journal": JournalReader(self.data_dir, self.keys, is_offline=True),
            "chunks": chunks if chunks is not None else NoChunks(),
            **changes,
        }
        return verify_data(Evidence(self.data_dir, **given))


class NoChunks:
    """An archive with nothing in it."""

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        return iter(())

    def names(self) -> Iterator[str]:
        return iter(())

    def counted(self) -> set[str]:
        return set()

    def digest(self, name: str) -> tuple[int, str]:
        raise AssertionError(name)

    def lines(self, name: str) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
        raise AssertionError(name)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    data_dir, keys_dir = tmp_path / "data", tmp_path / "data.keys"
    durable.make_dir(data_dir / "run")
    with asyncio.Runner() as loop:
        made = Installation(data_dir, keys_dir, KeyStore.create(keys_dir), TenantRegistry(data_dir), loop)
        yield made
        durable.set_observer(None)
        made.close_journal()


@pytest.fixture
def lines() -> Callable[[int], list[bytes]]:
    """Makes ``n`` different lines."""
    made = iter(range(10**9))
    return lambda count: [b'{"v":1,"action":"a.b","n":%d}' % next(made) for _ in range(count)]
