"""A ledger over several sources at once: what each client sent, was told, and what is there after each kill.

Every sender sends batches of marked records in its protocol's own form, and the same batch again until it is answered with success, as
forwarders do. A record belongs to the kill point that was being waited for when it was made. After the last restart every cell of
the table source × kill point is judged: accepted records are there; records of a source whose ids merge repeats are there once,
others at most once more for each time that they went without an answer. A protocol without acknowledgements (syslog) is judged by
what it can promise: of each connection the records up to some place are there, each once, and none behind it.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from support.ledger import LedgerError
from support.server import Server

_MARK = re.compile(r"mark:([a-z0-9_]+):(\d+)")


class Sent(NamedTuple):
    """What became of one batch: accepted; refused for now (nothing set); or no answer. ``odd``: an answer that nothing excuses."""

    is_accepted: bool = False
    is_unanswered: bool = False
    odd: str = ""
    ack: int | None = None
    connection: int = 0


Send = Callable[[list[str]], Sent]


@dataclass(frozen=True)
class Sender:
    """One source's client. ``merges``: a repeat is known as one; ``is_best_effort``: nothing is ever acknowledged."""

    name: str
    open: Callable[[Server], AbstractContextManager[Send]]
    merges: bool = True
    is_best_effort: bool = False
    batch: int = 12
    pause_s: float = 0.0
    number_of: Callable[[dict[str, Any]], int | None] = lambda line: None
    """The number of an event of this source whose record carries no mark."""


@dataclass
class Item:
    """One record: the kill point it was made before, whether it was accepted, how often it went without an answer, its connection."""

    point: str
    is_accepted: bool = False
    unanswered: int = 0
    connection: int = 0


@dataclass
class SourceLedger:
    """Thread-safe. ``items`` by (source, number); ``acks`` are the acknowledgement ids that were given out."""

    senders: Sequence[Sender]
    points: list[str]
    point: str = ""
    items: dict[tuple[str, int], Item] = field(default_factory=dict)
    acks: list[int] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def load(self, server: Server, seed: int) -> Iterator[None]:
        """All send until the block ends."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._run, args=(server, sender, stop, random.Random(f"{sender.name}{seed}")))
            for sender in self.senders
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
        if any(thread.is_alive() for thread in threads):
            raise LedgerError("a request was neither answered nor refused within 90 s")

    def accepted(self, point: str = "") -> dict[str, int]:
        """Records accepted so far by source, of one kill point or of all."""
        with self._lock:
            return dict(Counter(name for (name, _), item in self.items.items() if item.is_accepted and point in ("", item.point)))

    def missing(self, lines: list[dict[str, Any]]) -> dict[str, int]:
        """Accepted records by source that are not among these events (yet: sources that read need time for what they were given)."""
        found = self._found(lines)
        unsure = {sender.name for sender in self.senders if sender.is_best_effort}
        return dict(
            Counter(
                name
                for (name, number), item in self.items.items()
                if item.is_accepted and name not in unsure and not found[name, number]
            )
        )

    def judge(self, lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
        """(source, kill point, result) of every cell. Raises LedgerError for a broken promise, or a cell that nothing was sent in."""
        if self.odd:
            raise LedgerError(f"answers that no fault excuses: {dict(self.odd)}")
        found = self._found(lines)
        return [
            (
                sender.name,
                point,
                self._unacknowledged(sender, point, found) if sender.is_best_effort else self._cell(sender, point, found),
            )
            for sender in self.senders
            for point in self.points
        ]

    def _found(self, lines: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
        found: Counter[tuple[str, int]] = Counter()
        for line in lines:
            match = _MARK.search(json.dumps(line))
            place = (match[1], int(match[2])) if match else self._unmarked(line)
            if place is None:
                raise LedgerError(f"an event that nobody sent: {line}")
            found[place] += 1
        return found

    def _unmarked(self, line: dict[str, Any]) -> tuple[str, int] | None:
        numbers = ((sender.name, sender.number_of(line)) for sender in self.senders)
        return next(((name, number) for name, number in numbers if number is not None), None)

    def _cell(self, sender: Sender, point: str, found: Counter[tuple[str, int]]) -> str:
        items = {place: item for place, item in self.items.items() if place[0] == sender.name and item.point == point}
        accepted = [place for place, item in items.items() if item.is_accepted]
        lost = [place for place in accepted if not found[place]]
        bound = {place: 1 if sender.merges else 1 + item.unanswered for place, item in items.items()}
        repeated = [place for place in items if found[place] > bound[place]]
        if not accepted:
            raise LedgerError(f"{sender.name}, {point}: nothing was accepted, so nothing is shown")
        if lost or repeated:
            raise LedgerError(f"{sender.name}, {point}: {len(lost)} lost as {lost[:3]}, {len(repeated)} repeated as {repeated[:3]}")
        resent = sum(1 for item in items.values() if item.unanswered)
        twice = sum(1 for place in items if found[place] > 1)
        return f"{len(accepted)} accepted, 0 lost; {resent} sent again, {twice} there twice"

    def _unacknowledged(self, sender: Sender, point: str, found: Counter[tuple[str, int]]) -> str:
        by_connection: defaultdict[int, list[int]] = defaultdict(list)
        for (name, number), item in self.items.items():
            if name == sender.name and item.connection:
                by_connection[item.connection].append(number)
        for numbers in by_connection.values():
            counts = [found[sender.name, number] for number in sorted(numbers)]
            if max(counts) > 1 or sorted(counts, reverse=True) != counts:
                raise LedgerError(f"{sender.name}: of one connection {counts} are there")
        items = [place for place, item in self.items.items() if place[0] == sender.name and item.point == point]
        there = sum(1 for place in items if found[place])
        if not there:
            raise LedgerError(f"{sender.name}, {point}: nothing arrived, so nothing is shown")
        return (
            f"{len(items)} written, {there} there, once and without a hole; {len(items) - there} on their way (no acknowledgement)"
        )

    def _run(self, server: Server, sender: Sender, stop: threading.Event, chance: random.Random) -> None:
        with sender.open(server) as send:
            while not stop.is_set():
                numbers = self._make(sender.name, chance.randint(1, sender.batch))
                while not self._send(sender, send, numbers) and not stop.wait(0.05):
                    pass
                stop.wait(sender.pause_s)

    def _make(self, name: str, count: int) -> list[int]:
        with self._lock:
            first = self._made[name]
            self._made[name] += count
            for number in range(first, first + count):
                self.items[name, number] = Item(self.point)
            return list(range(first, first + count))

    def _send(self, sender: Sender, send: Send, numbers: list[int]) -> bool:
        sent = send([f"mark:{sender.name}:{number}" for number in numbers])
        with self._lock:
            for number in numbers:
                item = self.items[sender.name, number]
                item.unanswered += sent.is_unanswered
                item.is_accepted |= sent.is_accepted
                item.connection = sent.connection
            if sent.odd:
                self.odd[f"{sender.name} {sent.odd}"] += 1
            if sent.ack is not None:
                self.acks.append(sent.ack)
        return sent.is_accepted
