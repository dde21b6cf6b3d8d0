"""The encrypted logs (quarantine, dead letters) over crashes: what was acknowledged is there, once, in order, as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from support.journal_kit import KEYS
from tallystick.durable import set_observer
from tallystick.privacy import encrypted_log
from tallystick.privacy.encrypted_log import EncryptedLog

Note = Callable[[str, int, str], None]
SIZES = st.lists(st.sampled_from([0, 30, 600, 3_000]), min_size=1, max_size=4)
Records = list[tuple[int, bytes]]


def open_log(directory: Path) -> EncryptedLog:
    return EncryptedLog(directory / "quarantine" / "records", KEYS, "quarantine")  # type: ignore[arg-type]


class LogModel(CrashModel):
    """``stored``: (ordinal, record) of all that was acknowledged, or found after a crash; ``storing``: the append under way."""

    @initialize()
    def begin(self) -> None:
        self.disk.knows_all()
        self.stored: Records = []
        self.storing: list[bytes] = []
        self.ever: set[bytes] = set()
        self.made = 0
        self.start()

    def open(self) -> None:
        self.log = open_log(self.data)

    def close(self) -> None:
        if hasattr(self, "log"):
            self.log.close()

    def expected(self) -> tuple[Records, list[bytes]]:
        return list(self.stored), list(self.storing)

    def recover(self, directory: Path) -> Records:
        """As the next append does: the tail is repaired, and what is kept is read."""
        log = open_log(directory)
        try:
            before = list(log.read())
            (ordinal,) = log.append([b"the next one"])
            after = list(log.read())
        finally:
            log.close()
        if after[-1] != (ordinal, b"the next one") or after[:-1] != before:
            raise ModelError("an append after the crash changes what was there")
        return before

    def judge(self, found: Any, expected: Any) -> None:
        stored, storing = expected
        more = [record for _, record in found[len(stored) :]]
        if found[: len(stored)] != stored:
            raise ModelError(f"{len(found)} records, but {len(stored)} were acknowledged, or others")
        if not _is_part(more, storing) and not _is_part(more, [*storing, b"the next one"]):
            raise ModelError("there are records that nobody stored, or in another order")

    def adopt(self, found: Any, expected: Any) -> None:
        self.stored, self.storing = found, []

    def new_records(self, sizes: list[int]) -> list[bytes]:
        self.made += 1
        records = [b"%d.%d " % (self.made, place) + random.Random(size).randbytes(size) for place, size in enumerate(sizes)]
        self.ever.update(records)
        return records

    @rule(sizes=SIZES, seed=SEEDS)
    def append(self, sizes: list[int], seed: int) -> None:
        records = self.new_records(sizes)
        self.storing = records
        with self.cutting(seed):
            self.stored += zip(self.log.append(records), records, strict=True)
            self.storing = []

    @rule()
    def restart(self) -> None:
        """A new process begins a new part."""
        self.close()
        self.start()

    @rule(sizes=SIZES, step=st.integers(0, 4), code=CODES)
    def append_fails(self, sizes: list[int], step: int, code: int) -> None:
        """None of its records counts, and all of them can be stored again."""
        records = self.new_records(sizes)
        with self.failing(step, code) as raised:
            ordinals = self.log.append(records)
        if raised:
            self.judge(list(self.log.read()), (self.stored, []))
            set_observer(self.disk)
            ordinals = self.log.append(records)
            set_observer(None)
        self.stored += zip(ordinals, records, strict=True)
        self.judge(list(self.log.read()), (self.stored, []))

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)

    @rule(sizes=SIZES, seed=SEEDS)
    def disk_lies(self, sizes: list[int], seed: int) -> None:
        """Records may be gone after a cut; those that are read are what was stored, in order."""
        with self.lying(seed) as image:
            for size in sizes:
                self.log.append(self.new_records([size]))
        found = [record for _, record in open_log(image).read()]
        if not set(found) <= self.ever or len(set(found)) != len(found):
            raise ModelError("a record was read that nobody stored")
        self.begin_anew()
        self.begin()


def _is_part(some: list[bytes], of: list[bytes]) -> bool:
    """All of ``some``, in this order, among ``of``."""
    rest = iter(of)
    return all(record in rest for record in some)


def test_log(note: Note) -> None:
    """Acknowledged is there; what was under way is there record by record or not at all; a failed append leaves nothing."""
    check_model(LogModel, examples=20, steps=15)


@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_log_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note(
        "model of the encrypted logs: a cut before every durable step",
        1,
        check_model(LogModel, examples=100, steps=30, is_deep=True),
    )


def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledged when it is written."""
    monkeypatch.setattr(encrypted_log, "sync_data", lambda fd: None)


def no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file's name is not made durable."""
    monkeypatch.setattr(encrypted_log, "sync_dir", lambda path: None)


def keeps_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed append has written stays."""

    def give_up(self: EncryptedLog) -> None:
        self._fd, self._part = -1, None

    monkeypatch.setattr(EncryptedLog, "_give_up", give_up)


@pytest.mark.parametrize("standin", [no_sync, no_name, keeps_what_failed], ids=lambda made: made.__name__)
def test_log_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(LogModel)
    note(f"model of the encrypted logs, stand-in `{standin.__name__}`", 1, "goes red")
