"""Failed logins: counted by address and by key id, refused past a limit, and on record.

Rules

1. A request without a credential is no login. One with a wrong, unknown, revoked or expired key, or with something that is no key,
   is a failed one: 401, and past the limit 429 with the time until the next attempt counts as the first again.
2. The right key always gets in. A secret has 256 random bits, so there is nothing to be guessed that a lock would protect;
   but a lock would let a sender with an old key, or anyone who knows an id, keep others behind the same address, or the owner
   of that id, from recording events. What the limit saves is the work and the noise of those who are wrong.
3. A failure is an event in the server's own log (`tallystick.login_failed`), without the secret: the first of an address and id
   at once, those of the following minute as one event with their number. Past 100 pairs in a minute the rest is counted together.
   A process that ends takes at most the last minute's numbers with it.
4. Addresses of IPv6 count by their /64, which is what one host can choose from. The intake, all its workers together, and the api count
   apart; of what goes on record each process keeps its own minute.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tallystick.buckets import Buckets, OwnBuckets
from tallystick.errors import TallystickError
from tallystick.http.access import AuthError
from tallystick.http.problem import Problem
from tallystick.telemetry import log

ACTION = "tallystick.login_failed"
_WINDOW_S = 60.0
_ROUNDING_S = 1e-6
_PAIRS_MAX = 100
_OTHERS = ("", "")

Pair = tuple[str, str]
Record = Callable[[dict[str, Any]], Awaitable[Any]]


class LoginLimit:
    """Attempts of many names, each at most ``per_minute`` in a minute; a name is an address or a key id."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic, buckets: Buckets | None = None) -> None:
        self._clock = clock
        self._buckets = buckets or OwnBuckets()
        self.meet(per_minute)

    def meet(self, per_minute: int) -> None:
        """From now on this is the limit."""
        self._each_s = _WINDOW_S / per_minute

    def count(self, name: str) -> float:
        """Count one failure; returns 0.0, or past the limit the seconds to wait."""
        with self._buckets.locked():
            now = self._clock()
            new_at = max(now, self._buckets.get(name)) + self._each_s
            wait_s = new_at - now - _WINDOW_S
            if wait_s > _ROUNDING_S:
                return wait_s
            self._buckets.put(name, new_at)
            return 0.0


class LoginGuard:
    """Says what a failed login is answered with, and sees to its record. ``record`` makes one event durable; ``buckets``: where attempts
    are counted, when other processes do too. Used on one loop."""

    def __init__(
        self,
        per_minute: int,
        door: str,
        record: Record,
        clock: Callable[[], float] = time.monotonic,
        buckets: Buckets | None = None,
    ) -> None:
        self._door = door
        self._record = record
        self._limit = LoginLimit(per_minute, clock, buckets)
        self._repeats: dict[Pair, int] = {}
        self._timers: dict[Pair, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def meet(self, per_minute: int) -> None:
        """From now on this is the limit, of addresses and of key ids."""
        self._limit.meet(per_minute)

    def failed(self, address: str, error: AuthError) -> Problem:
        """The answer: ``error`` itself, or 429."""
        if error.code == "unauthenticated":
            return error
        self._note((address, error.key_id))
        wait_s = self._limit.count(f"login address {_network(address)}") if address else 0.0
        if error.key_id:
            wait_s = max(wait_s, self._limit.count(f"login key {error.key_id}"))
        if not wait_s:
            return error
        retry_after = {"retry-after": str(max(1, math.ceil(wait_s)))}
        return Problem(429, "too_many_logins", "too many failed logins from this address or with this key", headers=retry_after)

    async def close(self) -> None:
        """Record what has been counted, and let go."""
        for timer in self._timers.values():
            timer.cancel()
        for pair in list(self._repeats):
            self._flush(pair)
        await asyncio.gather(*self._tasks)

    def _note(self, pair: Pair) -> None:
        if pair not in self._repeats and len(self._repeats) >= _PAIRS_MAX:
            pair = _OTHERS
        if pair in self._repeats:
            self._repeats[pair] += 1
            return
        self._repeats[pair] = 0
        self._timers[pair] = asyncio.get_running_loop().call_later(_WINDOW_S, self._flush, pair)
        self._start(pair, 1)

    def _flush(self, pair: Pair) -> None:
        attempts = self._repeats.pop(pair)
        del self._timers[pair]
        if attempts:
            self._start(pair, attempts)

    def _start(self, pair: Pair, attempts: int) -> None:
        task = asyncio.get_running_loop().create_task(self._put(pair, attempts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put(self, pair: Pair, attempts: int) -> None:
        address, key_id = pair
        event: dict[str, Any] = {
            "action": ACTION,
            "category": "authentication",
            "actor": {"type": "anonymous", "id": "anonymous"},
            "outcome": "denied",
            "metadata": {"via": self._door, "attempts": attempts},
        }
        if key_id:
            event["targets"] = [{"type": "key", "id": key_id}]
        if address:
            event["context"] = {"ip": address}
        try:
            await self._record(event)
        except TallystickError as error:
            # The refusal stands without its record: to answer 503 instead would tell a stranger how the server is.
            log.warning("failed_login_not_recorded", address=address, key=key_id, attempts=attempts, error=str(error))


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
