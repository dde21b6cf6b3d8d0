"""Rows about other protocols' doors: records a second through one intake process, durable, and the CPU of each."""

from __future__ import annotations

import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.load import event, run_wrk
from bench.run import Run
from bench.server import HEADERS, Server, accepted, cpu_s, free_port, intake_pids, running, wait_for, wait_for_port
from bench.table import Row, least
from support.forward_client import ForwardClient, event_time, pack
from support.otlp import log_record, log_request

BATCH = 1_000
_CONNECTIONS = 4
_INSTANCE = "instance-0000000000000000"
_HEC_HEADERS = {"Authorization": HEADERS["Authorization"].replace("Bearer", "Splunk")}


def hec_line(number: int) -> dict[str, Any]:
    """A line of text, as a forwarder sends it."""
    text = f"Mar  4 10:00:00 web-{number % 20} sshd[{number}]: Accepted publickey for u_{number % 977} from 203.0.113.{number % 251} port 51044"
    head = {
        "time": 1772618400 + number / 1000,
        "host": f"web-{number % 20}",
        "source": "/var/log/auth.log",
        "sourcetype": "linux_secure",
    }
    return {**head, "event": text}


def hec_small(number: int) -> dict[str, Any]:
    """A small object."""
    inner = {
        "action": "user.login",
        "user": f"u_{number % 977}",
        "ip": f"203.0.113.{number % 251}",
        "message": "signed in with a security key",
    }
    return {"time": 1772618400 + number / 1000, "host": f"web-{number % 20}", "sourcetype": "_json", "event": inner}


def hec_large(number: int) -> dict[str, Any]:
    """The members of the benchmark's event, flat."""
    made: Any = event(number)
    inner = {"action": made["action"], "user": made["actor"]["id"], "email": made["actor"]["email"], "outcome": made["outcome"]}
    inner |= made["context"] | {"target": made["targets"][0], "note": made["metadata"]["note"], "amount": number, "ticket": "T-1"}
    return {"time": 1772618400 + number / 1000, "host": f"web-{number % 20}", "sourcetype": "_json", "event": inner}


def otlp_record(number: int) -> dict[str, Any]:
    """The attributes of a log record, as an application with the OpenTelemetry SDK sends it."""
    return {
        "event.name": "user.login",
        "enduser.id": f"u_{number % 977}",
        "client.address": f"203.0.113.{number % 251}",
        "http.route": "/login",
        "http.response.status_code": 200,
    }


def forward_record(number: int) -> dict[str, Any]:
    """A record of a container's log, as Fluent Bit sends it."""
    text = f"user u_{number % 977} signed in from 203.0.113.{number % 251} with a security key"
    return {"log": text, "stream": "stdout", "user": f"u_{number % 977}", "pod": f"web-{number % 20}", "level": "info"}


def syslog_line(number: int) -> bytes:
    """A message of RFC 5424 with structured data, in a frame of RFC 6587."""
    data = f'[auth@32473 user="u_{number % 977}" ip="203.0.113.{number % 251}"]'
    head = f"<86>1 2026-03-04T10:00:{number % 60:02d}.{number:06d}Z web-{number % 20} sshd {number} ID47 {data}"
    line = f"{head} Accepted publickey for u_{number % 977} from 203.0.113.{number % 251} port 51044".encode()
    return b"%d %b" % (len(line), line)


def run(run: Run) -> None:
    """Each row has a server of its own."""
    for name, make in (("lines of text", hec_line), ("small objects", hec_small), ("objects of 13 members", hec_large)):
        body = b"".join(json.dumps(make(number), separators=(",", ":")).encode() for number in range(BATCH))
        conditions = f"{len(body) // BATCH} B a record, batches of 1,000, 8 connections, mapping `generic`"
        _add(
            run,
            f"hec-{make.__name__}",
            f"Splunk HEC, {name}",
            60_000,
            conditions,
            _Http("/services/collector/event", body, _HEC_HEADERS),
        )
    resource = {"service.name": "shop", "host.name": "web-1", "service.instance.id": _INSTANCE}
    records = (log_record(f"u_{number % 977} signed in", otlp_record(number), severity_number=9) for number in range(BATCH))
    body = log_request(*records, resource=resource, scope="shop.audit").SerializeToString()
    headers = {"Authorization": HEADERS["Authorization"], "Content-Type": "application/x-protobuf"}
    conditions = f"{len(body) // BATCH} B a record, batches of 1,000, 8 connections"
    _add(run, "otlp-http", "OTLP over HTTP, protobuf", 60_000, conditions, _Http("/v1/logs", body, headers, _fresh(body)))
    blob = b"".join(pack([event_time(1772618400, number), forward_record(number)]) for number in range(BATCH))
    conditions = f"{len(blob) // BATCH} B a record, acknowledged chunks of 1,000 (PackedForward), 4 connections"
    _add(run, "forward", "Fluentd forward", 80_000, conditions, _Forward(blob))
    lines = b"".join(map(syslog_line, range(BATCH)))
    conditions = f"{len(lines) // BATCH} B a message of RFC 5424, 4 connections; senders get no answer: counted is what is durable"
    _add(run, "syslog-tcp", "syslog over TCP", 80_000, conditions, _Syslog(lines))


