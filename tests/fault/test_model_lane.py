"""A destination's lane over crashes: cuts, cursors, accounts, dead letters and history, with a destination that remembers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from support.delivery import HANDLE, LaneBench, World
from support.journal_kit import KEYS
from tallystick.delivery.cut import BatchLimits
from tallystick.delivery.history import History
from tallystick.delivery.lane import Lane
from tallystick.delivery.state import LaneStateFile
from tallystick.durable import set_observer
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.destination import MemoryDestination

Note = Callable[[str, int, str], None]
LIMITS = BatchLimits(7, 1 << 20, 0.0)


def is_poison(line: bytes) -> bool:
    """Every eleventh event is refused for good."""
    return int(line.partition(b'"id":"acme-')[2].partition(b'"')[0]) % 11 == 10


@dataclass
class Outside:
    """What a crash of ours does not touch: the sealed log and the other side."""

    sealed: int
    destination: MemoryDestination


class LaneModel(CrashModel):
    """Each operation seals some events and lets the lane drain."""

    @initialize()
    def begin(self) -> None:
        self.disk.knows_all()
        self.world = World()
        self.world.names[HANDLE] = "acme"
        self.destination = MemoryDestination()
        self.destination.refuse = is_poison

    def open(self) -> None:
        """Each drain opens a lane of its own."""

    def close(self) -> None:
        """Nothing is open."""

    def expected(self) -> Outside:
        return Outside(self.world.size(HANDLE), _copied(self.destination))

    def recover(self, directory: Path) -> Callable[[Outside], None]:
        return lambda outside: self._drain_and_judge(directory, outside)

    def judge(self, found: Any, expected: Any) -> None:
        found(Outside(expected.sealed, _copied(expected.destination)))

    def adopt(self, found: Any, expected: Any) -> None:
        self.destination = expected.destination

    def _drain_and_judge(self, directory: Path, outside: Outside) -> None:
        bench = self.bench(directory)
        events = self.world.events.get(HANDLE, [])[: outside.sealed]
        bench.world = World({HANDLE: events}, {HANDLE: "acme"} if events else {})
        lane = _drain(bench, outside.destination)
        numbers = range(outside.sealed)
        good = [f"acme-{number}" for number in numbers if number % 11 != 10]
        if outside.destination.ids() != good:
            raise ModelError(f"{len(outside.destination.ids())} events are there, or in another order, of {len(good)}")
        letters = sorted(letter.letter.index for letter in lane.letters.read("d"))
        if letters != [number for number in numbers if number % 11 == 10]:
            raise ModelError(f"dead letters of {letters}")
        account = lane.state.accounts.get(HANDLE)
        if account is None:
            if outside.sealed:
                raise ModelError("no account")
            return
        counts = account.delivered, sum(account.dead_lettered.values()), account.next
        if counts != (len(good), len(letters), outside.sealed):
            raise ModelError(f"the account says {counts}")
        history = History(directory, "d")
        unknown = [number for number in numbers if not history.find(HANDLE, number)]
        rebuilt = history.rebuild().get(HANDLE)
        history.close()
        if unknown or (outside.sealed and (rebuilt is None or rebuilt.next != outside.sealed)):
            raise ModelError(f"the history does not know {unknown[:3]}")

    def bench(self, directory: Path) -> LaneBench:
        return LaneBench(directory, self.world, KEYS)  # type: ignore[arg-type]

    def drain(self) -> None:
        _drain(self.bench(self.data), self.destination)

    @rule(counts=st.lists(st.integers(1, 20), min_size=1, max_size=2), seed=SEEDS)
    def deliver(self, counts: list[int], seed: int) -> None:
        with self.cutting(seed):
            for count in counts:
                self.world.add(count)
                self.drain()

    @rule(count=st.integers(1, 20), lost=st.integers(0, 3), largest=st.integers(1, 9), seed=SEEDS)
    def deliver_badly(self, count: int, lost: int, largest: int, seed: int) -> None:
        """Answers are lost, the other side is short of breath, and takes small cuts only."""
        self.destination.lose_replies, self.destination.events_max = lost, largest
        self.destination.script = [Answer(AnswerKind.THROTTLE, retry_after_s=0.001)]
        with self.cutting(seed):
            self.world.add(count)
            self.drain()
        self.destination.lose_replies, self.destination.events_max, self.destination.script = 0, 1 << 60, []

    @rule(count=st.integers(1, 20), step=st.integers(0, 20), code=CODES, seed=SEEDS)
    def storing_fails(self, count: int, step: int, code: int, seed: int) -> None:
        """The lane tries again by itself."""
        self.disk.fail_at = step, code
        self.world.add(count)
        set_observer(self.disk)
        try:
            self.drain()
        except OSError as error:  # while it was opened: the dispatcher begins anew
            if "injected" not in str(error):
                raise
            self.drain()
        finally:
            set_observer(None)
            self.disk.fail_at = None
        self.cut_now(seed)

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)


def _drain(bench: LaneBench, destination: MemoryDestination) -> Lane:
    lane = bench.lane(destination, limits=LIMITS)
    try:
        asyncio.run(bench.drain(lane))
    except TimeoutError:
        raise ModelError(f"it does not drain: {lane.trouble or lane.state}") from None
    return lane


def _copied(destination: MemoryDestination) -> MemoryDestination:
    """As it is now; its dials go back to good."""
    made = MemoryDestination()
    made.refuse = destination.refuse
    made.cuts, made.order = copy.copy(destination.cuts), list(destination.order)
    return made


def test_lane(note: Note) -> None:
    """Each event is at the destination exactly once and in order, or a dead letter once; account and history say the same."""
    check_model(LaneModel, examples=5, steps=6)


@pytest.mark.slow_fault
@pytest.mark.timeout(3600)
def test_lane_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note(
        "model of a destination's lane: a cut before every durable step",
        1,
        check_model(LaneModel, examples=8, steps=8, is_deep=True),
    )


def sent_before_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts go out before the state knows of them, so that after a crash the same events go out under other names."""
    real = LaneStateFile.save

    def save(self: LaneStateFile, state: Any) -> None:
        cuts, next_cut = state.cuts, state.next_cut
        state.cuts, state.next_cut = {}, 0
        for record in cuts.values():
            account = state.accounts.get(record.handle)
            if account is not None:
                account.next = min(account.next, record.first)
        real(self, state)
        state.cuts, state.next_cut = cuts, next_cut
        for record in cuts.values():
            state.accounts[record.handle].next = max(state.accounts[record.handle].next, record.last + 1)

    monkeypatch.setattr(LaneStateFile, "save", save)


def cursor_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor moves before letters and history are stored."""
    real = Lane._store

    def store(self: Lane, current: Any) -> None:
        letters, history = self.letters, self.history
        later: list[Callable[[], None]] = []
        self._file_letters = lambda settlements, at: None  # type: ignore[method-assign]

        class Late:
            def add(self, rows: Any) -> None:
                later.append(lambda: history.add(rows))

        self.history = Late()  # type: ignore[assignment]
        try:
            real(self, current)
        finally:
            self.history = history
            del self._file_letters
        if current.settlements:
            self._file_letters(current.settlements, 0.0)
        for call in later:
            call()
        assert letters is self.letters

    monkeypatch.setattr(Lane, "_store", store)


@pytest.mark.parametrize("standin", [sent_before_stored, cursor_first], ids=lambda made: made.__name__)
def test_lane_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(LaneModel)
    note(f"model of a destination's lane, stand-in `{standin.__name__}`", 1, "goes red")
