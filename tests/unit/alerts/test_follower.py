"""The follower of alert rules over a real journal: each alert once, whenever it is killed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from support.journal_kit import KEYS, batch, with_journal
from tallystick.alerts.follower import AlertFollower
from tallystick.alerts.rule import read_rules
from tallystick.errors import ConflictError, NotAcceptingError
from tallystick.journal.entries import Append
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal

RULES = b"""
[[rules]]
name = "every"
title = "t"
severity = "low"
query = "action:bad.deed"
[[rules]]
name = "three"
title = "t"
severity = "high"
query = "action:bad.deed"
kind = "threshold"
count = 3
window = "1h"
group = ["actor"]
"""
AT = "2026-03-01T10:00:00.000000Z"


class Log:
    """The logs behind the inner door, as the intake keeps them: one event an id. May refuse, or die after storing."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.repeats = self.refusals = self.deaths = 0

    async def post_events(self, tenant: str, events: list[dict[str, Any]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise NotAcceptingError("not now")
        if any(self.stored.get(event["id"], event) != event for event in events):
            raise ConflictError("other content")
        self.repeats += sum(event["id"] in self.stored for event in events)
        self.stored |= {event["id"]: event for event in events}
        if self.deaths:
            self.deaths -= 1
            raise KeyboardInterrupt

    def names(self) -> list[str]:
        return sorted(event["metadata"]["rule"] for event in self.stored.values())


class Place:
    """A data directory, its log, and a follower that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.data.mkdir()
        self.tenant = TenantRegistry(self.data).create("acme")
        self.log = Log()
        self.begin()

    def begin(self, rules: bytes = RULES) -> None:
        """A new life, from what the one before had saved."""
        self.follower = AlertFollower(
            self.data, read_rules(rules, "r").rules, 100, JournalReader(self.data, KEYS), self.log, lambda: 2e9
        )

    def append(self, *actors: str, action: str = "bad.deed") -> None:
        lines = []
        for actor in actors:
            event = {"id": "x", "tenant": "acme", "action": action, "actor": {"type": "user", "id": actor}, "received_at": AT}
            lines.append(json.dumps(event, separators=(",", ":")).encode())

        async def work(journal: Journal) -> None:
            for line in lines:
                await journal.append(Append([batch([line], self.tenant)]))

        with_journal(self.data, work)

    def catch_up(self) -> None:
        while self.follower.step():
            pass
        self.follower.step()


def test_alerts_are_events_in_the_log_of_the_tenant(tmp_path: Path) -> None:
    """State goes over lives: the third deed fires although the first two were judged before."""
    place = Place(tmp_path)
    place.append("u", "u", action="bad.deed")
    place.catch_up()
    place.follower._save_if(is_due=True)
    place.append("u", "v")
    place.append("u", action="good.deed")
    place.begin()
    place.catch_up()
    assert place.log.names() == ["every"] * 4 + ["three"]
    assert place.follower.status()["rules"]["every"] == {"raised": 4, "groups": 0, "forgotten": 0, "suppressed": 0}


def test_killed_at_any_step_each_alert_is_there_once(tmp_path: Path) -> None:
    """Killed before or after the alerts were stored, with the state saved or not: the same alerts as without a kill."""
    dice = random.Random(7)
    place = Place(tmp_path)
    for _ in range(12):
        place.append(*(dice.choice("abc") for _ in range(4)))
        place.log.deaths = dice.randrange(2)
        place.log.refusals = dice.randrange(2)
        try:
            place.catch_up()
        except KeyboardInterrupt:
            place.begin()
        if dice.randrange(2):
            place.follower._save_if(is_due=True)
    place.catch_up()
    calm = Place(tmp_path / "calm") if (tmp_path / "calm").mkdir() is None else None
    assert calm is not None
    calm.follower = AlertFollower(
        calm.data, read_rules(RULES, "r").rules, 100, JournalReader(place.data, KEYS), calm.log, lambda: 2e9
    )
    calm.catch_up()
    assert place.log.stored == calm.log.stored
    assert place.log.repeats > 0
    assert place.log.names().count("every") == 48


def test_nothing_is_read_on_while_alerts_wait(tmp_path: Path) -> None:
    """An intake that takes nothing now is asked again, and the reason stands in status meanwhile."""
    place = Place(tmp_path)
    place.append("u")
    place.log.refusals = 1
    while place.log.refusals:
        place.follower.step()
    assert place.follower.status()["reason"] == "not now"
    place.catch_up()
    assert place.log.names() == ["every"]
    assert place.follower.status()["reason"] == ""


def test_an_alert_that_is_there_in_other_words_stays(tmp_path: Path) -> None:
    """Its rule was reworded between a crash and the repeat; the others of the batch are stored."""
    place = Place(tmp_path)
    place.append("u", "v")
    place.log.deaths = 1
    try:
        place.catch_up()
    except KeyboardInterrupt:
        place.append("w")
        place.begin(RULES.replace(b'"low"', b'"high"', 1))
    place.catch_up()
    assert [event["metadata"]["severity"] for event in place.log.stored.values()] == ["low", "low", "high"]
