"""Harnesses of the destinations that talk to a real server of somebody else's: a database, a broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from confluent_kafka import Consumer, Message, TopicPartition
from pyiceberg.catalog import load_catalog

from contract.destinations import Harness
from support import clickhouse, nats_server
from support.clickhouse import ClickHouse
from support.kafka_broker import KafkaBroker
from support.nats_server import NatsServer
from support.postgres import PASSWORD, Postgres
from support.server import free_port
from tallystick.config import Duration
from tallystick.destinations.clickhouse import ClickHouseDestination, ClickHouseSettings
from tallystick.destinations.iceberg import IcebergDestination, IcebergSettings
from tallystick.destinations.kafka import KafkaDestination, KafkaDestinationSettings
from tallystick.destinations.nats import NatsDestination, NatsDestinationSettings
from tallystick.destinations.postgresql import PostgresqlDestination, PostgresqlSettings
from tallystick.plugin import Destination

T = TypeVar("T")

SERVERS = {
    "postgresql": "postgres",
    "clickhouse": "clickhouse",
    "iceberg": "tmp_path",
    "kafka": "kafka_broker",
    "nats": "nats_server",
}
"""Kind → the fixture that has its server."""


class ServerHarness(Harness):
    """Its settings can be written down, for a process of its own."""

    def settings(self, **changes: Any) -> Any:
        raise NotImplementedError

    def table(self) -> str:
        """The settings as a configuration has them."""
        settings = self.settings()
        values = {name: getattr(settings, name) for name in self.named}
        return "".join(f"{name} = {json.dumps(getattr(value, 'text', value))}\n" for name, value in values.items())

    named: tuple[str, ...] = ()


class PostgresqlHarness(ServerHarness):
    kind = "postgresql"
    named = ("database", "user", "password", "port")

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.database = postgres.new_database()

    def settings(self, **changes: Any) -> PostgresqlSettings:
        login = {"database": self.database, "user": "admin", "password": PASSWORD, "port": self.postgres.port}
        return PostgresqlSettings(**(login | {"timeout": Duration("10s")} | changes))

    def make(self) -> PostgresqlDestination:
        return PostgresqlDestination("d", self.settings())

    def ids(self) -> list[str]:
        rows = self.postgres.run('SELECT id FROM tallystick_events ORDER BY tenant, "index"', database=self.database)
        return [row[0] for row in rows]

    def content(self) -> dict[str, Any]:
        rows = self.postgres.run("SELECT id, row::text FROM tallystick_events row", database=self.database)
        return {row[0]: row[1] for row in rows}

    def remove(self, event_id: str) -> None:
        self.postgres.run(f"DELETE FROM tallystick_events WHERE id = '{event_id}'", database=self.database)

    def add_stranger(self) -> list[int]:
        change = """UPDATE row SET "index" = 3, id = 'stranger'; INSERT INTO tallystick_events SELECT * FROM row"""
        copy = "CREATE TABLE row AS SELECT * FROM tallystick_events LIMIT 1"
        self.postgres.run(copy, *change.split("; "), "DROP TABLE row", database=self.database)
        return [3]

    def alter(self, event_id: str) -> None:
        self.postgres.run(f"UPDATE tallystick_events SET actor_id = 'nobody' WHERE id = '{event_id}'", database=self.database)

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = free_port()
        yield lambda: PostgresqlDestination("d", self.settings(port=dead))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: PostgresqlDestination("d", self.settings(password="another"))


class ClickHouseHarness(ServerHarness):
    kind = "clickhouse"
    named = ("url", "database", "user", "password", "allow_private")

    def __init__(self, server: ClickHouse) -> None:
        self.server = server
        self.database = server.new_database()

    def settings(self, **changes: Any) -> ClickHouseSettings:
        login = {"url": self.server.url, "database": self.database, "user": clickhouse.USER, "password": clickhouse.PASSWORD}
        return ClickHouseSettings(**(login | {"allow_private": True} | changes))

    def make(self) -> ClickHouseDestination:
        return ClickHouseDestination("d", self.settings())

    def ids(self) -> list[str]:
        rows = self.server.run("SELECT id FROM tallystick_events ORDER BY tenant, `index`", self.database)
        return [row[0] for row in rows]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = f"http://127.0.0.1:{free_port()}"
        yield lambda: ClickHouseDestination("d", self.settings(url=dead))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: ClickHouseDestination("d", self.settings(password="another"))


class IcebergHarness(ServerHarness):
    """A SQL catalog in SQLite and a warehouse in a directory: no server, but files of somebody else's form."""

    kind = "iceberg"

    def __init__(self, directory: Path) -> None:
        self.warehouse = directory / "warehouse"
        self.warehouse.mkdir()
        self.catalog = {"type": "sql", "uri": f"sqlite:///{directory}/catalog.sqlite", "warehouse": str(self.warehouse)}

    def settings(self, **changes: Any) -> IcebergSettings:
        return IcebergSettings(**({"catalog": self.catalog} | changes))

    def table(self) -> str:
        return "catalog = { " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.catalog.items()) + " }\n"

    def make(self) -> IcebergDestination:
        return IcebergDestination("d", self.settings())

    def rows(self) -> list[dict[str, Any]]:
        """What DuckDB reads in the data files of the table's current state."""
        files = [
            task.file.file_path
            for task in load_catalog("default", **self.catalog).load_table("audit.tallystick_events").scan().plan_files()
        ]
        times = "epoch_us(occurred_at) AS occurred_at, epoch_us(received_at) AS received_at"
        found = duckdb.sql(f"SELECT * REPLACE ({times}) FROM read_parquet(?) ORDER BY tenant, index", params=[files])
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows()]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        away = {"uri": f"sqlite:///{self.warehouse}/away/catalog.sqlite"}
        yield lambda: IcebergDestination("d", self.settings(catalog=self.catalog | away))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: IcebergDestination("d", self.settings(create=False, table="audit.nowhere"))


