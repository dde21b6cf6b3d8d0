"""Quotas: how many events and bytes a second one key may send, and one tenant may get.

Rules

1. Each quota is a token bucket: it fills at its rate up to rate × `quota_burst`, and begins full.
2. A bucket with anything in it lets one request pass and is charged what that request turns out to cost; it may go into debt,
   and lets nothing pass until the debt is earned back. So a request larger than the burst still gets through, the mean rate
   holds all the same, and `Retry-After` is the time until there is something in the bucket again.
3. Who is in debt is refused before the body is read, as far as key and tenant are known by then (`admit`). The body's bytes
   are the key's cost, whatever becomes of it; events, and the tenants' bytes, are charged when the events are known (`charge`):
   all of a request or nothing of it.
4. A source without credentials has the quotas of its tenant alone. What the installation itself writes (audit events, receipts,
   statements) has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Counter

from tallystick.buckets import Buckets, OwnBuckets
from tallystick.config import IngestLimits, Size, TenantSettings
from tallystick.errors import QuotaExceededError

_ROUNDING_S = 1e-6
_REFUSED = Counter("tallystick_requests_over_quota", "Requests refused because a key or a tenant is over its quota.")


@dataclass(frozen=True, slots=True)
class TenantCharge:
    """What one request brings to one tenant."""

    tenant: str
    events: int
    bytes: int


class Quotas:
    """All buckets. Used from one thread; ``buckets``: where they are kept, when other processes charge them too. ``is_limited`` is False
    when no quota is set at all."""

    def __init__(
        self,
        limits: IngestLimits | None = None,
        tenants: Mapping[str, TenantSettings] | None = None,
        clock: Callable[[], float] = time.monotonic,
        buckets: Buckets | None = None,
    ) -> None:
        self._clock = clock
        self._buckets = buckets or OwnBuckets()
        self.meet(limits or IngestLimits(), tenants or {})

    def meet(self, limits: IngestLimits, tenants: Mapping[str, TenantSettings]) -> None:
        """From now on these quotas hold. What a bucket owes it goes on owing."""
        self._burst_s = limits.quota_burst.seconds
        self._key_rates = (limits.key_events_per_second, _bytes_of(limits.key_bytes_per_second))
        self._tenant_rates = (limits.tenant_events_per_second, _bytes_of(limits.tenant_bytes_per_second))
        self._overrides = tenants
        self.is_limited = bool(self._overrides) or any((*self._key_rates, *self._tenant_rates))

    def admit(self, key_id: str, tenant: str | None) -> None:
        """Before the body: raises QuotaExceededError when the key is in debt, or the ``tenant`` when that is known."""
        if self.is_limited and key_id:
            costs = self._costs("key", key_id, self._key_rates, (0, 0))
            if tenant is not None:
                costs += self._costs("tenant", tenant, self.rates_of(tenant), (0, 0))
            self._charge(costs)

    def charge_body(self, key_id: str, size: int) -> None:
        """Charge the key for a body of ``size`` bytes. Raises QuotaExceededError when another request was faster."""
        if self.is_limited and key_id:
            self._charge(self._costs("key", key_id, (None, self._key_rates[1]), (0, size)))

    def charge(self, key_id: str, charges: Iterable[TenantCharge]) -> None:
        """Charge the key (when there is one) and the tenants for a request's events. Raises QuotaExceededError; then nothing was charged."""
        if not self.is_limited:
            return
        costs: list[_Cost] = []
        events = 0
        for charge in charges:
            events += charge.events
            costs += self._costs("tenant", charge.tenant, self.rates_of(charge.tenant), (charge.events, charge.bytes))
        if key_id:
            costs += self._costs("key", key_id, (self._key_rates[0], None), (events, 0))
        self._charge(costs)

    def rates_of(self, tenant: str) -> tuple[int | None, int | None]:
        """Events and bytes a second of one tenant; None where there is no quota."""
        override = self._overrides.get(tenant)
        if override is None:
            return self._tenant_rates
        events, size = self._tenant_rates
        return override.events_per_second or events, _bytes_of(override.bytes_per_second) or size

    def _costs(self, kind: str, name: str, rates: tuple[int | None, int | None], amounts: tuple[int, int]) -> list[_Cost]:
        """Events and bytes, where there is a quota for them."""
        units = zip(("events", "bytes"), rates, amounts, strict=True)
        return [_Cost(f"the {kind} {name!r}", unit, rate, amount) for unit, rate, amount in units if rate is not None]

    def _charge(self, costs: list[_Cost]) -> None:
        """Take all amounts, or none when one bucket is in debt."""
        if not costs:
            return
        with self._buckets.locked():
            now = self._clock()
            times = {cost.bucket: self._buckets.get(cost.bucket) for cost in costs}
            wait_s, worst = max(((self._wait_s(cost, times[cost.bucket] - now), cost) for cost in costs), key=lambda item: item[0])
            if wait_s > _ROUNDING_S:
                _REFUSED.inc()
                message = f"{worst.owner} is over its quota of {worst.rate} {worst.unit} per second"
                raise QuotaExceededError(message, retry_after_s=wait_s)
            for cost in costs:
                if cost.amount:
                    times[cost.bucket] = max(now, times[cost.bucket]) + cost.amount / cost.rate
                    self._buckets.put(cost.bucket, times[cost.bucket])

    def _wait_s(self, cost: _Cost, full_in_s: float) -> float:
        """Seconds until there is a whole token in a bucket that is full in ``full_in_s``; none or less when there is one now."""
        return full_in_s - max(1.0, cost.rate * self._burst_s) / cost.rate + 1 / cost.rate


class _Cost(NamedTuple):
    """What a request takes from one bucket."""

    owner: str
    unit: str
    rate: int
    amount: int

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return f"{self.unit} of {self.owner}"


def _bytes_of(size: Size | None) -> int | None:
    return None if size is None else size.bytes
