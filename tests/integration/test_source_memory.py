"""Sources at full speed before a journal that takes nothing: bounded memory, senders held up, nothing acknowledged that is not stored."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.forward_client import ForwardClient, event_time, packed_forward
from support.ledger import OURS
from support.server import Server, wait_for

SENDERS = 4
WAITING_MIB = 8
CONFIGURATION = """
[data]
quota = "{0}"
free_min = "1MiB"
reserve = "1MiB"
[journal]
segment_size = "4MiB"
[sources.syslog]
type = "syslog"
listen = "127.0.0.1:0"
transport = ["tcp"]
waiting = "8MiB"
tenant = "syslog"
[sources.forward]
type = "forward"
listen = "127.0.0.1:0"
waiting = "8MiB"
message = "1MiB"
tenant = "forward"
"""


class Flood:
    """Connections that send as fast as they are let, each until it is closed or told to end."""

    def __init__(self, server: Server) -> None:
        self.sent = 0
        self.acknowledged: list[tuple[int, int]] = []
        self._is_over = False
        self._lock = threading.Lock()
        self._clients = [ForwardClient(address_of(server, kind), 1.0) for kind in ("syslog", "forward") for _ in range(SENDERS)]
        work = [self._send_syslog] * SENDERS + [self._send_forward] * SENDERS
        self._threads = [
            threading.Thread(target=one, args=(client, number), daemon=True)
            for number, (one, client) in enumerate(zip(work, self._clients, strict=True))
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_over = True
        for client in self._clients:
            client.sock.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _send_syslog(self, client: ForwardClient, number: int) -> None:
        def lines(part: int) -> bytes:
            return b"".join(b"<13>1 - h a - - - %d %b\n" % (part, random.randbytes(300).hex().encode()) for _ in range(500))

        self._send(client, lines)

    def _send_forward(self, client: ForwardClient, number: int) -> None:
        def chunk(part: int) -> bytes:
            entries = [
                (event_time(1_768_832_635), {"sender": number, "part": part, "pad": random.randbytes(300).hex()})
                for _ in range(500)
            ]
            return packed_forward("flood", entries, f"{number}:{part}", compressed=True)

        self._send(client, chunk, self._take_acknowledgements)

    def _send(
        self, client: ForwardClient, make: Callable[[int], bytes], listen: Callable[[ForwardClient], None] = lambda _: None
    ) -> None:
        part, rest = 0, b""
        while not self._is_over:
            try:
                rest = rest or make(part)
                rest = rest[client.sock.send(rest) :]
                if not rest:
                    part += 1
                    with self._lock:
                        self.sent += 500
                listen(client)
            except TimeoutError:
                listen(client)
            except OSError:
                return

    def _take_acknowledgements(self, client: ForwardClient) -> None:
        client.sock.settimeout(0.0005)
        try:
            while True:
                number, _, part = client.ack().partition(":")
                self.acknowledged.append((int(number), int(part)))
        except (TimeoutError, BlockingIOError):
            pass
        finally:
            client.sock.settimeout(1.0)


def address_of(server: Server, kind: str) -> tuple[str, int]:
    return "127.0.0.1", int(str(server.status()["sources"][kind]["listen"]).rpartition(":")[2])


def peak_kib(server: Server) -> int:
    """Most memory that the intake process ever had, from the kernel."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"intake" in words and os.fsencode(server.config) in words:
                status = (process / "status").read_text()
                return int(status.split("VmHWM:")[1].split()[0])
    raise AssertionError("there is no intake process")


def test_a_journal_that_takes_nothing_holds_senders_up(make_server: Callable[[str], Server]) -> None:
    """Eight floods until the quota is reached: every connection is paused, status says why, the peak of memory stays near what may
    wait, no sender is closed; after a restart with more room every chunk that was acknowledged is there, whole and once."""
    server = make_server(CONFIGURATION.format("24MiB")).start()
    before = peak_kib(server)
    flood = Flood(server)
    wait_for(lambda: not server.status()["ready"], "the quota to be reached", 120, 0.5)
    wait_for(lambda: _is_still(flood), "the senders to be held up", 60)
    page: dict[str, Any] = server.status()["sources"]
    for kind in ("syslog", "forward"):
        row = page[kind]
        assert (row["state"], row["paused"], row["connections"], row["connections_refused"]) == ("running", SENDERS, SENDERS, {})
        assert "quota" in row["reason"]
        assert row["waiting_bytes"] <= (WAITING_MIB + 1) * 2**20
    # Both sources' waiting bytes, a batch of each with its events, and what the journal and its dedupe took meanwhile.
    assert peak_kib(server) - before < (4 * WAITING_MIB + 64) * 1024
    flood.end()
    server.stop()
    server.config.write_text(server.config.read_text().replace('"24MiB"', '"2GiB"'))
    server.start()
    counts = _parts(server)
    assert flood.acknowledged
    assert [part for part in flood.acknowledged if counts.get(part) != 500] == []


def _is_still(flood: Flood) -> bool:
    seen = flood.sent
    time.sleep(1.0)
    return flood.sent == seen


def _parts(server: Server) -> dict[tuple[int, int], int]:
    """How many records there are of each chunk."""
    counts: dict[tuple[int, int], int] = {}
    with server.http.stream("GET", "/v1/export", params={"query": OURS, "tenant": "forward"}, timeout=120) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line:
                sender = int(line.split('"sender":')[1].split(",")[0])
                part = int(line.split('"part":')[1].split(",")[0])
                counts[sender, part] = counts.get((sender, part), 0) + 1
    return counts
