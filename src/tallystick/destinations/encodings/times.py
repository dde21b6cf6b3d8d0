"""Canonical times as numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND, _MILLISECOND = timedelta(microseconds=1), timedelta(milliseconds=1)


def millis_of(text: str) -> int:
    """Milliseconds since 1970 of a canonical time, negative before; 0 for an empty text."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND if text else 0


def micros_of(text: str) -> int:
    """The same in microseconds."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND if text else 0
