"""The dedupe index over crashes: every id of the journal is known once, with its first position; none is made up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from support.journal_kit import KEYS
from tallystick.durable import set_observer
from tallystick.journal import dedupe_run, dedupe_store
from tallystick.journal.dedupe import Dedupe, Digester, dedupe_section
from tallystick.journal.dedupe_store import DedupeStore

Note = Callable[[str, int, str], None]
HANDLE = "abcdefghij234567"
DIGESTER = Digester(KEYS.derive("dedupe"))
Frames = list[tuple[bytes, int, list[bytes], list[str]]]  # section, first seq, lines, ids


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of four rows, merged by three, so that few operations go through all of it."""
    monkeypatch.setattr(dedupe_store, "_FAN_IN", 3)
    monkeypatch.setattr(dedupe_store, "_RETRY_S", 0.001)


class DedupeModel(CrashModel):
    """``frames`` is the journal: it keeps what it has, so a crash takes nothing from it."""

    @initialize()
    def begin(self) -> None:
        self.disk.knows_all()
        self.frames: Frames = []
        self.start()

    def open(self) -> None:
        """Twice: what the first one reads again from the journal it writes, in its thread, before the second begins."""
        _opened(self.data, self.frames).close()
        self.dedupe = _opened(self.data, self.frames)

    def close(self) -> None:
        if hasattr(self, "dedupe"):
            self.dedupe.close()

    def expected(self) -> Frames:
        return list(self.frames)

    def recover(self, directory: Path) -> Callable[[Frames], None]:
        """An index brought up from an image is asked for every id that the journal had at that moment."""
        return lambda frames: _ask(directory, frames)

    def judge(self, found: Any, expected: Any) -> None:
        found(expected)

    def adopt(self, found: Any, expected: Any) -> None:
        """The journal kept everything."""

    def claim(self, ids: list[str]) -> Any:
        contents = DIGESTER.contents([b"content of " + name.encode() for name in ids])
        return self.dedupe.claim(HANDLE, DIGESTER.ids(HANDLE, ids), contents)

    def add(self, count: int) -> None:
        first = self.frames[-1][1] + len(self.frames[-1][2]) if self.frames else 1
        ids = [f"id-{number}" for number in range(first, first + count)]
        lines = [b"line of " + name.encode() for name in ids]
        claim = self.claim(ids)
        if claim.new != list(range(count)):
            raise ModelError("an id that was never used is taken for known")
        self.frames.append((dedupe_section(claim), first, lines, ids))  # the commit: durable from here on
        self.dedupe.commit(claim, first, first - 1, [hashlib.sha256(b"\0" + line).digest() for line in lines])

    @rule(counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), seed=SEEDS)
    def write(self, counts: list[int], seed: int) -> None:
        """Batches, and the writing behind them; a restart ends it, so that the background thread is at rest."""
        with self.cutting(seed):
            for count in counts:
                self.add(count)
                self.dedupe.flush()
                self.dedupe._store.wait_until_flushed()
            self.dedupe.close()
            self.open()

    @rule(counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), step=st.integers(0, 30), code=CODES)
    def write_fails(self, counts: list[int], step: int, code: int) -> None:
        """The background thread tries again; nothing is forgotten meanwhile, nor after a kill."""
        self.disk.fail_at = step, code
        set_observer(self.disk)
        for count in counts:
            self.add(count)
            self.dedupe.flush()
            self.dedupe._store.wait_until_flushed()
        _ask_open(self.dedupe, self.frames)
        self.dedupe.close()
        set_observer(None)
        self.disk.fail_at = None
        self.start()
        _ask_open(self.dedupe, self.frames)

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)

    @rule(counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), seed=SEEDS)
    def disk_lies(self, counts: list[int], seed: int) -> None:
        """Ids may be forgotten by such a disk, which lets a duplicate in, and a first position may be wrong (a run's rows have one
        checksum, which the next merge looks at); none is taken for one with other content, and nothing stops a start."""
        with self.lying(seed) as image:
            for count in counts:
                self.add(count)
                self.dedupe.flush()
                self.dedupe._store.wait_until_flushed()
            self.dedupe.close()
        dedupe = _opened(image, self.frames)
        try:
            _ask_open(dedupe, self.frames, may_forget=True)
        finally:
            dedupe.close()
        self.begin_anew()
        self.begin()


def _opened(directory: Path, frames: Frames) -> Dedupe:
    dedupe = Dedupe.open(directory, KEYS, 1_000_000, table_rows=4)
    for section, first, lines, _ in frames:
        dedupe.replay(HANDLE, section, first, first - 1, len(lines), lambda lines=lines: lines)  # type: ignore[misc]
    assert dedupe._store.wait_until_flushed(30)  # more tables at once than memory may hold would be refused
    return dedupe


def _ask(directory: Path, frames: Frames) -> None:
    dedupe = _opened(directory, frames)
    try:
        if dedupe.status()["damaged"]:
            raise ModelError("a run is damaged after a power cut")
        _ask_open(dedupe, frames)
    finally:
        dedupe.close()


def _ask_open(dedupe: Dedupe, frames: Frames, *, may_forget: bool = False) -> None:
    for _, first, lines, ids in frames:
        claim = dedupe.claim(HANDLE, DIGESTER.ids(HANDLE, ids), DIGESTER.contents([b"content of " + name.encode() for name in ids]))
        dedupe.release(claim)
        if claim.conflicts or (len(claim.duplicates) != len(ids) and not may_forget):
            raise ModelError(f"{ids}: known are {sorted(claim.duplicates)}, in conflict {claim.conflicts}")
        for place, known in claim.duplicates.items():
            if not may_forget and (known.seq, known.index, known.leaf_hash) != (
                first + place, first + place - 1, hashlib.sha256(b"\0" + lines[place]).digest(),
            ):  # fmt: skip
                raise ModelError(f"{ids[place]}: first position {known.seq}, {known.index}")


def test_dedupe(note: Note) -> None:
    """Whatever was lost of the index comes again from the journal, and what is in neither is new."""
    check_model(DedupeModel, examples=12, steps=8)


@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_dedupe_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note(
        "model of the dedupe index: a cut before every durable step",
        1,
        check_model(DedupeModel, examples=40, steps=20, is_deep=True),
    )


def run_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is in the register before its bytes are on disk."""
    monkeypatch.setattr(dedupe_run, "sync_file", lambda fd: None)


def merged_away_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small runs are removed before the register names the one that takes their place."""
    real = DedupeStore._save

    def save(self: DedupeStore, register: Any) -> None:
        for path in self._dir.glob("*.run"):
            if path.name not in register.runs:
                dedupe_store.unlink_all([path])
        real(self, register)

    monkeypatch.setattr(DedupeStore, "_save", save)


def counts_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The register promises a table that is still to be written."""
    real = DedupeStore._flush

    def flush(self: DedupeStore, table: Any) -> None:
        register = self._register
        self._save(type(register)(1, register.next, table.last_seq, register.runs))
        real(self, table)

    monkeypatch.setattr(DedupeStore, "_flush", flush)


@pytest.mark.parametrize("standin", [run_unsynced, merged_away_first, counts_too_early], ids=lambda made: made.__name__)
def test_dedupe_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(DedupeModel)
    note(f"model of the dedupe index, stand-in `{standin.__name__}`", 1, "goes red")
