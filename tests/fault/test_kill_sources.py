"""kill -9 of the server while every source is at work, at each point of a record's way: the table source × kill point × result."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fault.conftest import MakeServer
from support import source_feeds, vendors
from support.faults import goes_red, needs_strace, pids, role_pid, standin, wait_intake, wait_until
from support.kafka_broker import KafkaBroker
from support.ledger import OURS, LedgerError
from support.moto import S3Server
from support.nats_server import NatsServer
from support.postgres import Postgres
from support.server import ADMIN_KEY, Server, wait_for
from support.source_clients import CHANNEL, CONFIGURATION, FORWARDERS, OPENTELEMETRY
from support.source_feeds import Feed
from support.source_ledger import Sender, SourceLedger
from support.trace import strace

Note = Callable[[str, int, str], None]
Rows = list[tuple[str, str, str]]
Cells = Callable[[Rows], None]
POINTS = {
    "at random": "",
    "in the journal's write": "pwrite64:signal=KILL:when=2",
    "before the sync returns": "fdatasync:signal=KILL:when=2",
    "while answers are written": "write,writev,sendto,sendmsg:signal=KILL:when=30",
}
KEEPING_ITS_PLACE = {"while a place is saved": "rename:signal=KILL:when=2"}
"""Sources that read keep how far they are in a file, which a rename puts in place."""


def run_points(
    fault_server: MakeServer,
    seed: int,
    senders: Sequence[Sender] = FORWARDERS,
    tables: str = "",
    points: dict[str, str] = POINTS,
    **environment: str,
) -> Rows:
    """All senders at once; one kill at each point, after every source had records accepted. The judged table."""
    server = fault_server(CONFIGURATION + tables, environment=environment).start(wait=False)
    wait_intake(server)
    ledger = SourceLedger(senders, list(points), next(iter(points)))
    chance = random.Random(seed)
    with ledger.load(server, seed):
        for number, (point, fault) in enumerate(points.items()):
            ledger.point = point
            wait_until(partial(_is_at_work, ledger, point), f"every source to be at work: {ledger.odd}")
            _kill(server, fault, chance)
            wait_intake(server)
            ledger.point = list(points)[min(number + 1, len(points) - 1)]
    return _judge(server, ledger)


def _is_at_work(ledger: SourceLedger, point: str) -> bool:
    accepted = ledger.accepted(point)
    return all(accepted.get(sender.name, 0) >= 20 for sender in ledger.senders)


def _kill(server: Server, fault: str, chance: random.Random) -> None:
    if not fault:
        time.sleep(chance.uniform(0, 0.5))
        server.kill()
        server.start(wait=False)
        return
    pid = role_pid(server, "intake")
    with strace([pid], "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"):
        wait_until(partial(_is_gone, server, pid), f"{fault} to kill the intake")


def _is_gone(server: Server, pid: int) -> bool:
    return pid not in pids(server)


def _judge(server: Server, ledger: SourceLedger) -> Rows:
    server.wait_api()
    missing: dict[str, int] = {}

    def is_all_there() -> bool:
        missing.clear()
        missing.update(ledger.missing(_exported(server)))
        return not missing

    try:
        wait_for(is_all_there, "everything that was accepted to be in the export", 120, 0.5)
    except AssertionError as error:
        raise LedgerError(f"{error}: {missing} are missing; {server.status()['sources']}") from None
    table = ledger.judge(_exported(server))
    _check_acknowledgements(server, ledger)
    server.stop()
    server.verify()
    return table


def _check_acknowledgements(server: Server, ledger: SourceLedger) -> None:
    """Ids that were given out are known and true, over all kills."""
    if not any(sender.name == "hec_without_ids" for sender in ledger.senders):
        return
    asked = server.http.post(
        f"/services/collector/ack?channel={CHANNEL}", json={"acks": ledger.acks}, headers={"Authorization": f"Splunk {ADMIN_KEY}"}
    )
    known = asked.json()["acks"]
    if not ledger.acks or not all(known.values()):
        raise LedgerError(f"{len(ledger.acks)} acknowledgement ids, not all of them known after the kills")


def _exported(server: Server) -> list[dict[str, Any]]:
    with server.http.stream("GET", "/v1/export", params={"query": OURS}, timeout=300) as answer:
        return [json.loads(line) for line in answer.iter_lines() if line]


def _is_full(table: Rows, senders: Sequence[Sender], points: dict[str, str]) -> bool:
    return {(source, point) for source, point, _ in table} == {(sender.name, point) for sender in senders for point in points}


@needs_strace
@pytest.mark.timeout(600)
def test_each_source_survives_each_kill(fault_server: MakeServer, note: Note, cells: Cells) -> None:
    """Nothing accepted is lost, repeats are merged where an id allows, acknowledgements given out stay true; no cell is empty."""
    table = run_points(fault_server, seed=20264)
    cells(table)
    assert _is_full(table, FORWARDERS, POINTS)
    note(
        "kill -9 while HEC, Kubernetes webhook and signed hooks send",
        len(POINTS),
        f"{len(table)} cells of docs/kills.md, none lost",
    )


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_each_source_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that answers before it writes is caught by the same suite."""
    with goes_red():
        run_points(fault_server, seed=20265, **standin("early_answer"))
    note("kill -9 while HEC and hooks send, stand-in `early_answer`", len(POINTS), "goes red")


@contextmanager
def every_feed(directory: Path, kafka: KafkaBroker, postgres: Postgres, s3: S3Server) -> Iterator[list[Feed]]:
    """Sockets, files, three brokers, a database and a vendor's API, and no slot that is left behind."""
    with ExitStack() as stack:
        okta = stack.enter_context(vendors.serve(vendors.okta))
        nats = NatsServer(directory / "nats").start()
        stack.callback(nats.close)
        slot = f"kills_{time.time_ns()}"
        stack.callback(drop_slot, postgres, slot)
        yield [
            source_feeds.forward(),
            source_feeds.otlp_grpc(),
            source_feeds.syslog(),
            source_feeds.file(directory / "app.log"),
            source_feeds.kafka(kafka),
            source_feeds.nats(nats),
            source_feeds.s3(s3),
            source_feeds.postgresql(postgres, slot),
            source_feeds.pull(okta),
        ]


def drop_slot(postgres: Postgres, slot: str) -> None:
    """As soon as nobody reads it."""
    used = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
    wait_for(lambda: not postgres.run(used), "the slot to be let go")
    postgres.run(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}'")


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_every_source_survives_each_kill(
    fault_server: MakeServer,
    note: Note,
    cells: Cells,
    tmp_path: Path,
    kafka_broker: KafkaBroker,
    postgres: Postgres,
    s3_server: S3Server,
) -> None:
    """The other protocols, and whatever is read: file, Kafka, NATS, S3, PostgreSQL and a vendor's pages, all at the same time."""
    points = POINTS | KEEPING_ITS_PLACE
    with every_feed(tmp_path, kafka_broker, postgres, s3_server) as feeds:
        senders = [*OPENTELEMETRY, *(sender for _, sender in feeds)]
        tables = "".join(table for table, _ in feeds)
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        try:
            table = run_points(fault_server, 20266, senders, tables, points, **keys)
        finally:
            fault_server.end()
    cells(table)
    assert _is_full(table, senders, points)
    note("kill -9 while all other sources are at work", len(points), f"{len(table)} cells of docs/kills.md, none lost")
