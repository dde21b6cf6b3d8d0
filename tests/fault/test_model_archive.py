"""The archive over crashes: intents, objects, catalog, marks and the cursor, merges and rebuilt catalogs too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from tallystick.archive.archiver import Archiver
from tallystick.archive.reader import ArchiveReader
from tallystick.archive.store import ArchiveStore
from tallystick.archive.writer import ChunkWriter
from tallystick.config import ArchiveSettings, Config, DataSettings, Duration, KeysSettings
from tallystick.errors import TransientError
from tallystick.evidence.manifest import manifest_key_name
from tallystick.journal.cursor import Position
from tallystick.journal.frame import FrameType
from tallystick.privacy.keys import KeyStore
from unit.archive.lines import make_line

Note = Callable[[str, int, str], None]
HANDLES = ("a" * 16, "b" * 16)
SEGMENT = bytes(16)
NOW = 1_789_380_000.0  # 2026-09-14T10:00:00Z, when the lines of `make_line` were received
LATER = NOW + 200 * 86_400.0  # all that can be merged is merged, and what was merged is deleted


@dataclass
class MemoryJournal:
    """What the journal holds, safe from crashes: batches of lines, each at its number. It is read from the cursor on only."""

    batches: list[tuple[str, int, list[bytes]]] = field(default_factory=list)
    lines: dict[str, list[bytes]] = field(default_factory=lambda: {handle: [] for handle in HANDLES})

    def add(self, handle: str, count: int) -> None:
        held = self.lines[handle]
        new = [make_line(len(held) + number, tenant=handle[0]) for number in range(count)]
        self.batches.append((handle, len(held), new))
        held += new

    def copy(self) -> MemoryJournal:
        return MemoryJournal(list(self.batches), {handle: list(lines) for handle, lines in self.lines.items()})

    def oldest(self) -> Position:
        return Position(SEGMENT, 0, 1)

    def read(self, position: Position, max_bytes: int = 0) -> tuple[list[Any], Position]:
        """One batch at a time, so that cursors stand between all of them."""
        if position.offset >= len(self.batches):
            return [], position
        handle, first, lines = self.batches[position.offset]
        frame = SimpleNamespace(
            type=FrameType.EVENTS,
            handle=handle,
            first_index=first,
            count=len(lines),
            first_seq=position.seq,
            lines=lambda: list(lines),
        )
        return [frame], Position(SEGMENT, position.offset + 1, position.seq + len(lines))

    def wait(self, position: Position, timeout_s: float, stop: threading.Event | None = None) -> bool:
        return position.offset < len(self.batches)


class ArchiveModel(CrashModel):
    """Each operation adds events and lets a new archiver archive them."""

    @initialize()
    def begin(self) -> None:
        self.disk.knows_all()
        self.journal = MemoryJournal()
        self.keys = KeyStore.create(self.root / "keys")
        self.keys.signing_key(manifest_key_name(Config().server.name), create=True)

    def open(self) -> None:
        """Each operation opens an archiver of its own."""

    def close(self) -> None:
        """Nothing is open."""

    def expected(self) -> MemoryJournal:
        return self.journal.copy()

    def recover(self, directory: Path) -> Callable[[MemoryJournal], None]:
        return lambda journal: self.drain_and_judge(directory, journal)

    def judge(self, found: Any, expected: Any) -> None:
        found(expected)

    def adopt(self, found: Any, expected: Any) -> None:
        self.journal = expected

    def config(self, directory: Path) -> Config:
        return Config(
            data=DataSettings(dir=str(directory)),
            keys=KeysSettings(dir=str(self.root / "keys")),
            archive=ArchiveSettings(merge_grace=Duration("1s")),
        )

    def archive(self, directory: Path, journal: MemoryJournal, *, now: float = NOW) -> None:
        """Start an archiver, and let it do all that it can; then stop it."""
        archiver = Archiver(self.config(directory), self.keys, journal=journal, clock=lambda: now)  # type: ignore[arg-type]
        try:
            archiver.start()
            while archiver.step():
                pass
            archiver.flush()
            while archiver.step():
                pass
        finally:
            if hasattr(archiver, "_catalog"):
                archiver._catalog.close()

    def drain_and_judge(self, directory: Path, journal: MemoryJournal) -> None:
        self.archive(directory, journal, now=LATER)
        reader = ArchiveReader(self.config(directory), self.keys)
        try:
            for handle, lines in journal.lines.items():
                self.judge_tenant(reader, handle, lines)
            rows = [row.name for handle in reader.catalog.marks() for row in reader.catalog.chunks(handle)]
            rows += [row.name for row in reader.catalog.replaced(2**40)]
        finally:
            reader.catalog.close()
        named = sorted([*rows, *(name.replace(".parquet", ".manifest") for name in rows)])
        stored = sorted(ArchiveStore.open(self.config(directory)).list())
        if stored != named:
            raise ModelError(f"the catalog names {len(named)} objects, the store has {len(stored)}")

    def judge_tenant(self, reader: ArchiveReader, handle: str, lines: list[bytes]) -> None:
        if reader.catalog.mark(handle) != len(lines):
            raise ModelError(f"the mark is {reader.catalog.mark(handle)} of {len(lines)}")
        if reader.lines(handle, 0, len(lines) + 10) != list(enumerate(lines)):
            raise ModelError("other lines are archived than were accepted")
        indexes = sorted(
            index for row in reader.catalog.chunks(handle) for index in reader.open_chunk(row, ["index"])["index"].to_pylist()
        )
        if indexes != list(range(len(lines))):
            raise ModelError(f"{len(indexes)} rows of {len(lines)} events")

    def add(self, counts: list[int]) -> None:
        for number, count in enumerate(counts):
            self.journal.add(HANDLES[number % 2], count)

    @rule(counts=st.lists(st.integers(1, 20), min_size=1, max_size=3), seed=SEEDS)
    def take(self, counts: list[int], seed: int) -> None:
        with self.cutting(seed):
            self.add(counts)
            self.archive(self.data, self.journal)

    @rule(seed=SEEDS)
    def a_month_later(self, seed: int) -> None:
        """What is small is merged, and what was merged is deleted."""
        with self.cutting(seed):
            for days in (40, 80):
                self.archive(self.data, self.journal, now=NOW + days * 86_400.0)

    @rule(counts=st.lists(st.integers(1, 20), min_size=1, max_size=3), step=st.integers(0, 12), code=CODES, seed=SEEDS)
    def storing_fails(self, counts: list[int], step: int, code: int, seed: int) -> None:
        """The role begins anew."""
        self.add(counts)
        try:
            with self.failing(step, code):
                self.archive(self.data, self.journal)
        except TransientError:
            pass  # of the store's
        self.cut_now(seed)

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)

    @rule(seed=SEEDS)
    def catalog_lost(self, seed: int) -> None:
        """It is made again from the store."""
        for path in self.data.glob("catalog.sqlite*"):
            path.unlink()
        with self.cutting(seed):
            self.archive(self.data, self.journal)


def test_archive(note: Note) -> None:
    """Each event is archived exactly once and in order; the store holds what the catalog names, and nothing else."""
    check_model(ArchiveModel, examples=4, steps=5)


@pytest.mark.slow_fault
@pytest.mark.timeout(3600)
def test_archive_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note("model of the archive: a cut before every durable step", 1, check_model(ArchiveModel, examples=8, steps=8, is_deep=True))


def cursor_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor moves before what was read is archived."""
    real = Archiver._archive

    def archive(self: Archiver, buffers: Any) -> bool:
        if buffers:
            self._cursor.save(self._position, {"archived": 0})
        return real(self, buffers)

    monkeypatch.setattr(Archiver, "_archive", archive)


def no_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows of the objects of a round that did not end."""

    def intend(self: ChunkWriter, stems: Any) -> None:
        self._intended = list(stems)

    monkeypatch.setattr(ChunkWriter, "_intend", intend)


@pytest.mark.parametrize("standin", [cursor_first, no_intent], ids=lambda made: made.__name__)
def test_archive_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(ArchiveModel)
    note(f"model of the archive, stand-in `{standin.__name__}`", 1, "goes red")
