"""One destination's lane: from its cursors to settled cuts.

The loop, and what a crash between its steps means

1. *Plan* cuts of sealed events, oldest first, turn by turn over the tenants; their bytes exist in memory only.
2. *Commit*, in this order, each step durable before the next: dead letters of what was settled → history rows → one state write with the
   moved cursors, the accounts and the records of the new cuts. A crash before the state write repeats the round: letters are
   recognised as repeats, rows replaced, and cuts that were under way are sent again with the same bytes under the same names.
3. *Send* the new cuts (`sender`). A crash here or later finds them in the state; step 2 of the next round settles them.

A cut stays in the state until it is settled, split (both halves stored in its place by the same write) or voided (its bytes cannot
be made again and the destination does not have them: a new cut of the same range is stored in its place by the same write).

All blocking work of a lane runs in a thread of its own, so a disk or store that hangs holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tallystick.config import DeliverySettings
from tallystick.delivery.builder import CutBuilder, Planned
from tallystick.delivery.cut import halve, is_due
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.delivery.history import History, now
from tallystick.delivery.open_cuts import OpenCuts
from tallystick.delivery.retry import backoff_s
from tallystick.delivery.round import Change, Replaced, Round, Sealed
from tallystick.delivery.sender import Sender
from tallystick.delivery.settlement import (
    NOTHING_TO_SEND,
    Settlement,
    apply_plan,
    apply_replacement,
    apply_settlement,
    count_settlement,
    replay_of,
    settle_cut,
    split_replay,
    void_row,
)
from tallystick.delivery.state import LaneState, LaneStateFile, copy_state
from tallystick.errors import TallystickError, TransientError
from tallystick.plugin import Answer, AnswerKind, Cut, Destination
from tallystick.telemetry import log

T = TypeVar("T")
UNTIL_NEWS_S = 5.0
RETRY_FLOOR_S = 0.05
EVENT_BYTES_GUESS = 512
OPEN_CUTS_MAX = 64


class Lane:
    """Delivers all tenants' events to one destination. Run it with ``run``; stop it by cancelling that."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        builder: CutBuilder,
        sealed: Sealed,
        settings: DeliverySettings,
        *,
        state_file: LaneStateFile,
        history: History,
        letters: DeadLetters,
    ) -> None:
        self.name = name
        self.destination = destination
        self.state = LaneState()
        self.trouble = ""
        self.news = asyncio.Event()
        self.history = history
        self.letters = letters
        self.sender = Sender(name, destination, settings)
        self.builder = builder
        self._sealed = sealed
        self._settings = settings
        self._state_file = state_file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{name}")
        self._round = Round()
        self._open = OpenCuts()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._turn: list[str] = []
        self._waiting_since: dict[str, float] = {}
        self._unreadable_until: dict[str, float] = {}
        self._first_seen: float | None = -math.inf
        self._after = ""

    async def run(self) -> None:
        """Until cancelled. Errors of storing or reading are shown as ``trouble`` and tried again, ever slower."""
        await self.in_thread(self._load)
        watch = asyncio.create_task(self.sender.watch_park())
        try:
            for planned in sorted(self._open.planned(), key=lambda planned: planned.record.id):
                self._start(planned)
            await self._loop()
        finally:
            tasks = [watch, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._give_up_changes()

    async def close(self) -> None:
        """Let go of history and thread, after ``run`` ended. What the thread was doing then is done first: SQLite does not
        survive being closed under a write, and nobody else may have the role's lock while it lasts."""
        await self.in_thread(self.history.close)
        self._thread.shutdown(wait=False)

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking work in this lane's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def change(self, apply: Callable[[LaneState], None]) -> None:
        """Change the state durably with the next commit; returns when it is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._round.changes.append(Change(apply, done))
        self.news.set()
        await done

    def first_pending(self, handle: str) -> int:
        """The lowest index of a tenant that is not settled."""
        firsts = [p.record.first for p in self._open.planned() if p.record.handle == handle and not p.record.only]
        return min([self._next_of(handle), *firsts])

    def is_under_way(self, place: str) -> bool:
        """Whether a cut that is not settled yet goes to ``place``, or lies there already."""
        return any(planned.record.place == place for planned in self._open.planned())

    def is_open_at(self, handle: str, index: int) -> bool:
        """Whether a cut that is not settled yet may bring this event."""
        records = (planned.record for planned in self._open.planned())
        return any(record.handle == handle and record.first <= index <= record.last for record in records)

    async def _loop(self) -> None:
        failures = 0
        while True:
            self.news.clear()
            try:
                wait = await self._step()
                failures = 0
                if not self._unreadable_until:
                    self.trouble = ""
            except (OSError, TallystickError) as error:
                failures += 1
                self._note_trouble(error)
                wait = backoff_s(failures, self._settings.retry_min.seconds, self._settings.retry_max.seconds)
                await asyncio.sleep(min(wait, self._settings.retry_min.seconds))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.news.wait()

    async def _step(self) -> float:
        """One round; returns how long to wait for news, in seconds."""
        try:
            if not self._round.planned:
                planned = await self.in_thread(self._plan)
                self._round.planned += planned
        finally:
            is_busy = bool(self._round)
            if is_busy:
                await self._commit()
        return 0.0 if is_busy else self._next_due_s()

    def _load(self) -> None:
        state = self._state_file.load()
        if state is None:
            # None yet, or both generations are damaged or gone: what the history knows is settled is not sent again. Cuts that
            # were open are cut anew: without exactly-once their events may repeat.
            state = LaneState(accounts=self.history.rebuild(), next_cut=self.history.next_id())
            if state.next_cut or self._state_file.is_damaged():
                log.error("delivery state is damaged or missing and rebuilt from the history", destination=self.name)
        self.state = state
        self._round = Round(changes=self._round.changes)
        self._after = state.after
        self._numbers = itertools.count(state.next_cut)
        self._open = OpenCuts({number: Planned(record, None) for number, record in state.cuts.items()})
        if state.is_paused:
            self.sender.pause()

    def _plan(self) -> list[Planned]:
        """New cuts: as many as the window has room for, one to be ready when a slot comes free, and more while they are small.

        Small ones together share the durable steps of a commit, which is what a thousand quiet tenants need.
        """
        planned: list[Planned] = []
        size = sum(len(open_cut.cut.body) for open_cut in self._open.planned() if open_cut.cut is not None)
        for replay in self.state.replays:
            if not self._has_room(planned, size):
                break
            planned.append(self.builder.plan_replay(next(self._numbers), replay))
        tenants = self._sealed.tenants()
        if len(self._turn) != len(tenants):
            self._turn += sorted(tenants.keys() - set(self._turn))
        counts = Counter(open_cut.record.handle for open_cut in self._open.planned())
        for handle in list(self._turn):
            first, sealed = self._next_of(handle), self._sealed.size(handle)
            while self._is_due(handle, sealed - first) and counts[handle] < self._tenant_max and self._has_room(planned, size):
                cut = self._plan_next(handle, tenants[handle], first, sealed)
                if cut is None:
                    break
                planned.append(cut)
                counts[handle] += 1
                first = cut.record.last + 1
                self._turn.remove(handle)
                self._turn.append(handle)
            if first >= sealed:
                self._waiting_since.pop(handle, None)
        self._first_seen = None
        return planned

    def _has_room(self, planned: list[Planned], open_bytes: int) -> bool:
        """Whether one more cut may be open: bounded in number and, past the window, in bytes."""
        count = len(self._open) + len(planned)
        if count <= self.destination.window:
            return True
        size = open_bytes + sum(len(new.cut.body) for new in planned if new.cut is not None)
        return count < OPEN_CUTS_MAX and size < self.builder.limits.max_bytes // 2

    def _plan_next(self, handle: str, tenant: str, first: int, sealed: int) -> Planned | None:
        """None while this tenant's events cannot be read: others go on, and it is tried again after a while."""
        if time.monotonic() < self._unreadable_until.get(handle, 0.0):
            return None
        try:
            planned = self.builder.plan(next(self._numbers), handle, tenant, first, sealed)
        except (OSError, TallystickError) as error:
            self._note_trouble(error)
            self._unreadable_until[handle] = time.monotonic() + self._settings.retry_min.seconds
            return None
        self._unreadable_until.pop(handle, None)
        return planned

    @property
    def _tenant_max(self) -> int:
        return 2 if self.destination.is_ordered else self.destination.window + 1

    def _next_of(self, handle: str) -> int:
        account = self.state.accounts.get(handle)
        return account.next if account else 0

    def _is_due(self, handle: str, pending: int) -> bool:
        """By count, by bytes (taken as 512 an event until they are read), or by the time since the lane saw the oldest one.

        That time is monotonic: clock jumps neither hold back nor hurry. What is pending at a start is due at once.
        """
        if pending <= 0:
            return False
        clock = time.monotonic()
        since = self._waiting_since.setdefault(handle, clock if self._first_seen is None else self._first_seen)
        return is_due(pending, pending * EVENT_BYTES_GUESS, clock - since, self.builder.limits)

    def _next_due_s(self) -> float:
        """Seconds until something is due that is not due yet; what is due already waits for a slot, and that is news."""
        clock = time.monotonic()
        due = [since + self.builder.limits.max_age_s - clock for since in self._waiting_since.values()]
        due += [max(until - clock, RETRY_FLOOR_S) for until in self._unreadable_until.values()]
        return min((wait for wait in due if wait > 0.0), default=UNTIL_NEWS_S)

    async def _commit(self) -> None:
        """Store the round, then start its cuts. After an error the round is kept, for the next call."""
        current, self._round = self._round, Round()
        try:
            await self.in_thread(self._store, current)
        except BaseException:
            self._round = current.then(self._round)
            raise
        for planned in [*current.planned, *(new for replaced in current.replaced for new in replaced.new)]:
            if planned.cut is not None:
                self._start(planned)
        for replaced in current.replaced:
            self._open.remove(replaced.old)
        for change in current.changes:
            if not change.done.done():
                change.done.set_result(None)

    def _store(self, current: Round) -> None:
        """Step 2 of the loop. May be repeated as a whole after an error."""
        at = now()
        fresh = [*current.planned, *(new for replaced in current.replaced for new in replaced.new)]
        empty = [settle_cut(self.name, planned, NOTHING_TO_SEND, at) for planned in fresh if planned.cut is None]
        settlements = current.settlements + empty
        self._file_letters(settlements, at)
        rows = [settlement.row for settlement in settlements]
        rows += [void_row(replaced.old, at) for replaced in current.replaced if replaced.is_voided]
        if rows:
            self.history.add(rows)
        state = copy_state(self.state)
        for planned in current.planned:
            apply_plan(state, planned)
        for replaced in current.replaced:
            apply_replacement(state, replaced.old, replaced.new)
        for settlement in settlements:
            apply_settlement(state, settlement)
        for change in current.changes:
            change.apply(state)
        state.next_cut = max([state.next_cut, *(planned.record.id + 1 for planned in fresh)])
        # A crash before this: letters and rows are there already, cursor and cuts are not; the round is done again.
        self._state_file.save(state)
        self.state = state
        for settlement in settlements:
            count_settlement(self.name, settlement)

    def _file_letters(self, settlements: list[Settlement], at: float) -> None:
        unfiled = [settlement for settlement in settlements if settlement.letters and not settlement.row.dead]
        ordinals = self.letters.append(self.name, [letter for s in unfiled for letter in s.letters]) if unfiled else []
        for settlement in unfiled:
            count = len(settlement.letters)
            settlement.number_letters(ordinals[:count])
            ordinals = ordinals[count:]
        redeemed = tuple(letter for settlement in settlements for letter in settlement.redeemed_letters)
        if redeemed:
            self.letters.mark_replayed(self.name, redeemed, at)

    def _start(self, planned: Planned) -> None:
        self._open.add(planned)
        task = asyncio.create_task(self._work(planned))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, planned: Planned) -> None:
        """Bring one cut to its outcome and put that into the next round."""
        failures = 0
        while True:
            try:
                await self._decide(planned)
            except (OSError, TallystickError) as error:
                failures += 1
                self._note_trouble(error)
                await asyncio.sleep(backoff_s(failures, self._settings.retry_min.seconds, self._settings.retry_max.seconds))
            else:
                break
        self.news.set()

    async def _decide(self, planned: Planned) -> None:
        """Put what became of a cut into the next round. One that is replaced stays open until the commit opens the new ones."""
        if self.destination.is_ordered:
            await self._open.turn(planned)
        answer = await self.sender.deliver(planned, self._rebuild, lambda: self._after)
        if answer is None:
            if not await self.sender.is_there(planned.record.place, planned.record.sha256):
                new = await self.in_thread(self._plan_again, planned)
                log.warning("a cut could not be built again and is voided", destination=self.name, cut=planned.record.name)
                self._round.replaced.append(Replaced(planned, [new], is_voided=True))
                return
            answer = Answer(AnswerKind.DELIVERED, where=planned.record.place)
        if answer.kind is AnswerKind.SPLIT and planned.record.events > 1:
            halves = await self.in_thread(self._plan_halves, planned)  # the round may be another one afterwards
            self._round.replaced.append(Replaced(planned, halves))
            return
        self._after = answer.where or self._after
        self._round.settlements.append(settle_cut(self.name, planned, answer, now()))
        self._open.remove(planned)

    async def _rebuild(self, planned: Planned) -> Cut | None:
        return await self.in_thread(self.builder.rebuild, planned.record)

    def _plan_again(self, planned: Planned) -> Planned:
        record = planned.record
        if record.only:
            return self.builder.plan_replay(next(self._numbers), replay_of(record))
        return self.builder.plan_range(next(self._numbers), record.handle, record.tenant, record.first, record.last)

    def _plan_halves(self, planned: Planned) -> list[Planned]:
        record, cut = planned.record, planned.cut
        if cut is None:
            raise TransientError("a cut to be split has no bytes")
        if record.only:
            halves = [self.builder.plan_replay(next(self._numbers), part) for part in split_replay(replay_of(record))]
        else:
            first, middle, next_first, last = halve(cut)
            halves = [
                self.builder.plan_range(next(self._numbers), record.handle, record.tenant, low, high)
                for low, high in ((first, middle), (next_first, last))
            ]
        for half in halves:
            half.attempts = planned.attempts
        return halves

    def _give_up_changes(self) -> None:
        for change in self._round.changes:
            if not change.done.done():
                change.done.set_exception(TransientError("the dispatcher stops", hint="Try again"))

    def _note_trouble(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self.trouble:
            log.error("delivery is held up", destination=self.name, reason=text)
        self.trouble = text
