"""Quotas: buckets with an injected clock, then at the doors."""

from __future__ import annotations

import timeit
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.buckets import OwnBuckets, SharedBuckets
from tallystick.config import Duration, IngestLimits, Size, TenantSettings
from tallystick.errors import QuotaExceededError
from tallystick.journal.frame import FrameType
from tallystick.sources.quota import Quotas, TenantCharge

from .conftest import Rig, event, ndjson


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, tenants: dict[str, TenantSettings] | None = None, **limits: Any) -> Quotas:
    wanted = {name: Size(value) if isinstance(value, str) else value for name, value in limits.items()}
    return Quotas(IngestLimits(**wanted, quota_burst=Duration("10s")), tenants, clock)


def wait_of(asked: Any, *arguments: Any) -> float:
    """Seconds of advice in the refusal."""
    with pytest.raises(QuotaExceededError) as caught:
        asked(*arguments)
    return caught.value.retry_after_s


def test_a_burst_passes_and_the_debt_is_waited_for() -> None:
    """Ten seconds' worth at once, one request into debt, then nothing until the advised time, and then again."""
    clock = Clock()
    made = quotas(clock, key_events_per_second=10)
    made.charge("k", [TenantCharge("a", 60, 0)])
    made.charge("k", [TenantCharge("a", 90, 0)])  # 40 were left: 50 in debt
    wait_s = wait_of(made.admit, "k", None)
    assert wait_s == pytest.approx(5.1)
    assert wait_of(made.charge, "k", [TenantCharge("a", 1, 0)]) == wait_s
    clock.now += wait_s - 0.01
    assert wait_of(made.admit, "k", None) == pytest.approx(0.01)
    clock.now += 0.02
    made.admit("k", None)


def test_a_request_larger_than_the_burst_passes() -> None:
    """Nothing is refused for ever: it passes on a full bucket and is paid for afterwards."""
    clock = Clock()
    made = quotas(clock, key_bytes_per_second="1KiB")
    made.charge_body("k", 1024 * 100)
    assert wait_of(made.charge_body, "k", 1) == pytest.approx(90, abs=0.1)


def test_keys_and_tenants_are_counted_apart() -> None:
    """One key's debt is not another's, and a tenant's quota is over all keys that write to it."""
    clock = Clock()
    made = quotas(clock, key_events_per_second=100, tenant_events_per_second=10)
    made.charge("one", [TenantCharge("a", 200, 0)])
    assert wait_of(made.admit, "two", "a") == pytest.approx(10.1)
    assert wait_of(made.charge, "two", [TenantCharge("b", 1, 0), TenantCharge("a", 1, 0)])
    made.admit("two", "b")
    made.charge("two", [TenantCharge("b", 100, 0)])  # b is as full as before: the refused request was not charged


def test_an_override_takes_the_place_of_the_default() -> None:
    """For its tenant, key by key; what it leaves out stays."""
    own = TenantSettings(events_per_second=1)
    made = quotas(Clock(), {"small": own}, tenant_events_per_second=1000, tenant_bytes_per_second="1MiB")
    assert made.rates_of("small") == (1, 2**20)
    assert made.rates_of("other") == (1000, 2**20)
    assert quotas(Clock(), {"small": own}).rates_of("other") == (None, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), min_size=1, max_size=60))
def test_the_mean_rate_holds(requests: list[tuple[float, int]]) -> None:
    """Whatever comes when: never more is let through than burst + rate × time + one request."""
    clock = Clock()
    made = quotas(clock, tenant_events_per_second=20)
    taken = 0
    for pause, events in requests:
        clock.now += pause
        before = taken
        try:
            made.charge("k", [TenantCharge("a", events, 0)])
        except QuotaExceededError:
            continue
        taken += events
        assert before <= 200 + 20 * (clock.now - 1_000.0)


def test_full_buckets_are_forgotten() -> None:
    """The table is bounded: what a new bucket would say too is not kept, what is owed is."""
    clock = Clock()
    made = quotas(clock, key_events_per_second=1)
    made._buckets = buckets = OwnBuckets(50)
    made.charge("owing", [TenantCharge("a", 5_000, 0)])
    for number in range(200):
        clock.now += 1
        made.charge(f"k{number}", [TenantCharge("a", 1, 0)])
    assert len(buckets) <= 50
    assert wait_of(made.admit, "owing", None)


