"""The follower of producers' numbers, over a real journal: every crash goes back to what was saved, and nothing is hidden or invented."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from support.journal_kit import ACME, KEYS, batch, with_journal
from tallystick.config import CompletenessSettings, Duration
from tallystick.delivery.inner_door import Entry
from tallystick.errors import NotAcceptingError
from tallystick.journal.entries import Append, FilterCount, ProducerRanges, QuarantinedRecord
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import Tenant, TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.sources.producer_follower import ProducerFollower

AT = "2026-03-01T10:00:00.000000Z"
LATER = 2e9


class Account:
    """The accounts behind the inner door: of all entries under one id, the first is stored. May refuse, or die after storing."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.refusals = 0
        self.deaths = 0

    async def post(self, entries: list[Entry]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise NotAcceptingError("not now")
        for entry in entries:
            self.stored.setdefault(entry.id, entry.entry)
        if self.deaths:
            self.deaths -= 1
            raise KeyboardInterrupt

    def told(self) -> list[tuple[str, list[list[int]]]]:
        return sorted((str(entry["reason"]), entry.get("ranges", [])) for entry in self.stored.values())


class Place:
    """A data directory with one tenant, its account, and a follower that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.data.mkdir()
        self.tenant: Tenant = TenantRegistry(self.data).create("acme")
        self.account = Account()
        self.clock = LATER
        self.begin()

    def begin(self) -> None:
        """A new life, from what the one before had saved."""
        settings = CompletenessSettings(patience=Duration("5s"))
        self.follower = ProducerFollower(self.data, settings, JournalReader(self.data, KEYS), self.account, lambda: self.clock)

    def append(self, *appends: Append) -> None:
        async def work(journal: Journal) -> None:
            for item in appends:
                await journal.append(item)

        with_journal(self.data, work)

    def events(self, *numbers: int | None, producer: str = "p", flags: list[str] | None = None, at: str = AT) -> Append:
        """One request; None is an event without a producer."""
        return Append([batch([_line(number, producer, flags, at) for number in numbers], self.tenant)])

    def catch_up(self) -> None:
        while self.follower.step():
            pass
        self.follower.step()


def _line(number: int | None, producer: str, flags: list[str] | None, at: str) -> bytes:
    event: dict[str, Any] = {"received_at": at, "metadata": {"producer": "none"}}
    if number is not None:
        event["producer"] = {"id": producer, "epoch": 0, "seq": number}
    event |= {"source": {"name": "app", "type": "http", "credential": "k"}, "ingest": {"flags": flags or []}}
    return json.dumps(event, separators=(",", ":")).encode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_holes_in_the_journal_are_told_once(place: Place) -> None:
    """Over requests, lives of the journal, and lives of the follower."""
    place.append(place.events(1, None, 2, 5))
    place.catch_up()
    place.append(place.events(6, 9))
    place.begin()
    place.catch_up()
    place.begin()
    place.catch_up()
    assert place.account.told() == [("sequence", [[3, 4]]), ("sequence", [[7, 8]])]


def test_what_was_filtered_or_quarantined_is_not_missing(place: Place) -> None:
    """Their numbers came; and a record that is sent in again out of the quarantine is no repeat and no new producer."""
    handle = place.tenant.handle
    bad = json.dumps({"producer": {"id": "p", "epoch": 0, "seq": 3}, "action": ""}).encode()
    place.append(
        place.events(1, 2, 7),
        Append(quarantined=[QuarantinedRecord(handle=handle, source="app", code="x", message="", received_at=AT, data=bad, credential="k")]),
        Append(quarantined=[QuarantinedRecord(handle=handle, source="app", code="x", message="", received_at=AT, data=b'{"producer":')]),
        Append(
            filtered=[
                FilterCount(
                    handle=handle, source="app", filter="f", count=2, received_at=AT, producers=[ProducerRanges("k", "p", 0, [[4, 5]])]
                )
            ]
        ),
        place.events(3, flags=["replayed"]),
    )  # fmt: skip
    place.catch_up()
    assert place.account.told() == [("sequence", [[6, 6]])]
    assert place.follower.status()["watched"] == 1


def test_requests_that_overtake_each_other_make_no_finding(place: Place) -> None:
    """By the journal's own clock while there is more to read, so also when the follower was away for a year."""
    place.append(place.events(51, 52), place.events(1, 2), *(place.events(number) for number in range(3, 51)))
    place.catch_up()
    assert place.account.told() == []


def test_an_account_that_takes_nothing_now_gets_it_later(place: Place) -> None:
    """What is owed survives the follower."""
    place.append(place.events(1, 3))
    place.account.refusals = 2
    place.catch_up()
    assert place.account.stored == {}
    assert place.follower.status()["owed"] == 1
    place.begin()
    place.catch_up()
    assert place.account.told() == [("sequence", [[2, 2]])]
    assert place.follower.status()["found"] == {"acme": {"sequence": 1}}


def test_a_death_after_the_account_has_it_stores_it_once(place: Place) -> None:
    """And a number that came between the two is told as late, not hidden."""
    place.append(place.events(1, 3))
    place.account.deaths = 1
    with pytest.raises(KeyboardInterrupt):
        place.catch_up()
    place.append(place.events(2))
    place.begin()
    place.catch_up()
    assert place.account.told() == [("late", [[2, 2]]), ("sequence", [[2, 2]])]


@pytest.mark.parametrize("seed", range(12))
def test_deaths_anywhere_change_nothing(place: Place, seed: int) -> None:
    """Numbers with holes in random order over three producers; the follower dies at random steps: as if it had never ended."""
    chance = random.Random(seed)
    expected: list[tuple[str, list[list[int]]]] = []
    for producer in ("a", "b", "c"):
        kept = [number for number in range(1, 60) if number in (1, 59) or chance.random() < 0.9]
        holes = [number for number in range(1, 60) if number not in kept]
        expected += [("sequence", _ranges(holes))] if holes else []
        chance.shuffle(kept)
        for first in range(0, len(kept), 7):
            place.append(place.events(*kept[first : first + 7], producer=producer))
            if chance.random() < 0.5:
                place.clock = 0.0  # the patience is not over
                place.follower.step()
            if chance.random() < 0.4:
                place.begin()
    place.clock = LATER
    place.account.deaths = chance.randint(0, 2)
    for _ in range(4):
        try:
            place.catch_up()
        except KeyboardInterrupt:
            place.begin()
    assert place.account.told() == sorted(expected)


def _ranges(numbers: list[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def test_frames_of_others_are_no_concern(place: Place) -> None:
    """A tenant whose events have no producer leaves no trace."""
    place.append(Append([batch([b'{"metadata":{"producer":1},"received_at":"x","source":{"name":"a","type":"b"}}'], ACME)]))
    place.catch_up()
    assert place.follower.status()["watched"] == 0
