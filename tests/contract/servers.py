"""Harnesses of the destinations that talk to a real server of somebody else's: a database, a broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from contract.destinations import Harness
from support.kafka_broker import KafkaBroker
from support.postgres import PASSWORD, Postgres
from support.server import free_port
from tallystick.config import Duration
from tallystick.destinations.kafka import KafkaDestination, KafkaDestinationSettings
from tallystick.destinations.postgresql import PostgresqlDestination, PostgresqlSettings
from tallystick.plugin import Destination

SERVERS = {"postgresql": "postgres", "kafka": "kafka_broker"}
"""Kind → the fixture that has its server."""


class ServerHarness(Harness):
    """Its settings can be written down, for a process of its own."""

    def settings(self, **changes: Any) -> Any:
        raise NotImplementedError

    def plain_settings(self) -> dict[str, Any]:
        """The settings as a configuration has them."""
        settings = self.settings()
        return {name: getattr(settings, name) for name in self.named}

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

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = free_port()
        yield lambda: PostgresqlDestination("d", self.settings(port=dead))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: PostgresqlDestination("d", self.settings(password="another"))


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


HARNESSES: dict[str, Callable[[Any], ServerHarness]] = {"postgresql": PostgresqlHarness, "kafka": KafkaHarness}


def make_server_harness(kind: str, directory: Path, server: Any) -> ServerHarness:
    """The harness of a kind in `SERVERS`; each has a database, topic or stream of its own."""
    return HARNESSES[kind](server)
