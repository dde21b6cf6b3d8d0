"""The runs of dedupe, kept by one background thread: flush a full table, merge small runs, drop old ones.

Files in `DIR/dedupe/`: `<number, 12 digits>.run` and the register `runs.{a,b}`, a StateFile with JSON
``{"v":1,"next":number,"durable_seq":n,"runs":[name, …]}``, oldest run first.

Rules

1. A run is in the register only after it is synced; a file is unlinked only after both slots of the register do without
   it. A crash between leaves files that no register names; the next start removes them. After a failure the register is
   saved as it was before anything else is tried, since one slot may name what is not there.
2. ``durable_seq``: everything of the journal up to it is in runs. It rises with the register, never before.
3. Small runs (no larger than one table) are merged when there are `_FAN_IN`. They are always the newest, so every run
   covers one span of seqs, and each row is written twice in its life. Between the pieces of a merge full tables are flushed,
   so that no more than a few are ever in memory and intake never waits for a merge.
4. The oldest run goes when the runs after it stand for the last N events at least.
5. One filter over all small runs spares their own filters most look-ups.

A look-up that meets an unreadable file counts it, logs it and goes on: an unmarked duplicate from a broken disk is the
lesser evil against an intake that refuses everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from tallystick.durable import StateFile, make_dir, unlink_all
from tallystick.errors import IntegrityError
from tallystick.journal.dedupe_bloom import Bloom, Words
from tallystick.journal.dedupe_memory import MemoryTable
from tallystick.journal.dedupe_probe import Probe, probe_for
from tallystick.journal.dedupe_run import Entry, KeyWrapper, Run, RunWriter, make_made_rows, make_rows, merge_runs
from tallystick.journal.dedupe_table import Table
from tallystick.telemetry import log

_FAN_IN = 64
_RETRY_S = 1.0

Found = TypeVar("Found")


class _Register(msgspec.Struct):
    v: int = 1
    next: int = 1
    durable_seq: int = 0
    runs: list[str] = []


@dataclass(frozen=True)
class View:
    """What look-ups see: replaced as a whole by the background thread, never changed."""

    frozen: tuple[MemoryTable, ...]
    recent: Bloom
    small: tuple[Run, ...]
    large: tuple[Run, ...]


class DedupeStore:
    """Look-ups and `freeze` on the journal's thread; all writing on a thread of its own."""

    def __init__(self, data_dir: Path, keys: KeyWrapper, events: int, table_rows: int) -> None:
        self.damaged = 0
        self.failure: str | None = None
        self._dir = data_dir / "dedupe"
        self._keys = keys
        self._events = events
        self._table_rows = table_rows
        self._state = StateFile(self._dir / "runs")
        make_dir(self._dir)
        self._unnamed: set[Path] = set()
        self._register = self._load_register()
        self._next_number = self._register.next
        runs = [run for run in map(self._open_run, self._register.runs) if run is not None]
        small = tuple(run for run in runs if run.entries <= table_rows)
        self.view = View((), self._filter_over(small), small, tuple(run for run in runs if run.entries > table_rows))
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="dedupe", daemon=True)
        self._thread.start()

    @property
    def durable_seq(self) -> int:
        """Highest seq up to which everything is in runs."""
        return self._register.durable_seq

    def freeze(self, table: MemoryTable) -> None:
        """Hand a table over to be flushed; it stays visible until its run is durable."""
        with self._changed:
            self.view = replace(self.view, frozen=(*self.view.frozen, table))
            self._changed.notify_all()

    def wait_until_flushed(self, timeout_s: float | None = None) -> bool:
        """Wait until no frozen table is left; False when ``timeout_s`` passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.view.frozen, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush what is frozen and end the thread; what cannot be flushed in time is replayed from the journal."""
        self.wait_until_flushed(timeout_s)
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def find(self, digests: list[bytes], spread: int) -> dict[bytes, Entry | None]:
        """Digests that are in some run: their entry, or None when the id was made here, so that its content is not known."""
        view = self.view
        found: dict[bytes, Entry | None] = {}
        if not view.small and not view.large:
            return found
        probe = probe_for(digests)
        for run, place in _candidates(view, probe, lambda run: run.ids):
            entry = self._read(run, run.find, probe.halves(place))
            if entry is not None:
                found.setdefault(digests[place], entry)
        if any(run.header.made.count for run in (*view.small, *view.large)):
            probe = probe.prefixes(spread)
            for run, place in _candidates(view, probe, lambda run: run.made):
                if self._read(run, run.made.find, probe.halves(place)) is not None:
                    found.setdefault(digests[place], None)
        return found

    def _read(self, run: Run, look_up: Callable[[int, int], Found | None], halves: tuple[int, int]) -> Found | None:
        try:
            return look_up(*halves)
        except (OSError, IntegrityError) as error:
            self._report_damage(run.path, error)
            return None

    def _report_damage(self, path: Path, error: Exception) -> None:
        self.damaged += 1
        log.error("dedupe_run_unreadable", path=str(path), error=str(error))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self.view.frozen) or self._is_closing, None)
                if self._is_closing:
                    return
                table = self.view.frozen[0]
            try:
                self._settle()
                self._flush(table)
                self._merge()
                self.failure = None
            except (OSError, IntegrityError) as error:
                self.failure = f"the dedupe index cannot be written: {error}"
                log.warning("dedupe_flush_failed", error=str(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closing, _RETRY_S)

    def _flush(self, table: MemoryTable) -> None:
        path = self._next_path()
        halves = _halves(list(table.rows))
        made = _halves(list(table.made))
        writer = RunWriter(path, self._keys, len(halves), len(made))
        try:
            seqs, indexes = np.array(table.seqs, np.uint64), np.array(table.indexes, np.uint64)
            rows = make_rows(halves[:, 1], bytes(table.contents), seqs, indexes, bytes(table.leaf_hashes))
            writer.add(halves[:, 0], rows)
            writer.add_made(made[:, 0], make_made_rows(made[:, 1]))
            # A crash before the register names the file: the table comes again from the journal (rule 2).
            writer.finish(table.first_seq, table.last_seq, table.events)
        finally:
            writer.close()
        run = Run(path, self._keys)
        self.view.recent.add(halves[:, 0])
        self.view.recent.add(made[:, 0])
        small, large, dropped = self._within_window((*self.view.small, run), self.view.large)
        self._save(self._register_with(table.last_seq, small, large))
        with self._changed:
            self.view = View(self.view.frozen[1:], self.view.recent, small, large)
            self._changed.notify_all()
        self._unlink(dropped)

    def _merge(self) -> None:
        """Rule 3. Look-ups go on in the small runs until the merged one takes their place."""
        merged = self.view.small
        if len(merged) < _FAN_IN:
            return
        path = self._next_path()
        self.damaged += merge_runs(list(merged), path, self._keys, self._flush_next)
        run = Run(path, self._keys)
        is_large = run.entries > self._table_rows
        since = tuple(run for run in self.view.small if run not in merged)
        small = since if is_large else (run, *since)
        large = (*self.view.large, run) if is_large else self.view.large
        self._save(self._register_with(self._register.durable_seq, small, large))
        recent = self._filter_over(small)
        with self._changed:
            self.view = View(self.view.frozen, recent, small, large)
        self._unlink(merged)

    def _flush_next(self) -> None:
        if self.view.frozen:
            self._flush(self.view.frozen[0])

    def _within_window(
        self, small: tuple[Run, ...], large: tuple[Run, ...]
    ) -> tuple[tuple[Run, ...], tuple[Run, ...], tuple[Run, ...]]:
        """Rule 4: what stays of both, and what goes."""
        runs = sorted((*large, *small), key=lambda run: run.header.last_seq)
        gone = []
        while len(runs) > 1 and sum(run.header.events for run in runs[1:]) >= self._events:
            gone.append(runs.pop(0))
        kept = set(map(id, runs))
        return tuple(run for run in small if id(run) in kept), tuple(run for run in large if id(run) in kept), tuple(gone)

    def _filter_over(self, small: tuple[Run, ...]) -> Bloom:
        bloom = Bloom.for_keys(self._table_rows * _FAN_IN)
        for run in small:
            for table in (run.ids, run.made):
                bloom.add(table.keys(0, table.info.count))
        return bloom

    def _next_path(self) -> Path:
        path = self._dir / f"{self._next_number:012d}.run"
        self._next_number += 1
        self._unnamed.add(path)
        return path

    def _settle(self) -> None:
        """After a failure: the register as it was, in both slots, before the files that one of them may name are removed."""
        if self._unnamed:
            self._save(self._register_with(self._register.durable_seq, self.view.small, self.view.large))
            unlink_all(self._unnamed)
            self._unnamed.clear()

    def _register_with(self, durable_seq: int, small: tuple[Run, ...], large: tuple[Run, ...]) -> _Register:
        return _Register(1, self._next_number, durable_seq, [run.path.name for run in (*large, *small)])

    def _save(self, register: _Register) -> None:
        payload = msgspec.json.encode(register)
        # Twice: a start that fell back to an older slot would look for runs that are merged and gone (rule 1).
        self._state.save(payload)
        self._state.save(payload)
        self._register = register
        self._unnamed = {path for path in self._unnamed if path.name not in register.runs}

    def _unlink(self, runs: tuple[Run, ...]) -> None:
        unlink_all(run.path for run in runs)

    def _load_register(self) -> _Register:
        """The register; without a readable one, everything that lies in the directory, which holds no row twice that differs."""
        files = sorted(self._dir.glob("*.run"))
        payload = self._state.load()
        if payload is None and not files:
            # Before the first run: a run without a register is then never one that a crash left before it was registered.
            self._save(_Register())
            return self._register
        if payload is None:
            log.error("dedupe_register_lost", path=str(self._state.path), runs=len(files))
            return self._register_of(files)
        register = msgspec.json.decode(payload, type=_Register)
        unlink_all(path for path in files if path.name not in register.runs)
        return register

    def _register_of(self, files: list[Path]) -> _Register:
        runs = sorted(filter(None, (self._open_run(path.name) for path in files)), key=lambda run: run.header.last_seq)
        number = max((int(path.stem) for path in files), default=0) + 1
        durable_seq = max((run.header.last_seq for run in runs), default=0)
        return _Register(1, number, durable_seq, [run.path.name for run in runs])

    def _open_run(self, name: str) -> Run | None:
        path = self._dir / name
        try:
            return Run(path, self._keys)
        except (OSError, IntegrityError) as error:
            self._report_damage(path, error)
            return None


def _halves(digests: list[bytes]) -> Words:
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)


def _candidates(view: View, probe: Probe, table_of: Callable[[Run], Table]) -> Iterator[tuple[Run, int]]:
    """Runs and places that pass the filters, newest run first."""
    recent = probe.filter(view.recent) if view.small else ()
    if recent:
        chosen = probe.only(recent)
        for run in reversed(view.small):
            for at in chosen.filter(table_of(run).bloom):
                yield run, recent[at]
    for run in reversed(view.large):
        for place in probe.filter(table_of(run).bloom):
            yield run, place
