"""What stops expiry before it goes wrong: too much at once, or a clock that jumped. Pure.

A brake that is set stays set, over restarts, until a person releases it (`tallystick retention resume`). What was due at that time may
then go without being counted again; whatever becomes due later is.
"""

from __future__ import annotations

import msgspec


class Brake(msgspec.Struct, frozen=True):
    """Why expiry stopped. ``at``: Unix seconds; ``due`` of ``kept`` events would have gone."""

    id: str
    reason: str
    at: float
    due: int
    kept: int


class BrakeState(msgspec.Struct):
    """Durable: ``seen`` is the last clock reading (Unix seconds, 0: none yet); ``cutoff``: what was due then was released."""

    seen: float = 0.0
    cutoff: float = 0.0
    brake: Brake | None = None
    events: int = 0
    bytes: int = 0
    last_at: float = 0.0
    destroying: list[tuple[str, str, str]] = []


def too_much(due: int, kept: int, percent: int, events_min: int) -> str:
    """The reason when ``due`` of ``kept`` events are more than may go at once; "" otherwise."""
    if due <= events_min or 100 * due <= percent * kept:
        return ""
    return f"{due} of {kept} events would expire at once, more than {percent} %"


def jumped(now: float, seen: float, elapsed: float, jump_s: float) -> str:
    """The reason when the clock went on by more than ``jump_s`` beyond the ``elapsed`` seconds that are known to have passed."""
    ahead = now - seen - elapsed
    if not seen or ahead <= jump_s:
        return ""
    return f"the clock is {ahead:.0f} s ahead of where it was when expiry was looked at last; it jumped, or the server was off"
