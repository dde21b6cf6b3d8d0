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

__all__ = [
    "HEADERS",
    "Server",
    "accepted",
    "cpu_s",
    "free_port",
    "intake_pids",
    "memory_mib",
    "new_key",
    "processes",
    "running",
    "size_of",
    "total_memory_mib",
    "wait_for",
    "wait_for_port",
]

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/x-ndjson"}
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(directory: Path, configuration: str = "") -> Iterator[Server]:
    """A server of its own in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
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
            continue  # it has ended meanwhile
        if b"tallystick.pipeline.role" in words and str(server.process.pid).encode() in words:
            role = words[words.index(b"tallystick.pipeline.role") + 1].decode()
            found[role if role not in found else f"{role}-{entry.name}"] = int(entry.name)
    return found


def intake_pids(server: Server) -> list[int]:
    """The process that writes, and its workers where there are any."""
    return [pid for role, pid in processes(server).items() if role.startswith(("intake", "worker"))]


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


def total_memory_mib(server: Server) -> float:
    """Of all processes together; 0 while they start or end."""
    try:
        return sum(map(memory_mib, processes(server).values()))
    except OSError:
        return 0.0


def new_key(server: Server, tenant: str) -> dict[str, str]:
    """Headers with a fresh key bound to one tenant."""
    answer = server.http.post(
        "/v1/keys", json={"owner": tenant, "purpose": "bench", "tenants": [tenant], "permissions": ["ingest"]}
    )
    assert answer.status_code in (200, 201), answer.text
    return {**HEADERS, "Authorization": f"Bearer {answer.json()['secret']}"}


def size_of(path: Path) -> int:
    """Bytes of all files below ``path``, as their lengths say."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def accepted(server: Server, tenant: str = "default") -> int:
    """Durable events of a tenant."""
    return int(server.status()["tenants"].get(tenant, {}).get("accepted", 0))


def wait_for_port(port: int) -> None:
    """Until something listens on a loopback port."""

    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_open, f"port {port} to open")
