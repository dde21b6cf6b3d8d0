"""Turns: one at a time, lanes in rotation."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from tallystick.http.turns import Turns


async def test_lanes_take_turns_however_many_one_has_waiting() -> None:
    """Six requests of one lane wait, then one of another comes: it is second, and the six keep their order."""
    turns, done = Turns(), []

    async def request(lane: str, number: int) -> None:
        async with turns.of(lane):
            done.append((lane, number))
            await asyncio.sleep(0)

    async with turns.of("first"):
        waiting = [asyncio.create_task(request("loud", number)) for number in range(6)]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(request("quiet", 0)))
        await asyncio.sleep(0)
        assert done == []
    await asyncio.gather(*waiting)
    assert done == [("loud", 0), ("quiet", 0), *[("loud", number) for number in range(1, 6)]]


async def test_never_two_at_once() -> None:
    """Work in threads of many lanes: no two stretches overlap, and each is done outside of the loop's thread."""
    turns, inside, seen = Turns(), [], set()

    def work(number: int) -> int:
        inside.append(number)
        assert inside == [number]
        seen.add(threading.get_ident())
        inside.remove(number)
        return number

    usual_s = sys.getswitchinterval()
    answers = await asyncio.gather(*[turns.work(f"lane{number % 3}", work, number) for number in range(20)])
    assert answers == list(range(20))
    assert threading.get_ident() not in seen
    assert sys.getswitchinterval() == usual_s


async def test_whoever_gives_up_holds_nobody_up() -> None:
    """A request that is cancelled while it waits, or in the moment of its turn, or fails inside: the next one follows."""
    turns = Turns()

    async def request() -> str:
        async with turns.of("a"):
            return "done"

    async with turns.of("a"):
        gone, last = asyncio.create_task(request()), asyncio.create_task(request())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
    assert await last == "done"
    async with turns.of("a"):
        chosen, last = asyncio.create_task(request()), asyncio.create_task(request())
        await asyncio.sleep(0)
    chosen.cancel()  # its turn has come, but it has not run yet
    assert await last == "done"
    with pytest.raises(ZeroDivisionError):
        await turns.work("a", lambda: 1 // 0)
    assert await request() == "done"


async def test_one_lane_alone_shares_with_nobody() -> None:
    """Only when a second lane sends is there somebody to give way to."""
    turns = Turns()
    turns.note("a")
    turns.note("a")
    assert not turns.is_shared
    turns.note("b")
    assert turns.is_shared
