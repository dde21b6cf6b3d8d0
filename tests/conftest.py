"""Fixtures that every suite may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.clickhouse import ClickHouse
from support.go import build_verifier
from support.kafka_broker import KafkaBroker
from support.moto import S3Server, run_s3_server
from support.nats_server import LOGINS, NatsServer
from support.postgres import Postgres
from support.server import Server

# The gate says the same of the same code each time; a bare `pytest` and `make fuzz` look for what nobody has tried yet.
settings.register_profile("gate", derandomize=True)
settings.register_profile("fuzz", max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Make servers with a configuration; all are stopped at the end."""
    made: list[Server] = []

    def make(configuration: str = "") -> Server:
        directory = tmp_path / f"server-{len(made)}"
        directory.mkdir()
        made.append(Server(directory, configuration))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3 server as its own process, one for the whole run."""
    with run_s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A Kafka broker as its own process, one for the whole run."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka")).format()
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with a login as its own process, one for the whole run."""
    server = NatsServer(tmp_path_factory.mktemp("nats"), LOGINS)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster of its own, one for the whole run."""
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A ClickHouse server as its own process, one for the whole run."""
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go's verifier, built once."""
    return build_verifier(tmp_path_factory.mktemp("go"))
