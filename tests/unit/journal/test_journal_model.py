"""The journal against a model, over power cuts, kills, failed syncs and restarts at any step (P1–P4)."""

from __future__ import annotations

import asyncio
import errno
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.journal_kit import ACME, GLOBEX, batch, copy_dir, events, open_journal, spans
from support.sim_disk import SimDisk
from tallystick.durable import make_dir, set_observer
from tallystick.errors import PushbackError
from tallystick.journal.entries import Append

TENANTS = {"acme": ACME, "globex": GLOBEX}
MEMORY = Path("/dev/shm")  # the simulated disk forgets by itself; a real one would only be slow
SEEDS = st.integers(0, 1_000_000)
SIZES = st.lists(st.sampled_from([1, 40, 700, 5_000]), min_size=1, max_size=4)


class JournalModel(RuleBasedStateMachine):
    """``acked``: tenant → index → line, all of which must be there for ever. ``unknown``: requests without an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.lives = 0
        self.lines = 0
        self.acked: dict[str, dict[int, bytes]] = {"acme": {}, "globex": {}}
        self.unknown: list[dict[str, list[bytes]]] = []
        self.sent: dict[bytes, tuple[str, int]] = {}

    @initialize()
    def first_start(self) -> None:
        self.start(self.root / "0")

    def start(self, data: Path) -> None:
        self.data = data
        self.disk = SimDisk(data)
        set_observer(self.disk)
        if not data.exists():
            make_dir(data)
        else:
            self.disk.knows_all()
        self.journal = open_journal(data, segment="64KiB")

    def stop(self) -> None:
        set_observer(None)
        self.disk.close()
        self.loop.run_until_complete(self.journal.close())

    def new_lines(self, sizes: list[int]) -> list[bytes]:
        self.lines += len(sizes)
        return [
            b"%08d" % (self.lines - place) + random.Random(self.lines).randbytes(size).hex().encode()
            for place, size in enumerate(sizes)
        ]

    def send(self, request: dict[str, list[bytes]]) -> bool:
        batches = [batch(lines, TENANTS[name], ids=[line[:8] for line in lines]) for name, lines in request.items()]
        try:
            committed = self.loop.run_until_complete(self.journal.append(Append(batches)))
        except PushbackError:
            return False
        for (name, lines), tenant in zip(request.items(), committed.tenants, strict=True):
            indexes = [first + step for first, count in tenant.ranges for step in range(count)]
            for line, index in zip(lines, indexes, strict=True):
                assert self.acked[name].setdefault(index, line) == line
                assert self.sent.setdefault(line, (name, index)) == (name, index)
        return True

    @rule(sizes=SIZES, tenant=st.sampled_from(["acme", "globex"]))
    def append(self, sizes: list[int], tenant: str) -> None:
        assert self.send({tenant: self.new_lines(sizes)})

    @rule(first=SIZES, second=SIZES)
    def append_for_two(self, first: list[int], second: list[int]) -> None:
        assert self.send({"acme": self.new_lines(first), "globex": self.new_lines(second)})

    @rule(seed=SEEDS)
    def send_again(self, seed: int) -> None:
        """A repeat is answered with its first position."""
        if self.sent:
            line = random.Random(seed).choice(sorted(self.sent))
            assert self.send({self.sent[line][0]: [line]})

    @rule()
    def resend_unknown(self) -> None:
        """What a sender does after no answer: it sends again, with the same ids."""
        for request in self.unknown:
            assert self.send(request)
        self.unknown = []

    @rule(sizes=SIZES)
    def sync_fails_once(self, sizes: list[int]) -> None:
        self.disk.fail_next = [errno.EIO]
        assert self.send({"acme": self.new_lines(sizes)})

    @rule(sizes=SIZES)
    def sync_fails_twice(self, sizes: list[int]) -> None:
        """Refused, and nowhere after the restart."""
        self.disk.fail_next = [errno.EIO, errno.EIO]
        request = {"acme": self.new_lines(sizes)}
        assert not self.send(request)
        self.disk.fail_next = []
        self.stop()
        self.start(self.data)
        assert not set(request["acme"]) & set(events(self.data).values())

    @rule()
    def restart(self) -> None:
        self.stop()
        self.start(self.data)

    @rule()
    def kill(self) -> None:
        """kill -9: all that was written is there, nothing was closed."""
        self.lives += 1
        target = copy_dir(self.data, self.root / str(self.lives))
        self.stop()
        self.start(target)

    @rule(seed=SEEDS)
    def cut_power(self, seed: int) -> None:
        """Between two requests, unsynced pages lost by the toss of a coin."""
        self.lives += 1
        self.disk.image(self.root / str(self.lives), random.Random(seed))
        self.stop()
        self.start(self.root / str(self.lives))

    @rule(sizes=SIZES, second=SIZES, steps=st.integers(0, 8), seed=SEEDS)
    def cut_power_in_a_commit(self, sizes: list[int], second: list[int], steps: int, seed: int) -> None:
        """At any durable step of a commit; the request may be there whole, or not at all."""
        self.lives += 1
        target = self.root / str(self.lives)
        request = {"acme": self.new_lines(sizes), "globex": self.new_lines(second)}
        acked, sent = {name: dict(lines) for name, lines in self.acked.items()}, dict(self.sent)
        self.disk.cut_after(steps, target, random.Random(seed))
        assert self.send(request)
        if not self.disk.is_cut:
            self.disk.image(target, random.Random(seed))  # the answer was out before the cut
        else:
            self.acked, self.sent = acked, sent
            self.unknown.append(request)
        self.stop()
        self.start(target)

    @invariant()
    def all_is_there(self) -> None:
        """Every acknowledged line at its index, nothing else but whole unanswered requests, no hole, no damage."""
        if not hasattr(self, "journal"):
            return
        stored = {name: events(self.data, tenant) for name, tenant in TENANTS.items()}
        for name, lines in stored.items():
            assert sorted(lines) == list(range(len(lines)))
            assert self.acked[name].items() <= lines.items()
        extra = {name: set(lines.values()) - set(self.acked[name].values()) for name, lines in stored.items()}
        for request in self.unknown:
            found = [line in extra[name] for name, lines in request.items() for line in lines]
            assert all(found) or not any(found)
            for name, lines in request.items():
                extra[name] -= set(lines)
        assert extra == {"acme": set(), "globex": set()}
        assert spans(self.data) == []
        assert self.journal.recovered.damage == []

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.stop()
        set_observer(None)
        self.loop.close()
        shutil.rmtree(self.root)


JournalModel.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestJournalModel = JournalModel.TestCase
