"""A Tallystick for benchmarks, and what the kernel says of its processes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.server import ADMIN_KEY, Server, free_port, wait_for

__all__ = ["HEADERS", "Server", "accepted", "cpu_s", "free_port", "memory_mib", "processes", "running", "wait_for", "wait_for_port"]

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/x-ndjson"}
_TICKS = os.sysconf("SC_CLK_TCK")
ROLES = ("supervisor", "intake", "api", "sealer", "archiver", "dispatcher")


@contextmanager
def running(directory: Path, configuration: str = "") -> Iterator[Server]:
    """A server of its own in ``directory``."""
    directory.mkdir(parents=True)
    server = Server(directory, configuration)
    try:
        yield server.start()
    finally:
        server.close()


def processes(server: Server) -> dict[str, int]:
    """Role → pid."""
    assert server.process is not None
    found = {"supervisor": server.process.pid}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"tallystick.pipeline.role" in words and str(server.process.pid).encode() in words:
            found[words[words.index(b"tallystick.pipeline.role") + 1].decode()] = int(entry.name)
    return found


def cpu_s(pid: int) -> float:
    """User and system seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int) -> float:
    """Proportional set size: shared pages are counted once over all processes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def accepted(server: Server, tenant: str = "default") -> int:
    """Durable events of a tenant."""
    return int(server.status()["tenants"].get(tenant, {}).get("accepted", 0))


def wait_for_port(port: int) -> None:
    """Until something listens on a loopback port."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_open, f"port {port} to open")
