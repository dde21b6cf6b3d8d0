"""A process that delivers to a real destination and kills itself (SIGKILL) before its n-th durable step; see test_delivery_kill.

delivery_child.py DIRECTORY KIND EVENTS STEP        STEP 0: live to the end
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.delivery import LaneBench, World
from tallystick.delivery.cut import BatchLimits
from tallystick.destinations.file import FileDestination, FileSettings
from tallystick.destinations.object_store import ObjectStoreDestination, ObjectStoreSettings
from tallystick.durable import set_observer
from tallystick.plugin import Destination
from tallystick.privacy.keys import KeyStore


def make_destination(directory: Path, kind: str) -> Destination:
    if kind == "file":
        return FileDestination("d", FileSettings(path=str(directory / "out.jsonl")))
    return ObjectStoreDestination("d", ObjectStoreSettings(url=str(directory / "lake"), compression="none"))


async def main(directory: Path, kind: str, events: int, step: int) -> None:
    keys_dir = directory / "data.keys"
    keys = KeyStore.open(keys_dir) if keys_dir.exists() else KeyStore.create(keys_dir)
    bench = LaneBench(directory / "data", World(), keys)
    bench.world.add(events)
    left = step

    def observe(operation: str, path: Path | None, fd: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    lane = bench.lane(make_destination(directory, kind), limits=BatchLimits(7, 1 << 20, 0.0))
    if step:
        set_observer(observe)
    await bench.drain(lane)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
