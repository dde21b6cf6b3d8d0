"""A process that delivers two tenants' events to a real server and kills itself (SIGKILL) at a named step; see test_server_delivery_kill.

server_delivery_child.py DIRECTORY KIND EVENTS STEP SETTINGS        SETTINGS: the lines of its table

STEP is `<name>:<n>`, the n-th of its name in this life, or `none`: `durable` (before a durable step of the dispatcher: cut stored,
outcome filed, cursor moved), `before` and `after` (the moment at which the other side makes a cut its own).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.delivery import HANDLE, LaneBench, World
from tallystick.config import load_config
from tallystick.delivery.cut import BatchLimits
from tallystick.destinations import build_destinations
from tallystick.durable import set_observer
from tallystick.privacy.keys import KeyStore

MOMENTS = {"clickhouse": "_insert", "iceberg": "_commit", "postgresql": "_commit", "kafka": "_commit", "nats": "_acknowledged"}
"""Kind → the method in which the other side makes a cut its own."""


def die_at(step: str, seen: Counter[str], name: str) -> None:
    seen[name] += 1
    if f"{name}:{seen[name]}" == step:
        os.kill(os.getpid(), signal.SIGKILL)


async def main(directory: Path, kind: str, events: int, step: str, settings: str) -> None:
    keys_dir = directory / "data.keys"
    keys = KeyStore.open(keys_dir) if keys_dir.exists() else KeyStore.create(keys_dir)
    bench = LaneBench(directory / "data", World(), keys)
    bench.world.add(events)
    bench.world.add(events, "umbra", HANDLE.replace("a", "b"))
    file = directory / "tallystick.toml"
    file.write_text(f'[destinations.d]\ntype = "{kind}"\n{settings}')
    destination, _ = build_destinations(load_config(file))["d"]
    seen: Counter[str] = Counter()
    moment = getattr(destination, MOMENTS[kind])

    def watched(*arguments: Any) -> Any:
        die_at(step, seen, "before")
        found = moment(*arguments)
        die_at(step, seen, "after")
        return found

    async def watched_task(*arguments: Any) -> Any:
        die_at(step, seen, "before")
        found = await moment(*arguments)
        die_at(step, seen, "after")
        return found

    setattr(destination, MOMENTS[kind], watched_task if asyncio.iscoroutinefunction(moment) else watched)
    lane = bench.lane(destination, limits=BatchLimits(7, 1 << 20, 0.0))
    set_observer(lambda operation, path, fd: die_at(step, seen, "durable"))
    await bench.drain(lane, timeout_s=40)
    await destination.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
