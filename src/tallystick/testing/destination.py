"""A destination in memory, with dials for every way in which a real one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import msgspec

from tallystick.config import DestinationSettings
from tallystick.destinations.encodings import make_encoder
from tallystick.errors import DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut


class MemorySettings(DestinationSettings, frozen=True):
    """Nothing to set beyond what every destination has."""


class MemoryDestination:
    """Keeps cuts by name: the same name with the same bytes is taken once, so it is exactly-once like an object store.

    Dials: ``script`` holds answers to give instead of accepting, first one first; ``lose_replies`` is the number of cuts to take
    without answering; ``refuse`` says of a line whether it is refused for good; ``events_max`` is the largest cut taken (more: SPLIT);
    ``delay_s`` is the time of one attempt; ``is_up`` False raises, as a dead connection does; ``probe_answer`` is what probes get.
    """

    settings: ClassVar[type[DestinationSettings]] = MemorySettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 2
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=100, max_bytes=1 << 20, max_age_s=0.0)
    answers: ClassVar[dict[str, str]] = {"as dialled": "as dialled"}

    def __init__(self, name: str = "memory", settings: MemorySettings | None = None) -> None:
        self.name = name
        self.encoder = make_encoder("json")
        self.script: list[Answer] = []
        self.lose_replies = 0
        self.refuse: Callable[[bytes], bool] = lambda line: False
        self.events_max = 1 << 60
        self.delay_s = 0.0
        self.is_up = True
        self.probe_answer = Answer(AnswerKind.DELIVERED)
        self.attempts: list[Cut] = []
        self.cuts: dict[str, Cut] = {}
        self.order: list[str] = []

    @property
    def lines(self) -> list[bytes]:
        """Every line taken, in order of arrival."""
        return [line for name in self.order for at, line in enumerate(self.cuts[name].lines) if at not in self._refused_of(name)]

    def ids(self) -> list[str]:
        """The events' ids, in order of arrival."""
        return [str(msgspec.json.decode(line)["id"]) for line in self.lines]

    def place(self, cut: Cut) -> str:
        return cut.name

    async def find(self, place: str, sha256: str) -> bool | None:
        return place in self.cuts and self.cuts[place].sha256 == sha256

    async def send(self, cut: Cut) -> Answer:
        self.attempts.append(cut)
        await asyncio.sleep(self.delay_s)
        if not self.is_up:
            raise DestinationUnavailableError("the memory destination is dialled down")
        if self.script:
            return self.script.pop(0)
        if cut.name not in self.cuts:  # one taken before is recognised, however large
            if len(cut.lines) > self.events_max:
                return Answer(AnswerKind.SPLIT, reason="too_large")
            self.order.append(cut.name)
        self.cuts[cut.name] = cut
        if self.lose_replies > 0:
            self.lose_replies -= 1
            raise DestinationUnavailableError("the answer was lost")
        return Answer(AnswerKind.DELIVERED, where=cut.name, refused=dict.fromkeys(self._refused_of(cut.name), "dialled"))

    async def probe(self) -> Answer:
        return self.probe_answer if self.is_up else Answer(AnswerKind.RETRY, reason="down")

    async def close(self) -> None:
        """Nothing is open."""

    def _refused_of(self, name: str) -> set[int]:
        return {at for at, line in enumerate(self.cuts[name].lines) if self.refuse(line)}
