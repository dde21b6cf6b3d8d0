"""A real Tallystick, started as a user starts it: `tallystick up` in its own process and directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ADMIN_KEY = "ts_testadmin01_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V"


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0, every_s: float = 0.05) -> Any:
    """The first true value of ``condition``; fails with ``what`` when none came in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(every_s)


def settled(row: dict[str, Any]) -> int:
    """Events with an outcome at one destination, by its row of the status."""
    return int(row["delivered"] + sum(row["filtered"].values()) + row["dead_lettered"])


class Server:
    """One installation under ``directory``: `tallystick.toml`, `data`, `data.keys`. Start, kill and start again."""

    def __init__(
        self, directory: Path, configuration: str = "", *, port: int | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.environment = environment or {}
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = directory / "data"
        self.keys = directory / "data.keys"
        self.config = directory / "tallystick.toml"
        self.log = directory / "server.log"
        self.config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\n{configuration}' if "[server]" not in configuration else configuration
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30)

    def start(self, *, wait: bool = True) -> Server:
        """Start `tallystick up`; with ``wait`` until it is ready."""
        log = self.log.open("ab")
        command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "up", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command, env=self.full_environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory
        )
        log.close()
        if wait:
            self.wait_ready()
        return self

    def full_environment(self) -> dict[str, str]:
        """What `tallystick up` is started with."""
        return {**os.environ, "TALLYSTICK_ADMIN_KEY": ADMIN_KEY, **self.environment}

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.tail()}"
            try:
                return self.http.get("/healthz/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_for(is_ready, "the server to be ready", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        self.wait_api()

    def wait_api(self, timeout_s: float = 60.0) -> None:
        """Until the api process answers too."""
        wait_for(lambda: self.http.get("/v1/limits").status_code == 200, "the api process to answer", timeout_s)

    def tail(self, size: int = 4000) -> str:
        """The end of the server's own log."""
        return self.log.read_text(errors="replace")[-size:]

    def kill(self) -> None:
        """kill -9 the supervisor; the kernel kills its children."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        self.stop()
        self.http.close()

    def status(self) -> dict[str, Any]:
        answer = self.http.get("/v1/status")
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    def send(self, body: bytes, **params: str) -> httpx.Response:
        """One NDJSON request."""
        return self.http.post("/v1/events", content=body, params=params, headers={"Content-Type": "application/x-ndjson"})

    def send_ok(self, body: bytes) -> dict[str, Any]:
        """One NDJSON request that must be accepted; its answer."""
        answer = self.send(body)
        assert answer.status_code == 200, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    def cli(self, *arguments: str, check: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line against this server."""
        full = {**os.environ, "TALLYSTICK_URL": self.url, "TALLYSTICK_KEY": ADMIN_KEY, **environment}
        command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", *arguments]
        done = subprocess.run(command, env=full, capture_output=True, text=True, timeout=300, cwd=self.directory)
        assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def verify(self, *, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`tallystick verify` of the data directory."""
        return self.cli("verify", "--data", str(self.data), check=check)

    def drain(self, accepted: int, tenant: str = "default", destinations: tuple[str, ...] = (), timeout_s: float = 120.0) -> None:
        """Until ``accepted`` events of a tenant are sealed, and nothing is pending at the destinations."""

        def is_drained() -> bool:
            try:
                page = self.status()
            except (httpx.TransportError, AssertionError):
                return False
            row = page["tenants"].get(tenant, {})
            is_sealed = row.get("sealed", -1) >= accepted and row["sealed"] == row["accepted"]
            rows = [page["destinations"].get(name) for name in destinations]
            return is_sealed and all(row is not None and row["pending"] == 0 and settled(row) >= accepted for row in rows)

        wait_for(is_drained, f"{accepted} events of {tenant} to drain; status {self.status()}", timeout_s, 0.2)
