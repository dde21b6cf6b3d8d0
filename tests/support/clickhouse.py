"""A real ClickHouse of its own: a server with its files in a temporary directory, on a free port of the loopback interface."""

from __future__ import annotations

import subprocess
import urllib.request
import uuid
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote

from support.server import free_port, wait_for

USER, PASSWORD = "audit", "change-me"
_CONFIG = """<?xml version="1.0"?>
<yandex>
  <logger><level>warning</level><log>{dir}/log</log><errorlog>{dir}/errors</errorlog></logger>
  <http_port>{port}</http_port><listen_host>127.0.0.1</listen_host>
  <path>{dir}/data/</path><tmp_path>{dir}/tmp/</tmp_path><mark_cache_size>100000000</mark_cache_size>
  <users_config>{dir}/users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
</yandex>
"""
_USERS = """<?xml version="1.0"?>
<yandex>
  <profiles><default><max_memory_usage>1000000000</max_memory_usage></default></profiles>
  <users><{user}>
    <password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
  </{user}></users>
  <quotas><default/></quotas>
</yandex>
"""


class ClickHouse:
    """One server; ``url`` is its HTTP interface."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ClickHouse:
        (self.directory / "config.xml").write_text(_CONFIG.format(dir=self.directory, port=self.port))
        (self.directory / "users.xml").write_text(_USERS.format(user=USER, password=PASSWORD))
        with (self.directory / "stderr").open("ab") as stderr:
            command = ["clickhouse-server", f"--config-file={self.directory / 'config.xml'}"]
            self._process = subprocess.Popen(command, stdout=stderr, stderr=stderr, cwd=self.directory)
        wait_for(self._is_ready, "ClickHouse to be ready", 60)
        return self

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # what it has is thrown away
            self._process.wait(30)

    def run(self, statement: str, database: str = "default") -> list[list[str]]:
        """The rows of its answer, as texts with the format's escapes."""
        headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD}
        request = urllib.request.Request(f"{self.url}/?database={quote(database)}", statement.encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return [line.split("\t") for line in reply.read().decode().splitlines()]

    def new_database(self) -> str:
        name = f"d{uuid.uuid4().hex[:10]}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "stderr").read_text()
        try:
            self.run("SELECT 1")
        except URLError:
            return False
        return True
