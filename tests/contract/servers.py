"""Harnesses of the destinations that talk to a real server of somebody else's: a database, a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.destinations import Harness
from support.postgres import PASSWORD, Postgres
from support.server import free_port
from tallystick.config import Duration
from tallystick.destinations.postgresql import PostgresqlDestination, PostgresqlSettings
from tallystick.plugin import Destination

SERVERS = {"postgresql": "postgres"}
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


def make_server_harness(kind: str, directory: Path, server: Any) -> ServerHarness:
    """The harness of a kind in `SERVERS`; each has a database, topic or stream of its own."""
    return PostgresqlHarness(server)
