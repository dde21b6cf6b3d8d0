"""Peers in the same run: the same events, the same machine, the same disk, everything on that makes what they took durable.

Each is a function that gives a `Peer`: its rate, or why there is none. Nothing is left out silently.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import fluent_bit
from bench.load import run_wrk
from bench.run import Run
from bench.server import free_port, wait_for, wait_for_port

_TOOLS = Path(__file__).resolve().parents[1] / "tools"


@dataclass(frozen=True, slots=True)
class Peer:
    """``events_s`` is None where it was not measured; ``told`` says why, or how it was set up."""

    name: str
    version: str
    events_s: float | None
    told: str


def measure(run: Run, body: bytes, count: int) -> list[Peer]:
    """All peers, one after the other; ``body`` holds ``count`` events as NDJSON."""
    return [fluent(run, body, count), collector(run, body, count), rsyslog(run, body)]


def fluent(run: Run, body: bytes, count: int) -> Peer:
    """Fluent Bit, when ``$FLUENT_BIT`` names a binary."""
    rate = fluent_bit.rate(run.scratch("fluent-bit"), body, run.seconds)
    told = "http in, file out, storage.sync full, checksum on" if rate else "not measured: $FLUENT_BIT names no binary"
    return Peer("Fluent Bit", fluent_bit.version(), rate * count if rate else None, told)


_COLLECTOR = """
extensions:
  file_storage: {{directory: {directory}/queue, create_directory: true, fsync: true}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
  otlp/inner: {{protocols: {{http: {{endpoint: "127.0.0.1:{inner}"}}}}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{inner}
    compression: none
    sending_queue: {{storage: file_storage, queue_size: 100000, block_on_overflow: true}}
  file: {{path: {directory}/out.json}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_http]}}
    logs/inner: {{receivers: [otlp/inner], exporters: [file]}}
"""


def collector(run: Run, body: bytes, count: int) -> Peer:
    """The OpenTelemetry collector: OTLP over HTTP in, a sending queue in file storage with fsync, and from there a file.

    The file exporter has no queue of its own, so the queue belongs to an OTLP exporter whose other end is this same collector.
    """
    name = "OpenTelemetry collector"
    built = subprocess.run([str(_TOOLS / "build-otel-collector")], capture_output=True, text=True, check=False)
    if built.returncode:
        return Peer(name, "", None, f"not measured: it cannot be built here: {built.stderr.strip()[-200:]}")
    binary = built.stdout.strip().split("\n")[-1]
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    directory = run.scratch("otel-collector")
    port, inner = free_port(), free_port()
    configuration = directory / "collector.yaml"
    configuration.write_text(_COLLECTOR.format(directory=directory, port=port, inner=inner))
    with _process([binary, "--config", str(configuration)], directory / "log"):
        wait_for_port(port)
        wait_for_port(inner)
        url, headers = f"http://127.0.0.1:{port}/v1/logs", {"Content-Type": "application/x-protobuf"}
        rate = run_wrk(url, otlp_request(body), headers, directory, connections=8, seconds=run.seconds)
        if rate.errors:
            return Peer(name, version, None, f"not measured: {rate.errors} of its answers were errors")
    told = "OTLP/HTTP protobuf in, sending queue in file storage with fsync, file out"
    return Peer(name, version, rate.requests_s * count, told)


_RSYSLOG = """
global(workDirectory="{directory}")
module(load="imptcp" threads="1")
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="bench" queue.type="FixedArray" queue.size="50000" queue.dequeueBatchSize="1000" queue.workerThreads="1"
        queue.timeoutEnqueue="600000") {{
  action(type="omfile" file="{directory}/out.log" template="raw" sync="on" asyncWriting="off" flushOnTXEnd="on" ioBufferSize="1m")
}}
input(type="imptcp" address="127.0.0.1" port="{port}" ruleset="bench")
"""


def rsyslog(run: Run, body: bytes) -> Peer:
    """rsyslog: plain TCP in, and one file action that is synced after each batch of up to 1,000. TCP syslog answers nothing:
    its rate is what is in the file, from the first byte sent to the last byte there."""
    try:
        said = subprocess.run(["rsyslogd", "-v"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return Peer("rsyslog", "", None, "not measured: rsyslogd is not installed")
    directory = run.scratch("rsyslog")
    port = free_port()
    configuration = directory / "rsyslog.conf"
    configuration.write_text(_RSYSLOG.format(directory=directory, port=port))
    lines = body.split(b"\n")
    message = b"".join(b"<134>1 2026-03-04T10:00:00.000000Z host app - - - " + line + b"\n" for line in lines)
    out = directory / "out.log"
    with _process(["rsyslogd", "-n", "-f", str(configuration), "-i", str(directory / "pid")], directory / "log"):
        wait_for_port(port)
        begin, sent = time.monotonic(), 0
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while time.monotonic() < begin + run.seconds:
                connection.sendall(message)
                sent += 1
        wait_for(lambda: out.exists() and out.stat().st_size >= sent * len(message), "rsyslog to write what it was sent", 120, 0.02)
        took = time.monotonic() - begin
    events_s = sent * len(lines) / took
    return Peer(
        "rsyslog", said.split()[1], events_s, 'imptcp in, omfile with sync="on", batches of up to 1,000; senders get no answer'
    )


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def otlp_request(body: bytes) -> bytes:
    """An ExportLogsServiceRequest with one log record a line, as protobuf."""
    records = b"".join(
        _field(2, struct.pack("<BQ", 9, 1_772_618_400_000_000_000) + _field(5, _field(1, line))) for line in body.split(b"\n")
    )
    return _field(1, _field(2, records))


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
