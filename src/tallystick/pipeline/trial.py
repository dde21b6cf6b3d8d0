"""A scratch installation of the real product, and a ledger of what it promised: what `doctor durability` hurts.

The ledger knows for each id whether a 200 was given, a refusal, or nothing. `Trial.judge` starts the server, waits until it
has sealed everything, reads its export and verifies its directory: what does not hold is a `BrokenPromiseError` by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tallystick.durable import make_dir, replace_file
from tallystick.errors import TallystickError
from tallystick.pipeline.verify import VerifyOptions, verify_directory

_SENDERS = 3
_BATCH = 50
_PAD = "x" * 300
_PATIENCE_S = 120.0
_OURS = "NOT action:tallystick.*"
_NOT_OURS = {f"TALLYSTICK_{name}" for name in ("CONFIG", "DATA", "KEYS", "LISTEN", "ADMIN_KEY")}
_CONFIGURATION = """[server]
listen = "127.0.0.1:{port}"
[data]
quota = "{quota}"
[journal]
segment_size = "1MiB"
[seal]
root_interval = "500ms"
[archive]
max_age = "1s"
"""


class BrokenPromiseError(TallystickError):
    """The trial's server did not keep what it had promised, or did not do what it had to."""

    code = "broken_promise"


class Trial:
    """One installation in ``directory``; it may be killed and started again. Not thread-safe but for its own senders."""

    def __init__(self, directory: Path, quota: str = "10GiB") -> None:
        make_dir(directory)
        self.directory = directory
        self.data = directory / "data"
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._made = 0
        self.configure(quota)

    def configure(self, quota: str) -> None:
        """Write the configuration, durably: a cut must take nothing but what the server left unsynced."""
        text = _CONFIGURATION.format(port=self._port, quota=quota)
        replace_file(self.directory / "tallystick.toml", text.encode())

    def start(self) -> None:
        """Start `tallystick up` and wait until the intake answers, whatever it says. Raises BrokenPromiseError."""
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        program = "from tallystick.cli.main import run; run()"
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "up", "--config", "tallystick.toml"],
                cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.wait(lambda: bool(self.get("/healthz/live")), "the server to answer")

    def kill(self) -> None:
        """kill -9 to all processes."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP to all processes: nothing is written any more but by the kernel."""
        if self._process is not None:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        """To the supervisor and its roles: one that was stopped while it started would not die with its parent."""
        if self._process is not None and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text("ascii").split()
            for pid in (self._process.pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Senders work as long as the block runs; a request without an answer is unknown for ever."""
        self._stop.clear()
        secret = (self.directory / "data.keys" / "admin.key").read_text("ascii").strip()
        threads = [threading.Thread(target=self._send, args=(secret,), daemon=True) for _ in range(_SENDERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def judge(self) -> None:
        """Hold the running server to the ledger. Raises BrokenPromiseError for the first promise that is broken."""
        self.wait(self._is_sealed, "everything accepted to be sealed")
        found = Counter(self._exported())
        for what, names in (
            ("accepted events are missing", self.accepted - set(found)),
            ("refused events are there", (self.refused - self.accepted - self.unknown) & set(found)),
            ("events were stored twice", {name for name, count in found.items() if count > 1}),
        ):
            if names:
                raise BrokenPromiseError(f"{len(names)} {what}", place=min(names))
        deadline = time.monotonic() + _PATIENCE_S
        while (report := verify_directory(VerifyOptions(self.data), lambda _: None)).status == 5 and time.monotonic() < deadline:
            time.sleep(0.5)  # until the root log has taken in the last heads
        if report.problems:
            raise BrokenPromiseError(f"verify: {report.problems[0].message}", place=report.problems[0].place)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Raises BrokenPromiseError when it does not come true in two minutes, or the server ends."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if self._process is not None and self._process.poll() is not None:
                raise BrokenPromiseError(
                    f"the server ended with {self._process.returncode}", place=str(self.directory / "server.log")
                )
            if time.monotonic() > deadline:
                raise BrokenPromiseError(f"waited {_PATIENCE_S:.0f} s in vain for {what}")
            time.sleep(0.05)

    def get(self, path: str, **params: str) -> httpx.Response | None:
        """One GET with the admin key; None without an answer."""
        key = self.directory / "data.keys" / "admin.key"
        headers = {"Authorization": f"Bearer {key.read_text('ascii').strip()}"} if key.exists() else {}
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}{path}", params=params, headers=headers, timeout=60, trust_env=False)
        except httpx.TransportError:
            return None

    def _send(self, secret: str) -> None:
        base, headers = f"http://127.0.0.1:{self._port}", {"Authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                names, body = self._make()
                try:
                    answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
                except httpx.ConnectError:
                    self._stop.wait(0.05)
                    continue
                except httpx.TransportError:
                    with self._lock:
                        self.unknown.update(names)
                    continue
                self._note(names, answer)

    def _make(self) -> tuple[list[str], bytes]:
        with self._lock:
            first, self._made = self._made, self._made + _BATCH
        names = [f"trial-{number}" for number in range(first, first + _BATCH)]
        events = [{"id": name, "action": "doctor.trial", "actor": "doctor", "metadata": {"pad": _PAD}} for name in names]
        return names, "\n".join(map(json.dumps, events)).encode()

    def _note(self, names: list[str], answer: httpx.Response) -> None:
        with self._lock:
            if answer.status_code == 200:
                self.accepted.update(names)
                return
            self.refused.update(names)
            self.refusals[str(answer.json().get("code", answer.status_code))] += 1
        self._stop.wait(0.05)

    def _is_sealed(self) -> bool:
        answer = self.get("/v1/status")
        if answer is None or answer.status_code != 200:
            return False
        return all(row["sealed"] == row["accepted"] for row in answer.json()["tenants"].values())

    def _exported(self) -> list[str]:
        answer = self.get("/v1/export", query=_OURS)
        if answer is None or answer.status_code != 200:
            raise BrokenPromiseError(f"the export answers {answer.status_code if answer else 'nothing'}")
        return [json.loads(line)["id"] for line in answer.text.splitlines()]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
