"""A destination in words: what the delivery page shows of one row of the status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tallystick.console.account import Ledger, build_ledger
from tallystick.console.amounts import lag_text, rate_text

_WORDS = {
    "running": "running",
    "retrying": "retrying",
    "throttled": "slowed down by the other side",
    "parked": "parked: it refuses everything",
    "paused": "paused by an operator",
    "held_up": "held up on our side",
    "unknown": "not reported yet",
}
_GOOD, _CALM = frozenset({"running"}), frozenset({"paused", "unknown"})


@dataclass(frozen=True, slots=True)
class DestinationView:
    """One row. Times are RFC 3339, empty for never since the dispatcher started; ``ledger`` is None before it reported."""

    name: str
    type: str
    guarantee: str
    state: str
    words: str
    tone: str
    reason: str
    pending: int
    lag: str
    rate: str
    last_success: str
    last_error: str
    last_error_at: str
    dead_lettered: int
    reads_back: bool
    ledger: Ledger | None


def view_destination(name: str, row: dict[str, Any]) -> DestinationView:
    """A status row in words and sums."""
    state, error = row["state"], row["last_error"] or {}
    return DestinationView(
        name=name,
        type=row["type"] or "",
        guarantee=row["guarantee"].replace("_", " "),
        state=state,
        words=_WORDS.get(state, state),
        tone="" if state in _GOOD and not row["reason"] else "warn" if state in _CALM else "bad",
        reason=row["reason"],
        pending=row["pending"],
        lag=lag_text(row["lag_seconds"], row["pending"]),
        rate=rate_text(row["rate"]),
        last_success=time_text(row["last_success"]),
        last_error=error.get("reason", ""),
        last_error_at=time_text(error.get("at")),
        dead_lettered=row["dead_lettered"],
        reads_back=row["reads_back"],
        ledger=None if state == "unknown" else build_ledger(row),
    )


def time_text(seconds: float | None) -> str:
    """Unix seconds as RFC 3339; empty for none."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