class KafkaHarness(ServerHarness):
    kind = "kafka"
    named = ("topic", "servers")

    def __init__(self, broker: KafkaBroker, partitions: int = 1) -> None:
        self.broker = broker
        self.topic = broker.new_topic(partitions)

    def settings(self, **changes: Any) -> KafkaDestinationSettings:
        return KafkaDestinationSettings(**({"topic": self.topic, "servers": (self.broker.address,)} | changes))

    def make(self) -> KafkaDestination:
        return KafkaDestination("d", self.settings())

    def records(self) -> list[Message]:
        """What a reader of committed records gets, partition by partition."""
        options = {"group.id": "check", "isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({"bootstrap.servers": self.broker.address, "auto.offset.reset": "earliest", **options})
        partitions = sorted(consumer.list_topics(self.topic, timeout=10).topics[self.topic].partitions)
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in partitions])
        found: list[Message] = []
        left = len(partitions)
        while left:
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    found.append(message)
                else:
                    left -= 1
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def ids(self) -> list[str]:
        return [json.loads(message.value())["id"] for message in self.records()]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = f"127.0.0.1:{free_port()}"
        yield lambda: KafkaDestination("d", self.settings(servers=(dead,), timeout=Duration("1s")))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: KafkaDestination("d", self.settings(topic="no-such-topic"))


class NatsHarness(ServerHarness):
    kind = "nats"
    named = ("stream", "subject", "servers", "user", "password", "timeout")

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.timeout = Duration("10s")
        self.stream = f"S{uuid.uuid4().hex[:10]}"
        self.config = {"name": self.stream, "subjects": [f"{self.stream}.>"], "duplicate_window": 10.0}
        self.talk(lambda client: client.jsm().add_stream(**self.config))

    def shorten_window(self) -> None:
        """A duplicate window that is over before a process has started again: reading back must do."""
        self.timeout = Duration("300ms")
        self.talk(lambda client: client.jsm().update_stream(**self.config | {"duplicate_window": 0.3}))

    def table(self) -> str:
        self.shorten_window()
        return super().table()

    def talk(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run ``work(client)`` in a loop and thread of its own."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self.server.talk, work, user=nats_server.USER, password=nats_server.PASSWORD).result()

    def settings(self, **changes: Any) -> NatsDestinationSettings:
        login = {"servers": (self.server.url,), "user": nats_server.USER, "password": nats_server.PASSWORD}
        own = {"stream": self.stream, "subject": f"{self.stream}.{{tenant}}", "timeout": self.timeout}
        return NatsDestinationSettings(**(login | own | changes))

    def make(self) -> NatsDestination:
        return NatsDestination("d", self.settings())

    def messages(self) -> list[Any]:
        async def read(client: Any) -> list[Any]:
            state = (await client.jsm().stream_info(self.stream)).state
            return [await client.jsm().get_msg(self.stream, seq) for seq in range(max(1, state.first_seq), state.last_seq + 1)]

        return self.talk(read)

    def ids(self) -> list[str]:
        return [json.loads(message.data)["id"] for message in self.messages()]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = f"nats://127.0.0.1:{free_port()}"
        yield lambda: NatsDestination("d", self.settings(servers=(dead,)))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: NatsDestination("d", self.settings(stream="NONE"))


HARNESSES: dict[str, Callable[[Any], ServerHarness]] = {
    "postgresql": PostgresqlHarness,
    "clickhouse": ClickHouseHarness,
    "iceberg": IcebergHarness,
    "kafka": KafkaHarness,
    "nats": NatsHarness,
}


def make_server_harness(kind: str, directory: Path, server: Any) -> ServerHarness:
    """The harness of a kind in `SERVERS`; each has a database, topic or stream of its own."""
    return HARNESSES[kind](server)
