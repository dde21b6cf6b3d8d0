"""Times: RFC 3339 in, UTC with microseconds out, as text: ``2026-03-04T10:00:00.123456Z``.

The one form has 27 characters, so texts compare as times do. Digits past the microsecond are cut, never rounded: a
claimed time does not move forward.

A claimed time is evidence even when it is odd. What can be placed on the line of time is kept there; what cannot is
kept as the text it was. The flags say which (``ingest.flags``):

| flag | meaning | ``occurred_at`` |
|---|---|---|
| ``time_implausible`` | before 1970, or more than 24 hours after it was received | as claimed |
| ``time_zone_missing`` | no offset was given | read as UTC |
| ``time_leap_second`` | second 60 | the last microsecond before it |
| ``time_invalid`` | looks like a time but names none: 30 February, hour 25, year 10000 or −1 | time of receipt |
| ``time_claimed:<text>`` | the sender's own text, where ``occurred_at`` differs from it in meaning | |

Text that does not even look like a time is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import msgspec

IMPLAUSIBLE = "time_implausible"
ZONE_MISSING = "time_zone_missing"
LEAP_SECOND = "time_leap_second"
INVALID = "time_invalid"
CLAIMED = "time_claimed:"

EARLIEST = "1970-01-01T00:00:00.000000Z"
_AHEAD_MAX = timedelta(hours=24)
LENGTH = 27

_SHAPE = re.compile(
    r"(?P<year>-?\d{1,6})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[Tt ](?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:[.,](?P<fraction>\d{1,24}))?)?)?"
    r" ?(?P<zone>[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,19}(\.\d{1,24})?", re.ASCII)
_new = tuple.__new__  # a third of the time of calling the class
_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (its texts get their Z elsewhere)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_USUAL_DIGITS = 10  # of seconds since 1970: from 2001 to 2286
_SMALLEST = (("ns", 10**17), ("us", 10**14), ("ms", 10**11), ("s", 0))
_TAILS = {20: (19, ".000000Z"), 24: (23, "000Z"), 27: (27, ""), 30: (26, "Z")}


class ParsedTime(NamedTuple):
    """``text`` is the canonical form, or None when the claim names no time; ``flags`` go to ``ingest.flags``."""

    text: str | None
    flags: tuple[str, ...] = ()


def format_utc(moment: datetime) -> str:
    """The canonical text of an aware ``datetime``."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def horizon(received_at: str) -> str:
    """The latest plausible time for events received at ``received_at`` (canonical): 24 hours later."""
    moment = datetime.fromisoformat(received_at)
    return format_utc(min(moment, datetime.max.replace(tzinfo=UTC) - _AHEAD_MAX) + _AHEAD_MAX)


def parse_time(text: str) -> ParsedTime | None:
    """Read one claimed time; None when ``text`` does not look like one."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    flags = () if part["zone"] else (ZONE_MISSING,)
    second, micros = int(part["second"] or 0), int((part["fraction"] or "")[:6].ljust(6, "0"))
    leap = second == 60
    if leap:
        second, micros = 59, 999_999
        flags = (*flags, LEAP_SECOND, CLAIMED + text)
    try:
        moment = datetime(
            int(part["year"]), int(part["month"]), int(part["day"]), int(part["hour"] or 0), int(part["minute"] or 0),
            second, micros, tzinfo=UTC,
        )  # fmt: skip
        return ParsedTime(format_utc(moment - _offset(part["zone"])), flags)
    except (ValueError, OverflowError):
        return ParsedTime(None, (INVALID, CLAIMED + text))


def parse_epoch(text: str, unit: str | None = None) -> ParsedTime | None:
    """Read a number of seconds, ms, us or ns since 1970 (``unit``; told from its size without one); None when it is no such number."""
    if not _NUMBER.fullmatch(text):
        return None
    whole, _, fraction = text.partition(".")
    number = int(whole)
    unit = unit or next(name for name, least in _SMALLEST if abs(number) >= least)
    per_second = _PER_SECOND[unit]
    micros = number % per_second * (10**6 // per_second) if per_second <= 10**6 else number % per_second // (per_second // 10**6)
    if fraction:
        micros += int(fraction[:9].ljust(9, "0")) // (10**3 * per_second)
    second = _second(number // per_second)
    return None if second is None else ParsedTime(f"{second}.{micros:06d}Z")


def parse_moments(moments: Sequence[float]) -> list[ParsedTime | None]:
    """The same for numbers as JSON readers give them; digits that they have past the microsecond are cut.

    The encoder writes the digits that `repr` does, in a fifth of the time; only numbers with an exponent look different there.
    """
    found: list[ParsedTime | None] = []
    for moment, text in zip(moments, _encode(moments).decode()[1:-1].split(","), strict=False):
        whole, _, fraction = text.partition(".")
        if len(whole) == _USUAL_DIGITS and fraction.isdigit():
            second = _second(int(whole))
            found.append(None if second is None else _new(ParsedTime, (f"{second}.{fraction[:6].ljust(6, '0')}Z", ())))
        else:
            found.append(parse_epoch(repr(moment)))
    return found


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str | None:
    """The canonical text up to the second; None for one that no calendar of ours has."""
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return None


def _offset(zone: str | None) -> timedelta:
    """The offset from UTC that ``zone`` writes. Raises ValueError past a day."""
    if not zone or zone in "Zz" or zone == "UTC":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise ValueError("no such offset")
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def normalize(texts: list[str]) -> list[str] | None:
    """Canonical forms of a whole batch, not empty, when all are UTC in a common form and valid; None sends each to `parse_time`.

    One call into C proves every text a valid RFC 3339 time; what is left is to cut or fill the fraction by length.
    Texts that are canonical already come back as the same list.
    """
    if texts[0].endswith("+00:00"):
        texts = [text[:-6] + "Z" if text.endswith("+00:00") else text for text in texts]
    try:
        msgspec.convert(texts, list[datetime])
    except msgspec.ValidationError:
        return None
    joined = "".join(texts)
    if joined.count("T") != len(texts) or joined.count("Z") != len(texts):
        return None
    lengths = set(map(len, texts))
    if lengths == {LENGTH}:
        return texts
    if not lengths <= _TAILS.keys():
        return None
    return [text[: _TAILS[len(text)][0]] + _TAILS[len(text)][1] for text in texts]
