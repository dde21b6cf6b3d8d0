"""A lane's row in the status page, and the age of its oldest pending event."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from tallystick.delivery.events import Reader
from tallystick.delivery.lane import Lane
from tallystick.delivery.metrics import LAG_EVENTS, OLDEST_PENDING_SECONDS
from tallystick.delivery.round import Sealed
from tallystick.errors import TallystickError
from tallystick.plugin import ReadsBack, ReadsEvents
from tallystick.rates import Rate

_READS_MAX = 50


class _Received(msgspec.Struct):
    received_at: str


class LaneStatus:
    """Keeps, per tenant, when the oldest pending event was received, so that a look costs few reads."""

    def __init__(self, lane: Lane, reader: Reader, sealed: Sealed, *, clock: Callable[[], float] = time.time) -> None:
        self._lane = lane
        self._reader = reader
        self._sealed = sealed
        self._clock = clock
        self._received: dict[str, tuple[int, float]] = {}
        self._rate = Rate()
        self._delivered: int | None = None

    def page(self) -> dict[str, Any]:
        """The row of `/v1/status`; sets the gauges. Blocking (may read a few events)."""
        lane = self._lane
        filtered: Counter[str] = Counter()
        dead: Counter[str] = Counter()
        accounts = lane.state.accounts
        for account in accounts.values():
            filtered.update(account.filtered)
            dead.update(account.dead_lettered)
        settled = {handle: account.settled for handle, account in accounts.items()}
        sizes = self._sealed.known_sizes()
        pending = sum(size - settled.get(handle, 0) for handle, size in sizes.items())
        delivered = sum(account.delivered for account in accounts.values())
        lag_s = self._lag_s() if pending else 0.0
        LAG_EVENTS.labels(lane.name).set(pending)
        OLDEST_PENDING_SECONDS.labels(lane.name).set(lag_s)
        return {
            "state": "held_up" if lane.trouble else lane.sender.state,
            "reason": lane.trouble or lane.sender.reason,
            "guarantee": getattr(lane.destination, "effective_guarantee", lane.destination.guarantee),
            "accepted": sum(sizes.values()),
            "delivered": delivered,
            "filtered": dict(filtered),
            "dead_lettered": sum(dead.values()),
            "dead_letter_reasons": dict(dead),
            "pending": pending,
            "lag_seconds": round(lag_s, 3),
            "rate": self._rate_of(delivered),
            "last_success": lane.sender.last_success,
            "last_error": _error(lane.sender.last_error),
            "reads_back": isinstance(lane.destination, ReadsBack | ReadsEvents),
            "tenants": {
                account.tenant: {
                    "accepted": self._sealed.size(handle),
                    "delivered": account.delivered,
                    "filtered": account.filtered,
                    "dead_lettered": sum(account.dead_lettered.values()),
                    "dead_letter_reasons": account.dead_lettered,
                    "pending": account.pending(self._sealed.size(handle)),
                }
                for handle, account in accounts.items()
            },
        }

    def _rate_of(self, delivered: int) -> float:
        """Events delivered a second, lately; what was delivered before this process started is not of now."""
        self._rate.add(max(0, delivered - (delivered if self._delivered is None else self._delivered)))
        self._delivered = delivered
        return self._rate.per_second()

    def _lag_s(self) -> float:
        """Seconds since the oldest pending event was received."""
        oldest, reads = self._clock(), 0
        for handle in self._sealed.tenants():
            index, sealed = self._lane.first_pending(handle), self._sealed.size(handle)
            if index >= sealed:
                self._received.pop(handle, None)
                continue
            known = self._received.get(handle)
            if known is None or known[0] != index:
                if reads >= _READS_MAX:
                    continue
                reads += 1
                known = self._look_up(handle, index, sealed)
            oldest = min(oldest, known[1])
        return max(0.0, self._clock() - oldest)

    def _look_up(self, handle: str, index: int, sealed: int) -> tuple[int, float]:
        try:
            line = self._reader.read(handle, index, sealed, 1, 1).lines[0]
            received = datetime.fromisoformat(msgspec.json.decode(line, type=_Received).received_at).timestamp()
        except (TallystickError, OSError, msgspec.DecodeError, ValueError):
            return index, self._clock()  # not readable now: its age is not known, and the lane says why it is held up
        self._received[handle] = index, received
        return index, received


def _error(found: tuple[float, str] | None) -> dict[str, Any] | None:
    return None if found is None else {"at": found[0], "reason": found[1]}
