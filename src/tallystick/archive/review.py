"""Reviews: who looked through which events, when, what they found, and when somebody has to look again.

    DIR/reviews/steps     EncryptedLog, written by the api process: each step of a review as JSON, the oldest first

A review is two steps. Its start fixes what is looked at: tenant, query, a period by ``received_at`` (the server's own clock, so that every event
falls into exactly one of two adjoining periods), how many events match, and how far the tenant's tree was sealed. Its sign-off says who stands
for it, whether there were findings, and the day of the next one. Steps are added and never changed.

A review that the configuration names (`[reviews.NAME]`) is due ``every`` after its last sign-off; one that was never signed, that long after
its tenant was made. Any other is due on the day that its sign-off names, until a later one of the same tenant and query is signed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from tallystick.config import ReviewSettings
from tallystick.privacy.encrypted_log import EncryptedLog
from tallystick.privacy.keys import KeyStore

Outcome = Literal["clean", "findings"]


class Started(msgspec.Struct, frozen=True, tag_field="step", tag="start"):
    """``schedule``: its name in the configuration, or "". Times are RFC 3339; ``events`` None: not counted to the end in time."""

    id: str
    schedule: str
    tenant: str
    query: str
    start: str
    end: str
    events: int | None
    sealed: int
    by: str
    key: str
    at: str


class Signed(msgspec.Struct, frozen=True, tag_field="step", tag="sign"):
    """``due``: the day (yyyy-mm-dd) of the next one, or "" where the schedule says it."""

    id: str
    outcome: Outcome
    note: str
    due: str
    by: str
    key: str
    at: str


@dataclass(frozen=True, slots=True)
class Review:
    """One review as it stands; ``signed`` None: begun, and nobody stands for it yet."""

    started: Started
    signed: Signed | None


@dataclass(frozen=True, slots=True)
class Due:
    """When a subject has to be looked at again. ``at`` None: its tenant is not there yet. ``last``: its last signed review."""

    name: str
    tenant: str
    query: str
    every_s: float | None
    owner: str
    last: Review | None
    at: datetime | None

    def is_overdue(self, now: datetime) -> bool:
        return self.at is not None and self.at <= now


class Reviews:
    """The register; thread-safe. One process appends."""

    def __init__(self, data_dir: Path, keys: KeyStore) -> None:
        self._log = EncryptedLog(data_dir / "reviews" / "steps", keys, "reviews")
        self._lock = threading.Lock()
        self._next = 0
        self._reviews: dict[str, Review] = {}

    def append(self, step: Started | Signed) -> None:
        """Durable when it returns. Raises OSError; then it does not count."""
        # A crash before it returns: the step may be there or not, and the caller had no answer. A repeated start is another review;
        # a repeated sign-off is refused by who looks first (409).
        self._log.append([msgspec.json.encode(step)])

    def load(self) -> list[Review]:
        """All reviews, the oldest first. Raises KeysMissingError, IntegrityError."""
        with self._lock:
            for ordinal, record in self._log.read(self._next):
                self._take(msgspec.json.decode(record, type=Started | Signed))
                self._next = ordinal + 1
            return list(self._reviews.values())

    def damage(self) -> int:
        """How many places of the register could not be read so far."""
        return len(self._log.damage)

    def close(self) -> None:
        self._log.close()

    def _take(self, step: Started | Signed) -> None:
        if isinstance(step, Started):
            self._reviews[step.id] = Review(step, None)
        elif (found := self._reviews.get(step.id)) is not None and found.signed is None:
            self._reviews[step.id] = Review(found.started, step)


def find_due(reviews: Iterable[Review], schedules: Mapping[str, ReviewSettings], made: Mapping[str, float]) -> list[Due]:
    """What has to be looked at again, and when. ``made``: when each tenant was made, in Unix seconds."""
    last: dict[tuple[str, str, str], Review] = {}
    for review in reviews:
        subject = _subject(review.started)
        if review.signed is not None and (subject not in last or review.signed.at > (last[subject].signed or review.signed).at):
            last[subject] = review
    found = [_scheduled(name, settings, last, made.get(settings.tenant)) for name, settings in schedules.items()]
    for (_, tenant, query), review in last.items():
        day = review.signed.due if review.signed else ""
        if day:
            at = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
            found.append(Due("", tenant, query, None, review.signed.by if review.signed else "", review, at))
    return found


def _subject(started: Started) -> tuple[str, str, str]:
    return started.schedule, started.tenant, started.query


def _scheduled(name: str, settings: ReviewSettings, last: Mapping[tuple[str, str, str], Review], made: float | None) -> Due:
    """By name and tenant: a query that was changed since does not make the review of yesterday undone."""
    signed = [one for (schedule, tenant, _), one in last.items() if (schedule, tenant) == (name, settings.tenant)]
    newest = max(signed, key=lambda one: one.signed.at if one.signed else "", default=None)
    at = None
    if newest is not None and newest.signed is not None:
        at = datetime.fromisoformat(newest.signed.at) + timedelta(seconds=settings.every.seconds)
    elif made is not None:
        at = datetime.fromtimestamp(made, UTC) + timedelta(seconds=settings.every.seconds)
    return Due(name, settings.tenant, settings.query, settings.every.seconds, settings.owner, newest, at)
