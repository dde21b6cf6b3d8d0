"""The plan of expiry: sums by tenant, class and month, and when each would go."""

from __future__ import annotations

from pathlib import Path

from tallystick.archive.catalog import ChunkRow
from tallystick.archive.expiry_plan import plan_expiry
from tallystick.archive.periods import configured_periods
from tallystick.config import load_config

DAY = 86_400


def row(first: int, day: int | None, *, handle: str = "a" * 16, name: str = "standard", month: str = "2026-01") -> ChunkRow:
    """Ten events, received up to ``day`` days after 1970."""
    received = None if day is None else day * DAY * 1_000_000
    times = (received, received, received, received)
    return ChunkRow(bytes([first]) * 16, handle, name, month, first, first + 9, 10, *times, 1000, b"", f"{first}")


def test_what_is_due_and_what_comes_next() -> None:
    """Sums are by tenant, class and month, the next to expire first; a class without a period never goes."""
    rows = [row(0, 1), row(10, 5), row(20, 3, name="long"), row(30, 1, name="odd"), row(40, None, name="long", month="2026-02")]
    periods = {"standard": 2.0 * DAY, "long": 10.0 * DAY}
    lines = plan_expiry(rows, lambda handle, name: periods.get(name), 4.0 * DAY)
    found = [(line.retention_class, line.events, line.first, line.last, line.expires_from, line.expires_at) for line in lines]
    assert found == [
        ("standard", 20, 0, 19, 3.0 * DAY, 7.0 * DAY),
        ("long", 10, 20, 29, 13.0 * DAY, 13.0 * DAY),
        ("odd", 10, 30, 39, None, None),
        ("long", 10, 40, 49, None, None),
    ]
    assert [(line.due_chunks, line.due_events, line.due_bytes) for line in lines] == [
        (1, 10, 1000),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
    ]


def test_a_tenants_own_period_comes_first(tmp_path: Path) -> None:
    """Its class's otherwise; what the configuration does not know is kept for ever."""
    path = tmp_path / "tallystick.toml"
    path.write_text('[retention.classes.x]\nperiod = "3d"\n[tenants.acme]\nretention = { x = "9d" }\n')
    period_of = configured_periods(load_config(path), {"h1": "acme", "h2": "globex"})
    found = [period_of("h1", "x"), period_of("h2", "x"), period_of("h1", "standard"), period_of("h1", "gone")]
    assert found == [9.0 * DAY, 3.0 * DAY, 400.0 * DAY, None]
