"""Senders for `support.source_ledger` that are no HTTP clients: sockets of our own, and the brokers, databases and files that sources read.

Whatever a broker, a database, a bucket or a file holds counts as accepted: nobody but the server could lose it any more.
"""

from __future__ import annotations

import gzip
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from support.forward_client import ForwardClient, packed_forward
from support.kafka_broker import KafkaBroker
from support.moto import S3Server
from support.nats_server import NatsServer, publish
from support.otlp import log_record, log_request
from support.postgres import PASSWORD, Postgres
from support.server import ADMIN_KEY, Server, free_port
from support.source_ledger import Send, Sender, Sent
from support.vendors import Vendor

Feed = tuple[str, Sender]
"""The source's table for the configuration, and what feeds it."""

_PAUSE_S = 0.05
_ACCEPTED = Sent(is_accepted=True)


def forward() -> Feed:
    """One connection, one chunk after the other; a chunk without its acknowledgement is sent again under its name."""
    port = free_port()

    @contextmanager
    def opened(_: Server) -> Iterator[Send]:
        held: list[ForwardClient] = []

        def send(marks: list[str]) -> Sent:
            try:
                if not held:
                    held.append(ForwardClient(("127.0.0.1", port)))
            except OSError:
                return Sent()
            try:
                held[0].send(packed_forward("app", [(1_768_832_635, {"mark": mark}) for mark in marks], marks[0]))
                return Sent(is_accepted=held[0].ack() == marks[0])
            except OSError:
                held.pop().sock.close()
                return Sent(is_unanswered=True)

        yield send
        for client in held:
            client.sock.close()

    return f'[sources.forward]\ntype = "forward"\nlisten = "127.0.0.1:{port}"\n', Sender("forward", opened)


def otlp_grpc() -> Feed:
    """The collector's own service, over gRPC."""
    port = free_port()

    @contextmanager
    def opened(_: Server) -> Iterator[Send]:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
            stub = LogsServiceStub(channel)

            def send(marks: list[str]) -> Sent:
                request = log_request(*(log_record(mark) for mark in marks))
                try:
                    stub.Export(request, metadata=[("authorization", f"Bearer {ADMIN_KEY}")], timeout=30)
                except grpc.RpcError as error:
                    told: Any = error
                    is_told = told.code() is grpc.StatusCode.UNAVAILABLE and "grpc-status-details-bin" in dict(
                        told.trailing_metadata()
                    )
                    return Sent(is_unanswered=not is_told)
                return _ACCEPTED

            yield send

    return f'[sources.otlp]\ntype = "otlp"\nlisten = "127.0.0.1:{port}"\n', Sender("otlp_grpc", opened, merges=False)


def syslog() -> Feed:
    """RFC 5424 over TCP with octet counts. Nothing is acknowledged, and nothing is sent twice."""
    port = free_port()

    @contextmanager
    def opened(_: Server) -> Iterator[Send]:
        held: list[socket.socket] = []
        numbers = itertools.count(1)
        connection = next(numbers)

        def send(marks: list[str]) -> Sent:
            nonlocal connection
            try:
                if not held:
                    held.append(socket.create_connection(("127.0.0.1", port), 10))
                    connection = next(numbers)
            except OSError:
                return Sent()
            lines = [f"<34>1 2026-03-04T10:00:00Z web-1 app - - - {mark}".encode() for mark in marks]
            try:
                held[0].sendall(b"".join(b"%d %b" % (len(line), line) for line in lines))
            except OSError:
                held.pop().close()
            return Sent(is_accepted=True, connection=connection)

        yield send
        for sock in held:
            sock.close()

    table = f'[sources.syslog]\ntype = "syslog"\nlisten = "127.0.0.1:{port}"\ntransport = ["tcp"]\n'
    return table, Sender("syslog", opened, is_best_effort=True, pause_s=_PAUSE_S)


def file(path: Path) -> Feed:
    """Lines that are appended to one file."""

    def put(marks: list[str]) -> None:
        with path.open("ab") as log:
            log.write(b"".join(line + b"\n" for line in _events(marks)))

    return f'[sources.file]\ntype = "file"\npaths = ["{path}"]\npoll = "50ms"\n', _reader("file", put)