def _fresh(body: bytes) -> str:
    """For wrk: each request from another instance of the service, else all but the first would be repeats."""
    at = body.index(_INSTANCE.encode()) + len(_INSTANCE) - 16
    return f"""
local number = 0
function request()
  number = number + 1
  local made = string.format("%09d%07d", os.time() % 1000000000, number)
  return wrk.format(nil, nil, nil, bodies[1]:sub(1, {at}) .. made .. bodies[1]:sub({at + 17}))
end
"""


class _Http:
    """Batches by wrk."""

    configuration = ""

    def __init__(self, path: str, body: bytes, headers: dict[str, str], functions: str = "") -> None:
        self._path = path
        self._body = body
        self._headers = headers
        self._functions = functions

    def load(self, run: Run, server: Server, seconds: float) -> None:
        rate = run_wrk(
            server.url + self._path,
            self._body,
            self._headers,
            run.directory,
            connections=8,
            seconds=seconds,
            functions=self._functions,
        )
        if rate.errors:
            raise RuntimeError(f"{rate.errors} requests were not answered with 200")


class _Stream:
    """A source that listens by itself, and connections that send to it."""

    def __init__(self, kind: str, more: str = "") -> None:
        self.port = free_port()
        self.configuration = f'[sources.bench]\ntype = "{kind}"\nlisten = "127.0.0.1:{self.port}"\n{more}'

    def send(self, deadline: float) -> int:
        """Send on one connection until then; the number of batches."""
        raise NotImplementedError

    def load(self, run: Run, server: Server, seconds: float) -> None:
        """Until all that was sent is durable."""
        before, deadline = accepted(server), time.monotonic() + seconds
        wait_for_port(self.port)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            sent = sum(pool.map(self.send, [deadline] * _CONNECTIONS)) * BATCH
        wait_for(lambda: accepted(server) - before >= sent, f"{sent} records to be durable", 120, 0.05)


class _Forward(_Stream):
    def __init__(self, blob: bytes) -> None:
        super().__init__("forward")
        self._blob = blob

    def send(self, deadline: float) -> int:
        sent = 0
        with ForwardClient(("127.0.0.1", self.port), 60) as client:
            while time.monotonic() < deadline:
                chunk = uuid.uuid4().hex
                client.send(pack(["app.login", self._blob, {"size": BATCH, "chunk": chunk}]))
                if client.ack() != chunk:
                    raise RuntimeError("another chunk was acknowledged")
                sent += 1
        return sent


class _Syslog(_Stream):
    def __init__(self, lines: bytes) -> None:
        super().__init__("syslog", 'transport = ["tcp"]\n')
        self._lines = lines

    def send(self, deadline: float) -> int:
        sent = 0
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            while time.monotonic() < deadline:
                connection.sendall(self._lines)
                sent += 1
        return sent


def _add(run: Run, key: str, what: str, must: int, conditions: str, sender: _Http | _Stream) -> None:
    """One row: the CPU time of the intake process for each record that became durable."""
    with running(run.scratch(key), sender.configuration) as server:
        sender.load(run, server, 2)
        pids = intake_pids(server)
        before, used, begin = accepted(server), sum(map(cpu_s, pids)), time.monotonic()
        sender.load(run, server, run.seconds)
        count, spent, took = accepted(server) - before, sum(map(cpu_s, pids)) - used, time.monotonic() - begin
    cpu_us = spent / max(count, 1) * 1e6
    run.add(
        Row(
            key,
            what,
            f"{cpu_us:.1f} µs of CPU a record: {1e6 / cpu_us:,.0f}/s on one core",
            1e6 / cpu_us,
            f"{count / took:,.0f}/s beside load generator and followers",
            least(must),
            None,
            f"{conditions}, all durable; CPU of the intake process",
        )
    )