def test_without_quotas_nothing_is_spent() -> None:
    """A request costs less than a microsecond when nothing is limited, and makes no bucket."""
    made = Quotas(buckets=(buckets := OwnBuckets()))
    assert not made.is_limited
    runs = 20_000
    best = min(timeit.repeat(lambda: (made.admit("k", "a"), made.charge_body("k", 1)), number=runs, repeat=5)) / runs
    assert not len(buckets)
    assert best < 5e-6  # 0.2 µs on a quiet machine


def test_several_processes_charge_one_bucket(tmp_path: Path) -> None:
    """What one worker lets pass another counts: together they keep to the quota, and both are told the same wait."""
    clock = Clock()
    limits = IngestLimits(tenant_events_per_second=10, quota_burst=Duration("10s"))
    workers = [Quotas(limits, None, clock, SharedBuckets(tmp_path / "buckets", b"k" * 32)) for _ in range(3)]
    passed = 0
    for number in range(40):
        try:
            workers[number % 3].charge("k", [TenantCharge("a", 5, 0)])
            passed += 5
        except QuotaExceededError:
            continue
    assert passed == 100
    assert [wait_of(worker.admit, "k", "a") for worker in workers] == [pytest.approx(0.1)] * 3
    clock.now += 0.11
    workers[1].charge("k", [TenantCharge("a", 1, 0)])
    workers[2].admit("k", "b")


def limit(rig: Rig, clock: Clock, tenants: dict[str, TenantSettings] | None = None, **limits: Any) -> None:
    rig.service.quotas = quotas(clock, tenants, **limits)


async def test_over_quota_is_429_and_nothing_is_stored(rig: Rig) -> None:
    """The code, whole seconds of advice, and afterwards the same request is accepted."""
    clock = Clock()
    limit(rig, clock, key_events_per_second=1)
    await rig.accept(body=ndjson(*[event(id=f"a{number}") for number in range(15)]))
    answer = await rig.call(body=ndjson(event(id="late")))
    assert (answer.status, answer.json()["code"]) == (429, "quota_exceeded")
    assert answer.headers["retry-after"] == "6"
    assert "late" not in {one["id"] for one in rig.events()}
    clock.now += 6
    assert (await rig.accept(body=ndjson(event(id="late"))))["accepted"] == 1


async def test_the_body_of_one_in_debt_is_not_read(rig: Rig) -> None:
    """What is refused costs nothing: 429 comes before a body that is no JSON is looked at."""
    limit(rig, Clock(), key_bytes_per_second="1B")
    await rig.accept(body=ndjson(event()))
    assert (await rig.call(body=b"\xff")).status == 429


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?on_invalid=quarantine", "/v1/in/open"])
async def test_every_door_and_mode_has_the_quota(rig: Rig, path: str) -> None:
    """A quarantine is no way around: bad records are charged like events, and refused like them."""
    clock = Clock()
    limit(rig, clock, {"acme": TenantSettings(bytes_per_second=Size("1B"))})
    secret = rig.secret_for("acme")
    assert (await rig.call(path, b"no json " * 8, secret=secret)).status == (400 if path == "/v1/events" else 200)
    await rig.call(path, ndjson(event()), secret=secret)
    kept = len(rig.records(FrameType.QUARANTINED))
    answer = await rig.call(path, b"no json\n", secret=secret)
    assert (answer.status, answer.json()["code"]) == (429, "quota_exceeded")
    assert len(rig.records(FrameType.QUARANTINED)) == kept
    assert (await rig.call(path, ndjson(event()), secret=rig.secret_for("globex"))).status == 200


async def test_a_tenant_named_by_its_events_is_counted_too(rig: Rig) -> None:
    """A key bound to none: the tenant is known only from the events, and the request is refused as a whole."""
    limit(rig, Clock(), {"acme": TenantSettings(events_per_second=1)})
    await rig.accept(body=ndjson(*[event(tenant="acme")] * 20))
    answer = await rig.call(body=ndjson(event(tenant="globex"), event(tenant="acme")))
    assert answer.status == 429
    assert rig.service.tenants.get("globex") is None or not rig.events("globex")


async def test_the_inner_door_has_no_quota(rig: Rig) -> None:
    """What the installation records of itself is never held back by a sender's flood."""
    limit(rig, Clock(), tenant_events_per_second=1, key_events_per_second=1)
    await rig.accept(body=ndjson(*[event(tenant="acme")] * 50))
    body = b'{"tenant":"acme","events":[{"action":"tallystick.search","actor":"u"}]}'
    for _ in range(3):
        assert (await rig.call("/events", body, app=rig.inner)).status == 200
