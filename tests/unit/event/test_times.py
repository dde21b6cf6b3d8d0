"""Claimed times: kept where they can be placed, flagged where they are odd, refused where they are no times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.event import times

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=OFFSETS | st.just(UTC))


@given(MOMENTS, st.sampled_from(["microseconds", "milliseconds", "seconds"]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_offset_becomes_utc(moment: datetime, timespec: str, zulu: bool) -> None:
    """The same instant, cut to what was written, in the one form; the batch form agrees where it answers."""
    text = moment.isoformat(timespec=timespec)
    if zulu:
        text = text.replace("+00:00", "Z")
    expected = times.format_utc(datetime.fromisoformat(text))
    assert times.parse_time(text) == times.ParsedTime(expected)
    assert times.normalize([text]) in (None, [expected])


@pytest.mark.parametrize("fraction", ["", ".123", ".123456", ".123456789"])
@pytest.mark.parametrize("zone", ["Z", "+00:00"])
def test_common_forms_never_leave_the_batch_path(fraction: str, zone: str) -> None:
    """UTC forms that senders write are settled without a look at each."""
    text = f"2026-03-04T10:00:00{fraction}{zone}"
    parsed = times.parse_time(text)
    assert parsed is not None
    assert times.normalize([text, text]) == [parsed.text] * 2


@pytest.mark.parametrize(
    ("text", "kept", "flags"),
    [
        ("2026-03-04T10:00:00.1234567899Z", "2026-03-04T10:00:00.123456Z", ()),
        ("2026-03-04 10:00:00", "2026-03-04T10:00:00.000000Z", ("time_zone_missing",)),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z", ("time_leap_second", "time_claimed:2016-12-31T23:59:60Z")),
        ("2024-02-30T10:00:00Z", None, ("time_invalid", "time_claimed:2024-02-30T10:00:00Z")),
        ("0000-01-01T00:00:00Z", None, ("time_invalid", "time_claimed:0000-01-01T00:00:00Z")),
        ("-1-01-01T00:00:00Z", None, ("time_invalid", "time_claimed:-1-01-01T00:00:00Z")),
        ("0001-01-01T00:00:00+01:00", None, ("time_invalid", "time_claimed:0001-01-01T00:00:00+01:00")),
        ("10000-01-01T00:00:00Z", None, ("time_invalid", "time_claimed:10000-01-01T00:00:00Z")),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z", ()),
        ("2026-03-04T10:00:00+99:00", None, ("time_invalid", "time_claimed:2026-03-04T10:00:00+99:00")),
    ],
)
def test_odd_times_are_kept_and_flagged(text: str, kept: str | None, flags: tuple[str, ...]) -> None:
    """What names an instant keeps it; what does not keeps its text in a flag."""
    assert times.parse_time(text) == (kept, flags)


@pytest.mark.parametrize("text", ["", "yesterday", "1e18", "1772618400", "2026-03-04T10:00:00Z\n", "２026-03-04T10:00:00Z"])
def test_other_text_is_refused(text: str) -> None:
    """What does not look like a time is none."""
    assert times.parse_time(text) is None


def test_horizon_is_a_day_ahead_and_never_past_the_calendar() -> None:
    """Plausible means up to 24 hours after receipt."""
    assert times.horizon("2026-03-04T10:00:00.000001Z") == "2026-03-05T10:00:00.000001Z"
    assert times.horizon("9999-12-31T10:00:00.000000Z").startswith("9999-12-31T23:59")
