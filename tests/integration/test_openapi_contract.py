"""Schemathesis over the server's own OpenAPI document: what it says is what it does, with good and with bad data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import ADMIN_KEY, Server, wait_for

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
ENDLESS = "/v1/tail"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with a tenant, a few events, a source and a destination."""
    made = Server(
        tmp_path,
        '[sources.github]\ntype = "http"\nmapping = "github_audit"\ntenant = "acme"\n[destinations.disk]\ntype = "file"\npath = "out/events.jsonl"\n',
    )
    try:
        made.start()
        wait_for(lambda: made.http.get("/v1/limits").status_code == 200, "the api process")
        events = [{"id": f"e{number}", "tenant": "acme", "action": "user.login", "actor": "ana"} for number in range(20)]
        made.http.post("/v1/events", json=events).raise_for_status()
        yield made
    finally:
        made.close()


def test_no_5xx_and_nothing_undocumented(server: Server, tmp_path: Path) -> None:
    """Every operation but the endless tail, with generated data of both kinds; the server still answers afterwards."""
    command = [
        *(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{server.url}/openapi.json",
            "-H",
            f"Authorization: Bearer {ADMIN_KEY}",
        ),
        *(
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "8",
            "--checks",
            CHECKS,
            "--exclude-path",
            ENDLESS,
            "--no-color",
            "--seed",
            "1",
        ),
        *("--generation-database", "none", "--request-timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert "Selected:" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert server.http.get("/v1/limits").status_code == 200
