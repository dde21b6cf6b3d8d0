"""OTLP over HTTP and gRPC while the server is killed, and while its disk is slow."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from support.faults import children
from support.ledger import OURS
from support.otlp import TIME_NS, log_record, log_request
from support.server import ADMIN_KEY, Server, free_port, wait_for

KEY = (("authorization", f"Bearer {ADMIN_KEY}"),)
BATCH = 40
KILLS = 3
REQUESTS, RECORDS = 36, 8
SLOW_DISK = """
import os, time
_sync = os.fdatasync
def fdatasync(fd):
    time.sleep(0.3)
    _sync(fd)
os.fdatasync = fdatasync
"""


def stored(server: Server) -> Iterator[tuple[str, int]]:
    """Sender and number of each event, in the order of the log."""
    for line in server.http.get("/v1/export", params={"query": OURS}, timeout=120).iter_lines():
        body = json.loads(line)["metadata"]["body"]
        yield body["sender"], body["number"]


class Sender(threading.Thread):
    """One exporter that sends numbered batches, each until it is taken."""

    def __init__(self, name: str, exporter: Any, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.exporter = exporter
        self.stop = stop
        self.taken = 0

    def run(self) -> None:
        resource = Resource({"service.name": self.name})
        while not self.stop.is_set():
            batch = [
                ReadWriteLogRecord(
                    LogRecord(timestamp=TIME_NS + number, body={"sender": self.name, "number": number}), resource=resource
                )
                for number in range(self.taken, self.taken + BATCH)
            ]
            while self.exporter.export(batch) is not LogRecordExportResult.SUCCESS:
                time.sleep(0.1)
            self.taken += BATCH


@pytest.mark.timeout(300)
def test_kills_lose_and_repeat_nothing(make_server: Callable[[str], Server]) -> None:
    """Exporters of both kinds through three kill -9: every batch that they were told is taken is stored once, in its sender's order.

    Of the batch that was under way at the end of each the sender does not know; it sends it again, and it too is stored once.
    """
    port = free_port()
    server = make_server(f'[sources.otlp]\ntype = "otlp"\nlisten = "127.0.0.1:{port}"\n[seal]\nroot_interval = "500ms"\n').start()
    stop = threading.Event()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    senders = [
        *(Sender(f"http-{n}", HttpExporter(f"{server.url}/v1/logs", headers=headers, timeout=5), stop) for n in range(2)),
        *(Sender(f"grpc-{n}", GrpcExporter(f"127.0.0.1:{port}", insecure=True, headers=KEY, timeout=5), stop) for n in range(2)),
    ]
    for sender in senders:
        sender.start()
    for _ in range(KILLS):
        goals = [sender.taken + 3 * BATCH for sender in senders]
        wait_for(lambda goals=goals: all(s.taken >= goal for s, goal in zip(senders, goals, strict=True)), "batches", 60)
        server.kill()
        server.start()
    stop.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()
    found: dict[str, list[int]] = {sender.name: [] for sender in senders}
    for name, number in stored(server):
        found[name].append(number)
    assert found == {sender.name: list(range(sender.taken)) for sender in senders}
    wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", 60, 1)


class Flood:
    """Many senders at once that do not send again; what became of each request, and of each record that was taken."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.statuses: Counter[str] = Counter()
        self.accepted: set[tuple[str, int]] = set()
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        floods = [(self.over_http, f"h{n}") for n in range(6)] + [(self.over_grpc, f"g{n}") for n in range(10)]
        self.threads = [threading.Thread(target=self._guarded, args=flood, daemon=True) for flood in floods]

    def over_http(self, name: str) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/x-protobuf"}
        with httpx.Client(base_url=self.server.url, headers=headers, timeout=60) as client:
            for number in range(REQUESTS):
                answer = client.post("/v1/logs", content=large_request(name, number).SerializeToString())
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                    assert Status.FromString(answer.content).details[0].Unpack(RetryInfo())
                else:
                    assert (answer.status_code, answer.content) == (200, b"")
                self._note("taken" if answer.status_code == 200 else "http 503", name, number)

    def over_grpc(self, name: str) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            for number in range(REQUESTS):
                try:
                    LogsServiceStub(channel).Export(large_request(name, number), metadata=KEY, timeout=60)
                except grpc.RpcError as error:
                    details: Any = error
                    assert details.code() is grpc.StatusCode.UNAVAILABLE
                    status = Status.FromString(dict(details.trailing_metadata())["grpc-status-details-bin"])
                    assert status.details[0].Unpack(RetryInfo())
                    self._note("grpc unavailable", name, number)
                else:
                    self._note("taken", name, number)

    def _guarded(self, flood: Callable[[str], None], name: str) -> None:
        try:
            flood(name)
        except BaseException as error:  # told by the test, which sees it here
            self.failures.append(error)

    def _note(self, status: str, name: str, number: int) -> None:
        with self._lock:
            self.statuses[status] += 1
            if status == "taken":
                self.accepted.update((name, number * RECORDS + n) for n in range(RECORDS))


def large_request(name: str, number: int) -> Any:
    records = [
        log_record({"sender": name, "number": number * RECORDS + n, "text": "x" * 40_000}, time_unix_nano=TIME_NS + n)
        for n in range(RECORDS)
    ]
    return log_request(*records, resource={"sender": name})


@pytest.mark.timeout(240)
def test_a_slow_disk_pushes_back_within_bounds(tmp_path: Path) -> None:
    """With syncs of 0.3 s and a queue of 1 MiB, floods over both are told to come again, each in its own words.

    What was accepted is stored, what was refused is not, and memory stays where it was, however many requests are refused.
    """
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_DISK)
    (tmp_path / "server").mkdir()
    port = free_port()
    configuration = (
        f'[sources.otlp]\ntype = "otlp"\nlisten = "127.0.0.1:{port}"\nwaiting = 4\ncalls = 2\n'
        '[journal]\nqueue = "1MiB"\n[limits]\nbody = "1MiB"\ndecompressed = "2MiB"\nbodies_in_flight = "6MiB"\n'
    )
    server = Server(tmp_path / "server", configuration, environment={"PYTHONPATH": str(tmp_path / "slow")}).start()
    try:
        before = peak = memory_of(server)
        flood = Flood(server, port)
        for thread in flood.threads:
            thread.start()
        while any(thread.is_alive() for thread in flood.threads):
            peak = max(peak, memory_of(server))
            time.sleep(0.05)
        assert flood.failures == []
        assert min(flood.statuses[name] for name in ("taken", "http 503", "grpc unavailable")) > 0, flood.statuses
        assert peak - before < 100 * 2**20, (before, peak)
        assert Counter(stored(server)) == Counter(flood.accepted)
    finally:
        server.close()


def memory_of(server: Server) -> int:
    """Resident bytes of the intake process."""
    assert server.process is not None
    for pid in children(server.process.pid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"intake" in command:
            status = Path(f"/proc/{pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0]) * 1024
    raise AssertionError("no intake process")
