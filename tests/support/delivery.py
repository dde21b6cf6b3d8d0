"""A small world for delivery tests: sealed events in memory, a lane on real state files, and a clock-free way to wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tallystick.config import DeliverySettings, Duration
from tallystick.delivery.builder import CutBuilder
from tallystick.delivery.cut import BatchLimits, Cut, CutContext, build_cut, select_lines
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.delivery.events import Span
from tallystick.delivery.history import History
from tallystick.delivery.lane import Lane
from tallystick.delivery.state import LaneStateFile
from tallystick.plugin import Destination
from tallystick.privacy.keys import KeyStore
from tallystick.query.evaluate import compile_query

HANDLE = "aaaaaaaaaaaaaaaa"
FAST = DeliverySettings(retry_min=Duration("5ms"), retry_max=Duration("20ms"), probe_interval=Duration("10ms"), breaker_failures=3)


def make_line(index: int, tenant: str = "acme", action: str = "user.login") -> bytes:
    """A canonical line as the intake writes it, with a salt of its own."""
    event = {
        "v": 1,
        "id": f"{tenant}-{index}",
        "tenant": tenant,
        "occurred_at": "2026-03-04T05:06:07.000000Z",
        "received_at": "2026-03-04T05:06:08.000000Z",
        "action": action,
        "actor": {"type": "user", "id": f"u_{index % 7}"},
        "outcome": "success",
        "ingest": {"salt": f"{index:016x}"},
    }
    return json.dumps(event, separators=(",", ":")).encode()


@dataclass
class World:
    """Sealed events by handle. ``gone`` maps (handle, index) to the reason why an event cannot be read."""

    events: dict[str, list[bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gone: dict[tuple[str, int], str] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)

    def add(
        self, count: int, tenant: str = "acme", handle: str = HANDLE, action: Callable[[int], str] = lambda i: "user.login"
    ) -> None:
        """Seal ``count`` more events of a tenant."""
        self.names[handle] = tenant
        lines = self.events.setdefault(handle, [])
        lines += [make_line(index, tenant, action(index)) for index in range(len(lines), len(lines) + count)]

    def tenants(self) -> dict[str, str]:
        return dict(self.names)

    def size(self, handle: str) -> int:
        return len(self.events.get(handle, []))

    def sizes(self) -> dict[str, int]:
        return {handle: len(lines) for handle, lines in self.events.items()}

    known_sizes = sizes

    def root_size(self) -> int:
        return 7

    def note(self, handle: str) -> str:
        return f"audit.example.com/log/{handle}\n{self.size(handle)}\nroot\n\n— signed\n"

    def read(self, handle: str, first: int, end: int, max_events: int, max_bytes: int) -> Span:
        if self.errors:
            raise self.errors.pop(0)
        span = Span(first)
        for index in range(first, min(end, first + max_events)):
            reason = self.gone.get((handle, index))
            span.lines.append(b"" if reason else self.events[handle][index])
            if reason:
                span.gaps[index] = reason
        return span


def make_cut(destination: Destination, lines: list[bytes], first: int = 0, after: str = "", tenant: str = "acme") -> Cut:
    """A cut of these lines for a destination, as the dispatcher would build it."""
    context = CutContext("d", tenant, HANDLE, f"audit.example.com/log/{HANDLE}", "the note\n", "cfg")
    cut = build_cut(context, select_lines(first, lines, {}, None), destination.encoder)
    values = {name: getattr(cut, name) for name in cut.__dataclass_fields__}
    return Cut(**(values | {"after": after}))


@dataclass
class LaneBench:
    """Makes lanes over the same directory again and again, as restarts do."""

    data_dir: Path
    world: World
    keys: KeyStore
    settings: DeliverySettings = FAST

    def lane(self, destination: Destination, *, where: str = "", limits: BatchLimits | None = None) -> Lane:
        builder = CutBuilder(
            "d",
            destination,
            limits or BatchLimits(destination.batch.max_events, destination.batch.max_bytes, 0.0),
            self.world,
            server_name="audit.example.com",
            config_hash="cfg",
            where=where,
            compile_where=lambda text: compile_query(text).matches_line,
            note=self.world.note,
        )
        return Lane(
            "d",
            destination,
            builder,
            self.world,
            self.settings,
            state_file=LaneStateFile(self.data_dir, "d"),
            history=History(self.data_dir, "d"),
            letters=DeadLetters(self.data_dir, self.keys),
        )

    async def drain(self, lane: Lane, *, timeout_s: float = 20.0, until: Callable[[], bool] | None = None) -> None:
        """Run the lane until everything sealed is settled (or ``until`` holds), then stop it."""
        await run_until(lane, until or (lambda: self.is_drained(lane)), timeout_s)

    @asynccontextmanager
    async def draining(self, lane: Lane) -> AsyncIterator[None]:
        """The lane drained, and running until the end of the block."""
        task = asyncio.create_task(lane.run())
        try:
            async with asyncio.timeout(20):
                while not self.is_drained(lane):
                    await asyncio.sleep(0.005)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await lane.close()

    def is_drained(self, lane: Lane) -> bool:
        accounts = lane.state.accounts
        if lane.state.cuts or lane.state.replays:
            return False
        return all(handle in accounts and accounts[handle].pending(self.world.size(handle)) == 0 for handle in self.world.names)


async def run_until(lane: Lane, is_done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Run a lane until a condition holds; an error that ends the lane is raised."""
    task = asyncio.create_task(lane.run())
    try:
        async with asyncio.timeout(timeout_s):
            while not is_done():
                if task.done():
                    task.result()
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await lane.close()


def numbers(lane: Lane, handle: str = HANDLE) -> dict[str, Any]:
    """A tenant's account as a plain dict."""
    account = lane.state.accounts[handle]
    return {"delivered": account.delivered, "filtered": account.filtered, "dead": account.dead_lettered, "next": account.next}
