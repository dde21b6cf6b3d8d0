"""Times in syslog messages, as our canonical UTC text. Pure: the time of receipt is given, nothing looks at a clock.

RFC 5424 gives a whole RFC 3339 time. RFC 3164 gives neither year nor zone (``Oct 11 22:14:15``): the year is the latest that
puts the message at most a day after it was received, the zone is a setting, else UTC with the flag ``time_zone_missing``.

Messages of one batch share their minutes, so minutes are converted once and kept; seconds and fractions are copied as text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from tallystick.event import times

ISO = r"(\d{4}-\d\d-\d\dT\d\d:\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)"
"""A time of RFC 5424: minute, second, fraction, zone."""
_ISO = re.compile(ISO, re.ASCII)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}  # fmt: skip
_KEPT_MAX = 4_096
_YEARS_BACK = 8  # 29 February comes every four years, but not in 2100
_NO_FLAGS: tuple[str, ...] = ()

Moment = tuple[str | None, tuple[str, ...]]
"""Canonical text, None when the message names no time (then it has the time of receipt); and flags."""


class SyslogClock:
    """Converts the times of messages that were received at about ``now``; ``zone`` is that of times without one."""

    def __init__(self, zone: tzinfo | None = None) -> None:
        self._zone = zone
        self._now = datetime(1970, 1, 1, tzinfo=UTC)
        self._iso: dict[tuple[str, str], str | None] = {}
        self._bsd: dict[str, str | None] = {}
        self._bsd_flags = _NO_FLAGS if zone is not None else (times.ZONE_MISSING,)

    def set_now(self, now: datetime) -> None:
        """The time of receipt of what follows, aware."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        if hour != self._now:  # what year a message is from is looked at anew every hour
            self._now = hour
            self._bsd.clear()

    def rfc5424(self, text: str) -> Moment:
        """From all that stands where RFC 5424 has the time."""
        found = _ISO.fullmatch(text)
        if found is not None:
            minute, second, fraction, zone = found.groups()
            return self.rfc3339(minute, second, fraction, zone)
        return (None, _NO_FLAGS) if text == "-" else self.other(text)

    def rfc3339(self, minute: str, second: str, fraction: str | None, zone: str) -> Moment:
        """From ``2026-10-11T22:14``, ``15``, ``003`` and ``Z`` or ``+02:00``; the digits are digits."""
        key = (minute, zone)
        try:
            prefix = self._iso[key]
        except KeyError:
            prefix = _keep(self._iso, key, _utc_minute(f"{minute}:00{zone}"))
        if prefix is None or second > "59":
            parsed = times.parse_time(f"{minute}:{second}{'.' + fraction if fraction else ''}{zone}")
            return (None, (times.INVALID,)) if parsed is None else (parsed.text, parsed.flags)
        return f"{prefix}:{second}.{_micros(fraction)}Z", _NO_FLAGS

    def other(self, text: str) -> Moment:
        """From any other text where a time should be."""
        parsed = times.parse_time(text) if len(text) <= 64 else None
        return (None, (times.INVALID, times.CLAIMED + text[:64])) if parsed is None else (parsed.text, parsed.flags)

    def rfc3164(self, minute: str, second: str, fraction: str | None) -> Moment:
        """From ``Oct 11 22:14``, ``15`` and the digits of a fraction, which some senders add."""
        try:
            prefix = self._bsd[minute]
        except KeyError:
            prefix = _keep(self._bsd, minute, self._year_minute(minute))
        if prefix is None or second > "59":
            return None, (times.INVALID, f"{times.CLAIMED}{minute}:{second}")
        return f"{prefix}:{second}.{_micros(fraction)}Z", self._bsd_flags

    def _year_minute(self, text: str) -> str | None:
        month, day, clock = text.split()
        latest = self._now + timedelta(days=1, hours=1)
        for year in range(self._now.year + 1, self._now.year - _YEARS_BACK, -1):
            try:
                moment = datetime(year, _MONTHS[month], int(day), int(clock[:2]), int(clock[3:]), tzinfo=self._zone or UTC)
                if moment <= latest:
                    return times.format_utc(moment)[:16]
            except (ValueError, KeyError, OverflowError):
                continue
        return None


def _utc_minute(text: str) -> str | None:
    parsed = times.parse_time(text)
    return None if parsed is None or parsed.text is None or parsed.flags else parsed.text[:16]


def _micros(fraction: str | None) -> str:
    if fraction is None:
        return "000000"
    return fraction if len(fraction) == 6 else fraction[:6].ljust(6, "0")


def _keep(kept: dict, key: object, value: str | None) -> str | None:  # type: ignore[type-arg]
    if len(kept) >= _KEPT_MAX:
        kept.clear()
    kept[key] = value
    return value
