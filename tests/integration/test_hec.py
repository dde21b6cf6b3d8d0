"""Clients of Splunk's that are not ours against a real server."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from splunk_handler import SplunkHandler

from support.ledger import OURS
from support.server import ADMIN_KEY, Server, wait_for

PAGE = (Path(__file__).parents[2] / "docs/sources/hec.md").read_text("utf-8")


def events(server: Server, tenant: str | None = None) -> list[dict[str, Any]]:
    params = {"query": OURS, "order": "asc", "limit": "1000"} | ({"tenant": tenant} if tenant else {})
    found: list[dict[str, Any]] = server.http.get("/v1/events", params=params).json()["events"]
    return found


def code_of(language: str) -> str:
    """The page's first block of code in that language."""
    block = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return block[1]


def run(server: Server, command: list[str], **environment: str) -> str:
    """Run a client with URL and key in its environment; what it printed."""
    full = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY, **environment}
    done = subprocess.run(command, env=full, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curl(server: Server, path: str, *arguments: str) -> Any:
    """One request by curl; the answer as JSON."""
    command = ["curl", "-sS", f"{server.url}/services/collector{path}", "-H", f"Authorization: Splunk {ADMIN_KEY}", *arguments]
    return json.loads(run(server, command))


def test_the_curl_lines_of_the_docs_run(make_server: Callable[[str], Server]) -> None:
    """As they stand there: an object, a text, and a raw line."""
    server = make_server("").start()
    assert run(server, ["sh", "-c", code_of("sh")]).count('{"text":"Success","code":0}') == 2
    first, second, third = events(server)
    assert (first["action"], first["actor"]["id"], first["context"]["ip"]) == ("user.login", "u_17", "203.0.113.7")
    assert first["occurred_at"] == "2026-03-04T10:00:00.500000Z"
    assert (second["actor"]["id"], second["metadata"]["message"]) == ("web-1", "session closed for u_17")
    assert third["metadata"]["hec"] == {"host": "web-2", "sourcetype": "linux_secure"}


def test_the_logging_example_of_the_docs_runs(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """In an interpreter of its own; what is JSON in a text becomes members."""
    server = make_server("").start()
    script = tmp_path / "example.py"
    script.write_text(code_of("python"))
    assert "Exception" not in run(server, [sys.executable, str(script)])
    first, second = events(server)
    assert (first["action"], first["actor"]["id"], first["metadata"]["invoice"]) == ("invoice.approve", "u_17", 7)
    assert second["metadata"]["message"] == "invoice 8 refused"
    assert second["metadata"]["hec"]["index"] == "main"


def test_the_configuration_of_the_docs_is_accepted(make_server: Callable[[str], Server]) -> None:
    """And the further source answers below its own name, with its mapping and tenant."""
    toml = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
    server = make_server(toml).start()
    record = {"action": "repo.create", "actor": "cat", "@timestamp": 1772618400000, "_document_id": "d1"}
    command = ["curl", "-sS", f"{server.url}/v1/in/github/services/collector", "-H", f"Authorization: Splunk {ADMIN_KEY}"]
    for _ in range(2):
        assert run(server, [*command, "-d", json.dumps({"event": record})]) == '{"text":"Success","code":0}'
    assert [event["action"] for event in events(server, "acme")] == ["repo.create"]


@pytest.fixture
def handlers() -> Iterator[list[SplunkHandler]]:
    """Handlers that are closed at the end, so that none speaks to a server that is gone."""
    made: list[SplunkHandler] = []
    yield made
    for handler in made:
        handler.close()


def test_a_logging_handler_loses_nothing(make_server: Callable[[str], Server], handlers: list[SplunkHandler]) -> None:
    """Five hundred lines with texts of every kind, in the batches that the library makes."""
    server = make_server("").start()
    handler = SplunkHandler(
        "127.0.0.1", server.port, ADMIN_KEY, "main", protocol="http", verify=False, flush_interval=0.2, retry_count=0
    )
    handlers.append(handler)
    logger = logging.getLogger("hec-test")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    lines = [f'{number} }}{{ "quoted" \\ é ☃ {{"n":1.50}}' for number in range(500)]
    for line in lines:
        logger.info(line)
    wait_for(lambda: len(events(server)) == 500, "all lines to arrive")
    assert sorted(event["metadata"]["message"] for event in events(server)) == sorted(lines)


def test_acknowledgements_outlive_a_crash(make_server: Callable[[str], Server]) -> None:
    """An id that was given out before kill -9 is true after it; another channel and an invented id are not."""
    server = make_server("").start()
    channel = str(uuid.uuid4())
    header = ("-H", f"X-Splunk-Request-Channel: {channel}")
    given_out = [curl(server, "/event", *header, "-d", '{"event":"a"}')["ackId"] for _ in range(3)]
    server.kill()
    server.start()
    asked = ("-d", json.dumps({"acks": [*given_out, 1]}))
    assert curl(server, "/ack", *header, *asked) == {"acks": {**{str(ack): True for ack in given_out}, "1": False}}
    assert not any(curl(server, f"/ack?channel={uuid.uuid4()}", *asked)["acks"].values())
    assert len(events(server)) == 3


def test_health_and_refusals_by_curl(make_server: Callable[[str], Server]) -> None:
    """The collector's own codes on a real socket; what the listener refuses before there is a door is a problem document."""
    server = make_server('[limits]\nbody = "64KiB"\ndecompressed = "64KiB"\n').start()
    assert json.loads(run(server, ["curl", "-sS", f"{server.url}/services/collector/health"]))["code"] == 17
    assert curl(server, "/event", "-d", '{"event":"a"}{"event":""}') == {
        "text": "Event field cannot be blank",
        "code": 13,
        "invalid-event-number": 1,
    }
    assert curl(server, "/event", "-H", "Expect:", "--data-binary", "x" * 70_000)["code"] == "body_too_large"
    assert events(server) == []
