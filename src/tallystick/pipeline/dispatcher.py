"""The dispatcher's process: every configured destination, each in its own lane."""

from __future__ import annotations

import asyncio
import signal
import threading

import uvloop

from tallystick.delivery.dispatcher import Dispatcher
from tallystick.destinations import build_destinations
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Deliver until told to stop."""
    stop = stop_event()
    keep_trying("dispatcher", installation.data_dir, stop, lambda: _deliver(installation, stop))


def _deliver(installation: Installation, stop: threading.Event) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(installation, stop))


async def _run(installation: Installation, told: threading.Event) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        told.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if told.is_set():
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    dispatcher = Dispatcher(installation.config, installation.keys, build_destinations(installation.config))
    await dispatcher.run(stop)
