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

from prometheus_client import Counter

from tallystick.config import IngestLimits, Size, TenantSettings
from tallystick.errors import QuotaExceededError

_BUCKETS_MAX = 10_000
_REFUSED = Counter("tallystick_requests_over_quota", "Requests refused because a key or a tenant is over its quota.")


@dataclass(slots=True)
class Bucket:
    """Tokens of one quota. ``rate`` in tokens a second; ``level`` is that of clock time ``at``, below zero in debt."""

    rate: float
    capacity: float
    level: float
    at: float

    def wait_s(self, now: float) -> float:
        """Seconds until a request may pass; 0 when one may now."""
        self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now
        return 0.0 if self.level >= 1 else (1 - self.level) / self.rate


@dataclass(frozen=True, slots=True)
class TenantCharge:
    """What one request brings to one tenant."""

    tenant: str
    events: int
    bytes: int


class Quotas:
    """All buckets of this process. Used from one thread. ``is_limited`` is False when no quota is set at all."""

    def __init__(
        self,
        limits: IngestLimits | None = None,
        tenants: Mapping[str, TenantSettings] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or IngestLimits()
        self._clock = clock
        self._burst_s = limits.quota_burst.seconds
        self._key_rates = (limits.key_events_per_second, _bytes_of(limits.key_bytes_per_second))
        self._tenant_rates = (limits.tenant_events_per_second, _bytes_of(limits.tenant_bytes_per_second))
        self._overrides = tenants or {}
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self.is_limited = bool(self._overrides) or any((*self._key_rates, *self._tenant_rates))

    def admit(self, key_id: str, tenant: str | None) -> None:
        """Before the body: raises QuotaExceededError when the key is in debt, or the ``tenant`` when that is known."""
        if self.is_limited and key_id:
            wanted = [*self._key_buckets(key_id)]
            if tenant is not None:
                wanted += self._tenant_buckets(tenant)
            self._check(wanted)

    def charge_body(self, key_id: str, size: int) -> None:
        """Charge the key for a body of ``size`` bytes. Raises QuotaExceededError when another request was faster."""
        if self.is_limited and key_id:
            bucket = self._bucket("key", key_id, "bytes", self._key_rates[1])
            if bucket is not None:
                self._check([(f"the key {key_id!r}", "bytes", bucket)])
                bucket.level -= size

    def charge(self, key_id: str, charges: Iterable[TenantCharge]) -> None:
        """Charge the key (when there is one) and the tenants for a request's events. Raises QuotaExceededError; then nothing was charged."""
        if not self.is_limited:
            return
        costs: list[tuple[str, str, Bucket, int]] = []
        events = 0
        for charge in charges:
            events += charge.events
            for owner, unit, bucket in self._tenant_buckets(charge.tenant):
                costs.append((owner, unit, bucket, charge.events if unit == "events" else charge.bytes))
        own = self._bucket("key", key_id, "events", self._key_rates[0]) if key_id else None
        if own is not None:
            costs.append((f"the key {key_id!r}", "events", own, events))
        self._check([(owner, unit, bucket) for owner, unit, bucket, _ in costs])
        for _, _, bucket, cost in costs:
            bucket.level -= cost

    def rates_of(self, tenant: str) -> tuple[int | None, int | None]:
        """Events and bytes a second of one tenant; None where there is no quota."""
        override = self._overrides.get(tenant)
        if override is None:
            return self._tenant_rates
        events, size = self._tenant_rates
        return override.events_per_second or events, _bytes_of(override.bytes_per_second) or size

    def _key_buckets(self, key_id: str) -> list[tuple[str, str, Bucket]]:
        return self._owned("key", key_id, self._key_rates)

    def _tenant_buckets(self, tenant: str) -> list[tuple[str, str, Bucket]]:
        return self._owned("tenant", tenant, self.rates_of(tenant))

    def _owned(self, kind: str, name: str, rates: tuple[int | None, int | None]) -> list[tuple[str, str, Bucket]]:
        found = []
        for unit, rate in zip(("events", "bytes"), rates, strict=True):
            bucket = self._bucket(kind, name, unit, rate)
            if bucket is not None:
                found.append((f"the {kind} {name!r}", unit, bucket))
        return found

    def _bucket(self, kind: str, name: str, unit: str, rate: int | None) -> Bucket | None:
        if rate is None:
            return None
        place = (kind, name, unit)
        bucket = self._buckets.get(place)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_MAX:
                self._forget_full()
            capacity = max(1.0, rate * self._burst_s)
            bucket = self._buckets[place] = Bucket(rate, capacity, capacity, self._clock())
        return bucket

    def _forget_full(self) -> None:
        """A full bucket is as good as a new one."""
        now = self._clock()
        self._buckets = {
            place: bucket for place, bucket in self._buckets.items() if bucket.wait_s(now) or bucket.level < bucket.capacity
        }

    def _check(self, buckets: list[tuple[str, str, Bucket]]) -> None:
        now = self._clock()
        waits = [(bucket.wait_s(now), owner, unit, bucket) for owner, unit, bucket in buckets]
        if not waits:
            return
        wait_s, owner, unit, bucket = max(waits, key=lambda item: item[0])
        if wait_s > 0:
            _REFUSED.inc()
            raise QuotaExceededError(f"{owner} is over its quota of {bucket.rate:.0f} {unit} per second", retry_after_s=wait_s)


def _bytes_of(size: Size | None) -> int | None:
    return None if size is None else size.bytes
