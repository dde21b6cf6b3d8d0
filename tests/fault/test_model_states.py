"""State files over crashes: cursors, numbering, the register of tenants, a destination's state, the remembered head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from tallystick.delivery.account import Account
from tallystick.delivery.state import LaneState, LaneStateFile
from tallystick.durable import StateFile, files
from tallystick.errors import IntegrityError
from tallystick.evidence.heads import read_remembered, remember
from tallystick.journal.cursor import Cursor, Position
from tallystick.journal.numbering import Numbering, NumberingFile
from tallystick.journal.tenants import TenantRegistry

Note = Callable[[str, int, str], None]


def check(is_whole: bool) -> None:
    """What was loaded was taken for whole."""
    if not is_whole:
        raise ModelError("a torn value was taken for a whole one")


class CursorFile:
    """Value: a position, and something beside it."""

    def save(self, data: Path, number: int) -> None:
        Cursor(data, "sealer").save(Position(number.to_bytes(16, "big"), number, number), {"sizes": {"t" * 16: number}})

    def load(self, data: Path) -> int | None:
        cursor = Cursor(data, "sealer")
        position = cursor.load()
        if position is None:
            return None
        check(position.segment == position.offset.to_bytes(16, "big") and position.seq == position.offset)
        check(cursor.extra == {"sizes": {"t" * 16: position.offset}})
        return position.offset


class Numbers:
    """Large enough for several pages."""

    def save(self, data: Path, number: int) -> None:
        NumberingFile(data).save(bytes(16), Numbering(number, {f"{n:016}": number for n in range(60)}))

    def load(self, data: Path) -> int | None:
        found = NumberingFile(data).load()
        if found is None:
            return None
        check(set(found[1].next_index.values()) == {found[1].next_seq})
        return found[1].next_seq


class Tenants:
    """Value: how many there are."""

    def save(self, data: Path, number: int) -> None:
        registry = TenantRegistry(data)
        while len(list(registry.all())) < number:
            registry.create(f"tenant-{len(list(registry.all()))}")

    def load(self, data: Path) -> int | None:
        return len(list(TenantRegistry(data).all())) or None


class Lane:
    """A destination's cursors and accounts."""

    def save(self, data: Path, number: int) -> None:
        state = LaneState(next_cut=number, accounts={f"{n:016}": Account("t", next=number) for n in range(20)})
        LaneStateFile(data, "lake").save(state)

    def load(self, data: Path) -> int | None:
        state = LaneStateFile(data, "lake").load()
        if state is None:
            return None
        check({account.next for account in state.accounts.values()} == {state.next_cut})
        return state.next_cut


class RememberedHead:
    """One file that is replaced: the old text or the new one."""

    def save(self, data: Path, number: int) -> None:
        remember(data, f"{number}\n" * 300)

    def load(self, data: Path) -> int | None:
        text = read_remembered(data)
        if text is None:
            return None
        first = text.partition("\n")[0]
        if text != f"{first}\n" * 300:
            raise IntegrityError("torn")  # of the real one the signature would say so
        return int(first)


KINDS: dict[str, Any] = {
    "cursor": CursorFile(), "numbering": Numbers(), "tenants": Tenants(), "lane": Lane(), "head": RememberedHead(),
}  # fmt: skip
NAMES = st.sampled_from(sorted(KINDS))


class StatesModel(CrashModel):
    """``saved``: kind → number; ``saving``: the one that is being saved, if any."""

    @initialize()
    def begin(self) -> None:
        self.disk.knows_all()
        self.numbers = 0
        self.saved: dict[str, int | None] = dict.fromkeys(KINDS)
        self.saving: tuple[str, int] | None = None

    def open(self) -> None:
        """Every operation opens its file anew."""

    def close(self) -> None:
        """Nothing is open."""

    def expected(self) -> tuple[dict[str, int | None], tuple[str, int] | None]:
        return dict(self.saved), self.saving

    def recover(self, directory: Path) -> dict[str, int | None]:
        return {name: kind.load(directory) for name, kind in KINDS.items()}

    def judge(self, found: Any, expected: Any) -> None:
        saved, saving = expected
        for name, number in found.items():
            if number != saved[name] and (name, number) != saving:
                raise ModelError(f"{name}: {number}, but {saved[name]} was stored and {saving} under way")

    def adopt(self, found: Any, expected: Any) -> None:
        self.saved, self.saving = found, None

    def next_number(self, name: str) -> int:
        self.numbers += 1
        return self.numbers if name != "tenants" else (self.saved["tenants"] or 0) + 1

    @rule(name=NAMES, seed=SEEDS)
    def save(self, name: str, seed: int) -> None:
        number = self.next_number(name)
        self.saving = name, number
        with self.cutting(seed):
            KINDS[name].save(self.data, number)
            self.saved[name], self.saving = number, None

    @rule(name=NAMES, step=st.integers(0, 8), code=CODES, seed=SEEDS)
    def save_fails(self, name: str, step: int, code: int, seed: int) -> None:
        """The state before or the one after holds, now and after a power cut; a repeat is stored."""
        number = self.next_number(name)
        with self.failing(step, code) as raised:
            KINDS[name].save(self.data, number)
        if not raised:
            self.saved[name] = number
            return
        self.saving = name, number
        self.judge(self.take_up(self.data), self.expected())
        self.cut_now(seed)
        self.save(name, seed)

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)

    @rule(names=st.lists(NAMES, min_size=1, max_size=4), seed=SEEDS)
    def disk_lies(self, names: list[str], seed: int) -> None:
        """A disk that forgets what it says it has synced may lose values; what is read is one that was stored once, or damage, or nothing."""
        with self.lying(seed) as image:
            for name in names:
                number = self.next_number(name)
                KINDS[name].save(self.data, number)
                self.saved[name] = number
        for kind in KINDS.values():
            try:
                number = kind.load(image)
            except IntegrityError:
                continue
            if number is not None and not 0 < number <= self.numbers:
                raise ModelError(f"{number} was never stored")
        self.begin_anew()
        self.begin()


def test_states(note: Note) -> None:
    """Saved is saved, at whatever step the power goes; what was under way is there whole or not at all."""
    check_model(StatesModel, examples=25, steps=20)


@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_states_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note("model of state files: a cut before every durable step", 1, check_model(StatesModel, examples=100, steps=30, is_deep=True))


def no_file_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed before its bytes are synced."""
    monkeypatch.setattr(files, "sync_file", lambda fd: None)


def no_dir_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename is not made durable."""
    monkeypatch.setattr(files, "sync_dir", lambda path: None)


def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written over in place."""

    def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        path.touch()
        with path.open("r+b") as file:
            files.write_all(file.fileno(), data, 0)
            files.truncate(file.fileno(), len(data))
        files.sync_dir(path.parent)

    monkeypatch.setattr("tallystick.durable.state.replace_file", replace)
    monkeypatch.setattr("tallystick.evidence.heads.replace_file", replace)


def newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot that is written over is the newest, so that a torn write leaves an older state."""
    real = StateFile.save

    def save(self: StateFile, payload: bytes) -> None:
        real(self, payload)
        self._generation += 1
        for slot in self._slots[1:]:
            files.unlink(slot)

    monkeypatch.setattr(StateFile, "save", save)


@pytest.mark.parametrize("standin", [no_file_sync, no_dir_sync, in_place, newest_first], ids=lambda made: made.__name__)
def test_states_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(StatesModel)
    note(f"model of state files, stand-in `{standin.__name__}`", 1, "goes red")
