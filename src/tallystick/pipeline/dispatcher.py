"""The dispatcher's process: every configured destination, each in its own lane."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from tallystick.delivery.dispatcher import Dispatcher
from tallystick.destinations import build_destinations
from tallystick.pipeline.context import Installation


def run(installation: Installation) -> None:
    """Deliver until told to stop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(installation))


async def _run(installation: Installation) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    dispatcher = Dispatcher(installation.config, installation.keys, build_destinations(installation.config))
    await dispatcher.run(stop)
