"""An archiver that expires, with the sealer and the intake that it needs, on one clock that the test sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tallystick.archive.archiver import Archiver
from tallystick.archive.reader import ChunkSource
from tallystick.config import ArchiveSettings, ClassSettings, Duration, RetentionSettings, SealSettings
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import read_entry
from tallystick.evidence.heads import Heads
from tallystick.evidence.origin import tree_dir
from tallystick.evidence.policy import Policy
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.evidence.verify import Evidence, Report, verify_data
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import AccountEntry, Append
from tallystick.journal.reader import JournalReader
from tallystick.query.evaluate import compile_query
from unit.archive.bench import Bench

PERIOD_S = 40.0
DAY = 86_400.0


class ExpiryBench(Bench):
    """``classes``: periods by class. What expiry hands to the intake waits in ``told`` until `settle` journals and seals it."""

    def __init__(self, path: Path, *, classes: dict[str, str] | None = None, **retention: Any) -> None:
        super().__init__(path, {})
        wanted = classes or {"standard": "40s"}
        self.wanted = Policy(wanted)
        options: dict[str, Any] = {"brake_percent": 100, "clock_jump": Duration("3650d"), "interval": Duration("1ms"), **retention}
        settings = RetentionSettings(
            classes={name: ClassSettings(period=Duration(text)) for name, text in wanted.items()}, **options
        )
        archive = ArchiveSettings(max_age=Duration("1ms"))
        self.config = self.config.__class__(data=self.config.data, keys=self.config.keys, retention=settings, archive=archive)
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.place = SealerPlace(self.data_dir, self.config.keys_dir, self.config.server.name, policy=lambda: self.wanted)
        self.sealer = self.new_sealer()

    def new_sealer(self) -> Sealer:
        often = Duration("1ms")
        settings = SealSettings(interval=often, root_interval=often, heartbeat=often)
        journal = JournalReader(self.data_dir, self.keys)
        sealer = Sealer(self.place, self.keys, settings, journal, Cursor(self.data_dir, "sealer"), clock=lambda: self.now)
        sealer.start()
        return sealer

    def record(self, entries: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        self.told += entries

    def expiring(self) -> Archiver:
        archiver = Archiver(self.config, self.keys, clock=lambda: self.now, record=self.record, compile_query=compile_query)
        archiver.start()
        return archiver

    async def seal(self) -> None:
        """Journal what was told, seal, and let a heartbeat pass."""
        told, self.told = self.told, []
        if told:
            assert self.journal is not None
            entries = [AccountEntry(handle=self.tenants.create(name).handle, id=made, entry=entry) for name, made, entry in told]
            await self.journal.append(Append(account=entries))
        for _ in range(2):
            self.sealer.seal()

    async def settle(self, archiver: Archiver, rounds: int = 5) -> None:
        """Let all parts do what can be done now."""
        for _ in range(rounds):
            self.now += 0.01
            while archiver.step():
                pass
            await self.seal()

    def entries(self, handle: str, kind: str = "expiry") -> list[dict[str, Any]]:
        """The entries of one kind in a tenant's account tree."""
        log = AccountLog(tree_dir(self.data_dir, f"{handle}/account"))
        found = [read_entry(line) for line in (log.entries(0, log.count) if log.count else ())]
        log.close()
        return [entry for entry in found if entry["type"] == kind]

    def verify(self) -> Report:
        """As `tallystick verify --data` would, of an installation whose journal's segments were retired."""
        heads = Heads(self.data_dir)
        assert heads.state.heads
        keys_dir = self.config.keys_dir
        return verify_data(
            Evidence(
                self.data_dir,
                public_key=(keys_dir / "root.vkey").read_text().strip(),
                remembered=(keys_dir / "heads").read_text(),
                journal=_Retired(),
                chunks=ChunkSource.open(self.config, self.keys),
            )
        )


class _Retired(JournalReader):
    """A journal whose segments are gone."""

    def __init__(self) -> None: ...

    def mark(self) -> Any:
        return type("Mark", (), {"seq": 0})

    def oldest(self) -> Any:
        return type("Position", (), {"seq": 10**9})

    def read(self, position: Any, max_bytes: int = 0) -> Any:
        return [], position