def kafka(broker: KafkaBroker) -> Feed:
    topic = broker.new_topic()
    table = (
        f'[sources.kafka]\ntype = "kafka"\nservers = ["{broker.address}"]\ntopics = ["{topic}"]\ngroup = "g-{topic}"\n'
        'mapping = "native"\nbatch_records = 20\nsession_timeout = "2s"\n'
    )
    return table, _reader("kafka", lambda marks: broker.send(topic, list(_events(marks))))


def nats(broker: NatsServer) -> Feed:
    """``broker`` has no stream yet."""
    broker.talk(lambda client: client.jsm().add_stream(name="KILLS", subjects=["kills.>"]))
    table = (
        f'[sources.nats]\ntype = "nats"\nservers = ["{broker.url}"]\nstream = "KILLS"\nmapping = "native"\n'
        'ack_wait = "2s"\nbatch_records = 20\n'
    )
    return table, _reader("nats", lambda marks: broker.talk(lambda client: publish(client, "kills.a", _events(marks))))


def s3(server: S3Server) -> Feed:
    """The server's environment needs moto's credentials."""
    bucket, client, keys = server.new_bucket(), server.client(), itertools.count()
    queue = server.new_queue(bucket)
    table = (
        f'[sources.s3]\ntype = "s3"\nqueue = "{queue}"\nregion = "us-east-1"\nendpoint = "{server.endpoint}"\nbuckets = ["{bucket}"]\n'
        'mapping = "native"\nvisibility = "2s"\nbatch_records = 20\n'
    )

    def put(marks: list[str]) -> None:
        client.put_object(Bucket=bucket, Key=f"log/{next(keys)}.jsonl.gz", Body=gzip.compress(b"\n".join(_events(marks))))

    return table, _reader("s3", put, pause_s=0.5)


def postgresql(cluster: Postgres, slot: str) -> Feed:
    """Rows of one table, read by logical decoding through ``slot``, which the caller drops."""
    database = cluster.new_database()
    cluster.run("CREATE TABLE kills (mark text PRIMARY KEY)", "CREATE PUBLICATION tallystick FOR TABLE kills", database=database)
    table = (
        f'[sources.postgresql]\ntype = "postgresql"\nport = {cluster.port}\ndatabase = "{database}"\nuser = "admin"\n'
        f'password = "{PASSWORD}"\nslot = "{slot}"\n'
    )

    def put(marks: list[str]) -> None:
        rows = ", ".join(f"('{mark}')" for mark in marks)
        cluster.run(f"INSERT INTO kills VALUES {rows}", database=database)

    return table, _reader("postgresql", put)


def pull(vendor: Vendor) -> Feed:
    """Okta's pages, whose records are numbered and carry no mark."""
    table = (
        f'[sources.pull]\ntype = "pull"\ndefinition = "okta"\nparameters = {{ domain = "acme.okta.com" }}\nauth = {{ token = "t" }}\n'
        f'base = "{vendor.base}"\nallow_private = true\ninterval = "200ms"\n'
    )

    def number_of(line: dict[str, Any]) -> int | None:
        return int(json.loads(line["raw"])["number"]) if line["source"]["name"] == "pull" else None

    return table, _reader("pull", lambda marks: vendor.add(len(marks), age_s=1), number_of, pause_s=0.5)


def _reader(
    name: str,
    put: Callable[[list[str]], Any],
    number_of: Callable[[dict[str, Any]], int | None] = lambda line: None,
    pause_s: float = _PAUSE_S,
) -> Sender:
    @contextmanager
    def opened(_: Server) -> Iterator[Send]:
        def send(marks: list[str]) -> Sent:
            put(marks)
            return _ACCEPTED

        yield send

    return Sender(name, opened, pause_s=pause_s, number_of=number_of)


def _events(marks: list[str]) -> list[bytes]:
    return [b'{"action":"invoice.approve","actor":"u_1","metadata":{"mark":"%b"}}' % mark.encode() for mark in marks]
