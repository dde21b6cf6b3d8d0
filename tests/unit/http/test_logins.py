"""Failed logins: the limit by address and id, and the record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tallystick.buckets import SharedBuckets
from tallystick.errors import NotAcceptingError
from tallystick.http import logins
from tallystick.http.access import AuthError
from tallystick.http.logins import LoginGuard, LoginLimit


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


class Book:
    """Where events are recorded; ``is_down`` makes that fail."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.is_down = False

    async def record(self, event: dict[str, Any]) -> None:
        if self.is_down:
            raise NotAcceptingError("the disk is away")
        self.events.append(event)

    def attempts(self) -> int:
        return sum(event["metadata"]["attempts"] for event in self.events)


def wrong(key_id: str = "") -> AuthError:
    return AuthError("key_invalid", "no such access key", key_id)


def test_past_the_limit_the_wait_is_told_and_is_true() -> None:
    """As many as the limit at once, then the time until the next counts as a first; refused ones prolong nothing."""
    clock = Clock()
    limit = LoginLimit(6, clock)
    assert [limit.count("a") for _ in range(6)] == [0.0] * 6
    assert [limit.count("a") for _ in range(3)] == [pytest.approx(10.0)] * 3
    assert limit.count("b") == 0.0
    clock.now += 9
    assert limit.count("a") == pytest.approx(1.0)
    clock.now += 1.001
    assert limit.count("a") == 0.0
    clock.now += 60
    assert [limit.count("a") for _ in range(7)][-2:] == [0.0, pytest.approx(10.0)]


async def test_several_processes_count_together(tmp_path: Path) -> None:
    """Failures at two workers are failures of one address."""
    guards = [LoginGuard(4, "intake", Book().record, Clock(), SharedBuckets(tmp_path / "buckets", b"k" * 32)) for _ in range(2)]
    answers = [guards[number % 2].failed("192.0.2.1", wrong("abcd")).status for number in range(6)]
    assert answers == [401] * 4 + [429] * 2
    for guard in guards:
        await guard.close()


async def test_addresses_and_ids_are_limited_each_for_itself() -> None:
    """429 for an address whatever ids it tries, for an id from wherever it is tried, and for a whole /64 of IPv6."""
    guard = LoginGuard(3, "intake", Book().record, Clock())

    def statuses(*tries: tuple[str, str]) -> list[int]:
        return [guard.failed(address, wrong(key_id)).status for address, key_id in tries]

    assert statuses(*[("192.0.2.1", f"k{number}") for number in range(4)]) == [401, 401, 401, 429]
    assert statuses(*[(f"192.0.2.{number}", "known") for number in range(10, 14)]) == [401, 401, 401, 429]
    assert statuses(*[(f"2001:db8::{number}", f"six{number}") for number in range(4)]) == [401, 401, 401, 429]
    assert statuses(("2001:db8:0:1::1", "other"), ("192.0.2.99", "")) == [401, 401]
    answer = guard.failed("192.0.2.1", wrong())
    assert (answer.code, answer.headers["retry-after"]) == ("too_many_logins", "20")
    await guard.close()


async def test_no_credential_is_no_failed_login() -> None:
    """A request without a key stays 401 however often it comes, and is not on record."""
    book = Book()
    guard = LoginGuard(1, "api", book.record)
    assert {guard.failed("192.0.2.1", AuthError("unauthenticated", "needs a key")).status for _ in range(20)} == {401}
    await guard.close()
    assert book.events == []


async def test_every_attempt_is_counted_in_few_events() -> None:
    """The first of a pair at once with id and address, the rest as one event with its number: the sum is what happened."""
    book = Book()
    guard = LoginGuard(1_000, "intake", book.record)
    for _ in range(50):
        guard.failed("192.0.2.1", wrong("abcd"))
    await asyncio.sleep(0)
    assert len(book.events) == 1
    first = book.events[0]
    assert (first["action"], first["outcome"]) == ("tallystick.login_failed", "denied")
    assert (first["context"], first["targets"]) == ({"ip": "192.0.2.1"}, [{"type": "key", "id": "abcd"}])
    await guard.close()
    assert [event["metadata"]["attempts"] for event in book.events] == [1, 49]


async def test_a_flood_of_ids_makes_a_bounded_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound they are counted together; the sum is still what happened, and the minute's end begins anew."""
    monkeypatch.setattr(logins, "_PAIRS_MAX", 5)
    monkeypatch.setattr(logins, "_WINDOW_S", 0.05)
    book = Book()
    guard = LoginGuard(1_000_000, "intake", book.record)
    for number in range(500):
        guard.failed("192.0.2.1", wrong(f"id{number:04}"))
    await asyncio.sleep(0.1)
    assert len(book.events) == 7
    assert book.attempts() == 500
    guard.failed("192.0.2.1", wrong("id0400"))
    await guard.close()
    assert book.events[-1]["targets"][0]["id"] == "id0400"


async def test_a_record_that_fails_changes_no_answer() -> None:
    """The refusal stands; a line in the log says what could not be recorded."""
    book = Book()
    book.is_down = True
    guard = LoginGuard(5, "intake", book.record)
    assert guard.failed("192.0.2.1", wrong("abcd")).status == 401
    await guard.close()
    assert book.events == []
