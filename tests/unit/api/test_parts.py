"""Times in parameters, the bounded pool, and errors as answers."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from tallystick.api.params import read_range, read_time
from tallystick.api.problems import problem_of
from tallystick.api.work import BoundedPool
from tallystick.errors import ConflictError, DiskFullError, EventInvalidError, NotFoundError, OverloadedError, QueryError
from tallystick.http.problem import Problem

NOW = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-24h", datetime(2026, 3, 16, 12, 0, tzinfo=UTC)),
        ("-2w", datetime(2026, 3, 3, 12, 0, tzinfo=UTC)),
        ("2026-03-17T12:00:00Z", NOW),
        ("2026-03-17T14:00:00+02:00", NOW),
        ("2026-03-17T14:00:00 02:00", NOW),
        ("now", NOW),
        (None, None),
        ("", None),
    ],
)
def test_times_are_read(text: str | None, expected: datetime | None) -> None:
    """RFC 3339 in any zone, also where a plus sign became a blank, and spans back from now."""
    assert read_time("from", text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["24h", "-24", "-1y", "2026-03-17", "2026-03-17T12:00:00", "2026-02-30T00:00:00Z", "-9999999999h", "x\n", "-24h\n"]
)
def test_other_times_are_refused(text: str) -> None:
    """Each is a 400 that names the parameter."""
    with pytest.raises(Problem, match="from"):
        read_time("from", text, NOW)


def test_an_empty_range_is_refused() -> None:
    """`from` after `to` matches nothing by construction, so it is a mistake."""
    with pytest.raises(Problem):
        read_range("-1h", "-2h", NOW)


async def test_the_pool_refuses_past_its_bound_and_recovers() -> None:
    """Two run, one waits, the fourth is refused; afterwards there is room again."""
    pool = BoundedPool("test", threads=2, queue=1)
    gate = threading.Event()
    running = [asyncio.create_task(pool.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await pool.run(gate.wait)
    gate.set()
    await asyncio.gather(*running)
    await asyncio.sleep(0)
    assert await pool.run(lambda: 7) == 7
    pool.close()


async def test_a_cancelled_caller_keeps_its_place_until_the_work_ends() -> None:
    """Hanging up does not free a thread that is still busy."""
    pool = BoundedPool("test", threads=1, queue=0)
    gate = threading.Event()
    task = asyncio.create_task(pool.run(gate.wait))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OverloadedError):
        await pool.run(lambda: 1)
    gate.set()
    pool.close()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueryError("no", hint="quote it"), 400, "query_invalid"),
        (NotFoundError("no such event"), 404, "not_found"),
        (ConflictError("twice"), 409, "conflict"),
        (DiskFullError("full"), 503, "disk_full"),
        (OverloadedError("busy"), 503, "overloaded"),
        (EventInvalidError("bad", pointer="/action"), 422, "event_invalid"),
        (RuntimeError("path /etc"), 500, "internal"),
    ],
)
def test_errors_become_problems(error: Exception, status: int, code: str) -> None:
    """Each branch of the error tree has its status; what is ours to mend says nothing of itself."""
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    if status == 503:
        assert int(problem.headers["retry-after"]) >= 1
    if status == 500:
        assert b"/etc" not in problem.body("r")
