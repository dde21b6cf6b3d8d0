"""A real PostgreSQL of its own: a cluster in a temporary directory, run by an unprivileged user, on a free port of the loopback interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg2

from support.certificates import Authority
from support.server import free_port, wait_for

PASSWORD = "change-me"


class Postgres:
    """One cluster with ``wal_level = logical``, TLS and pgaudit. ``ca``: what its certificate comes from."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        assert found, "PostgreSQL is not installed: run tools/install-test-parts"
        self._bin = found[-1].parent
        self.port = free_port()
        # Not below pytest's directories: their owner is root, and PostgreSQL refuses to run as root.
        self.directory = Path(tempfile.mkdtemp(prefix="tallystick-postgres-"))
        self.log = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        authority = Authority(self.directory)
        authority.issue("server", "127.0.0.1")
        self.ca = authority.path
        (self.directory / "password").write_text(PASSWORD)
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            self._give()

    def _give(self) -> None:
        for path in (self.directory, *self.directory.rglob("*")):
            shutil.chown(path, "postgres", "postgres")

    def start(self) -> Postgres:
        data = self.directory / "data"
        if not data.exists():
            words = ["-D", data, "-U", "admin", "-A", "scram-sha-256", "--pwfile", self.directory / "password", "-E", "UTF8"]
            subprocess.run([self._bin / "initdb", "--no-sync", *words], check=True, capture_output=True, cwd="/", **self._as)
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "wal_level": "logical",
            "max_connections": 40, "shared_buffers": "32MB", "ssl": "on", "ssl_cert_file": self.directory / "server.pem",
            "ssl_key_file": self.directory / "server.key", "shared_preload_libraries": "pgaudit", "wal_sender_timeout": "4s",
            "logging_collector": "on", "log_directory": self.log, "log_destination": "csvlog,jsonlog", "log_filename": "postgresql.log",
            "log_timezone": "UTC", "log_connections": "on", "log_disconnections": "on",
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "stderr").open("ab") as stderr:
            command = [str(self._bin / "postgres"), "-D", str(data), *options]
            self._process = subprocess.Popen(command, stdout=stderr, stderr=stderr, stdin=subprocess.DEVNULL, cwd="/", **self._as)
        wait_for(self._is_ready, "PostgreSQL to be ready", 60)
        return self

    def close(self) -> None:
        """Fast shutdown."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(2)
            self._process.wait(30)

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.directory)

    def connect(self, database: str = "postgres", **options: Any) -> Any:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="admin", password=PASSWORD, dbname=database, connect_timeout=5, **options
        )
        connection.autocommit = True
        return connection

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Each in a transaction of its own; the rows of the last."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def new_database(self) -> str:
        name = f"d{uuid.uuid4().hex[:10]}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "stderr").read_text()
        try:
            self.run("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True
