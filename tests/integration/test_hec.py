"""Clients of Splunk's that are not ours against a real server."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from splunk_handler import SplunkHandler

from support.delivery import make_cut, make_line
from support.faults import needs_strace, role_pid
from support.ledger import OURS
from support.server import ADMIN_KEY, Server, wait_for
from support.trace import strace
from tallystick.config import Duration
from tallystick.destinations.splunk_hec import SplunkHecDestination, SplunkHecSettings
from tallystick.plugin import AnswerKind

TOKEN = {"Authorization": f"Splunk {ADMIN_KEY}"}
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


def test_hostile_bodies_are_refused_and_hold_up_nobody(make_server: Callable[[str], Server]) -> None:
    """Bombs, depth, borders without end and halves of objects: a 4xx in the collector's form, nothing stored, and the next is taken."""
    server = make_server('[limits]\nbody = "1MiB"\ndecompressed = "4MiB"\nbodies_in_flight = "8MiB"\nevents = 1000\n').start()
    bomb = gzip.compress(b'{"event":"' + b"x" * (64 << 20) + b'"}')
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (bomb, {"Content-Encoding": "gzip"}),
        (gzip.compress(b'{"event":"a"}')[:-4], {"Content-Encoding": "gzip"}),
        (b"[" * 200_000, {}),
        (b'{"event":' * 100_000, {}),
        (b'{"event":' + b"[" * 40_000 + b"]" * 40_000 + b"}" + b"{", {}),
        (b"}{" * 400_000, {}),
        (b"{}" * 400_000, {}),
        (b'{"event":"a"}' * 1_001, {}),
        (b'{"event":"' + b"}{" * 400_000, {}),
        (b'{"event":"a"}\n{"event"', {}),
        (b"\xff\xfe{\x00", {}),
    ]
    for body, headers in bodies:
        answer = httpx.post(f"{server.url}/services/collector", content=body, headers={**TOKEN, **headers}, timeout=60)
        assert 400 <= answer.status_code < 500, (body[:40], answer.text)
        assert {"text", "code"} <= set(answer.json()), answer.text
    deep = b'{"event":' + b"[" * 40 + b"]" * 40 + b"}"
    kept = httpx.post(f"{server.url}/services/collector", content=deep, headers=TOKEN).json()
    assert [bad["code"] for bad in kept["quarantined"]] == ["depth_exceeded"]
    assert httpx.post(f"{server.url}/services/collector", content=b'{"event":"a"}', headers=TOKEN).json()["code"] == 0
    assert [event["metadata"] for event in events(server)] == [{"message": "a"}]


@needs_strace
def test_a_slow_journal_pushes_the_sender_back(make_server: Callable[[str], Server]) -> None:
    """A tenant's full queue is code 9 with the time to wait; what was accepted is there, and memory stays within its bounds."""
    bounds = '[journal]\nqueue = "2MiB"\n[limits]\nbody = "1MiB"\ndecompressed = "2MiB"\nbodies_in_flight = "6MiB"\n'
    server = make_server(bounds).start()
    body = b"".join(b'{"event":{"user":"u_1","text":"%b"}}' % (b"%032d" % number * 16) for number in range(1_500))
    statuses: Counter[int] = Counter()
    stop, lock = threading.Event(), threading.Lock()

    def send() -> None:
        with httpx.Client(base_url=server.url, headers=TOKEN, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/services/collector", content=body)
                with lock:
                    statuses[answer.status_code] += 1
                if answer.status_code != 200:
                    assert (answer.json()["code"], int(answer.headers["retry-after"]) >= 1) == (9, True)

    pid = role_pid(server, "intake")
    threads = [threading.Thread(target=send) for _ in range(16)]
    with strace([pid], "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=1s"):
        for thread in threads:
            thread.start()
        wait_for(lambda: statuses[503] >= 30 and statuses[200] >= 4, f"pushback: {statuses}", 60)
        before = peak_mib(pid)
        wait_for(lambda: statuses[503] >= 120 and statuses[200] >= 8, f"more of it: {statuses}", 120)
        after = peak_mib(pid)
        stop.set()
        for thread in threads:
            thread.join(90)
    assert set(statuses) == {200, 503}
    assert before < 400
    assert after - before < 60, "memory grows with what is sent"
    assert server.status()["tenants"]["default"]["accepted"] == statuses[200] * 1_500


def peak_mib(pid: int) -> int:
    """The most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


async def test_our_own_destination_is_acknowledged(make_server: Callable[[str], Server]) -> None:
    """`splunk_hec` sends a cut here: it is delivered once its acknowledgement is true, and the events are there with their times."""
    server = make_server("").start()
    destination = SplunkHecDestination(
        "here", SplunkHecSettings(url=server.url, token=ADMIN_KEY, allow_private=True, ack_timeout=Duration("10s"))
    )
    assert (await destination.probe()).kind is AnswerKind.DELIVERED
    answer = await destination.send(make_cut(destination, [make_line(index) for index in range(3)]))
    await destination.close()
    assert (answer.kind, "ack " in answer.where) == (AnswerKind.DELIVERED, True)
    wait_for(lambda: len(events(server)) == 3, "three events")
    assert {event["occurred_at"] for event in events(server)} == {"2026-03-04T05:06:07.000000Z"}
