"""Clients of the forward protocol that are not ours, for Python and Node.js, against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fluent import asyncsender, sender

from support.certificates import Authority
from support.delivery import make_cut, make_line
from support.forward_client import ForwardClient, event_time, packed_forward
from support.ledger import OURS
from support.server import Server, wait_for
from tallystick.destinations.forward import ForwardDestination, ForwardSettings
from tallystick.plugin import AnswerKind
from tallystick.sources.remote import RemoteTlsSettings

PAGE = (Path(__file__).parents[2] / "docs/sources/forward.md").read_text("utf-8")
NODE = Path(__file__).parents[1] / "support/node"
KEY = "a shared key of the integration tests"
TABLES = """
[sources.open]
type = "forward"
listen = "127.0.0.1:0"
[sources.closed]
type = "forward"
listen = "127.0.0.1:0"
tls = {{ cert = "{0}/server.pem", key = "{0}/server.key" }}
shared_key = {{ env = "FORWARD_KEY" }}
hostname = "audit.example.com"
users.edge = {{ password = {{ env = "EDGE_PASSWORD" }}, tenant = "acme" }}
[sources.keyed]
type = "forward"
listen = "127.0.0.1:0"
shared_key = {{ env = "FORWARD_KEY" }}
tenant = "keyed"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forward")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    """One server with an open source, one with a key, and one with TLS, key and user."""
    Authority(place).issue("server", "localhost", "127.0.0.1")
    made = Server(place, TABLES.format(place), environment={"FORWARD_KEY": KEY, "EDGE_PASSWORD": "swordfish"}).start()
    yield made
    made.close()


def port_of(server: Server, source: str) -> int:
    return int(str(server.status()["sources"][source]["listen"]).rpartition(":")[2])


def events(server: Server, tenant: str, query: str) -> list[dict[str, Any]]:
    params = {"query": f"{query} AND {OURS}", "order": "asc", "limit": "1000", "tenant": tenant}
    return list(server.http.get("/v1/events", params=params).json().get("events", []))


def wait_events(server: Server, tenant: str, query: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = wait_for(
        lambda: found if len(found := events(server, tenant, query)) >= count else None, f"{count} events of {query}"
    )
    assert len(found) == count
    return found


def run_node(options: dict[str, Any], count: int, first: int = 0, **more: Any) -> dict[str, Any]:
    request = json.dumps(
        {"options": {"timeout": 10_000, "ackResponseTimeout": 30_000, **options}, "first": first, "count": count, **more}
    )
    done = subprocess.run(["node", "fluent.js", request], cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # the package itself says how its handshake goes
    return said


def test_the_python_example_of_the_page_runs(server: Server, tmp_path: Path) -> None:
    """As it stands there: one event, with what the page says of it."""
    script = tmp_path / "example.py"
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    script.write_text(block[1])
    environment = {**os.environ, "FORWARD_HOST": "127.0.0.1", "FORWARD_PORT": str(port_of(server, "open"))}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (event,) = wait_events(server, "default", "actor.id:u_17", 1)
    assert (event["action"], event["outcome"], event["context"]) == ("user.login", "success", {"ip": "203.0.113.7"})
    assert event["metadata"] == {"tag": "app.login", "second_factor": True}
    assert event["source"] == {"name": "open", "type": "forward"}


def test_fluent_logger_for_python(server: Server) -> None:
    """Whole seconds and EventTime, one connection kept, the asynchronous sender too: all there, in order."""
    port = port_of(server, "open")
    plain = sender.FluentSender("py", host="127.0.0.1", port=port)
    exact = sender.FluentSender("py", host="127.0.0.1", port=port, nanosecond_precision=True)
    queued = asyncsender.FluentSender("py", host="127.0.0.1", port=port)
    for number in range(100):
        assert plain.emit_with_time("plain", 1_768_832_635 + number, {"number": number})
        assert exact.emit_with_time("exact", 1_768_832_635.25 + number, {"number": number})
        queued.emit("queued", {"number": number, "text": "żółć 🎟"})
    for one in (plain, exact, queued):
        one.close()
    for kind, fraction in (("plain", "000000"), ("exact", "250000"), ("queued", None)):
        found = wait_events(server, "default", f"metadata.tag:py.{kind}", 100)
        assert [event["metadata"]["number"] for event in found] == list(range(100))
        if fraction is not None:
            assert found[0]["occurred_at"] == f"2026-01-19T14:23:55.{fraction}Z"


@pytest.mark.parametrize("mode", ["Message", "PackedForward", "CompressedPackedForward"])
def test_fluent_logger_for_node_hears_of_every_record(server: Server, mode: str) -> None:
    """With `requireAckResponse` it takes a record for delivered when its chunk is acknowledged: all hundred are."""
    options = {"host": "127.0.0.1", "port": port_of(server, "open"), "eventMode": mode, "requireAckResponse": True}
    first = {"Message": 1_000, "PackedForward": 2_000, "CompressedPackedForward": 3_000}[mode]
    assert run_node(options, 100, first) == {"delivered": 100, "errors": []}
    found = events(server, "default", f"metadata.tag:node.audit AND metadata.n:[{first} TO {first + 999}]")
    assert [event["metadata"]["n"] for event in found] == list(range(first, first + 100))
    assert {event["action"] for event in found} == {"user.login"}


def test_fluent_logger_for_node_shakes_hands(server: Server) -> None:
    """With the right key its records are taken; with a wrong one, or none, nothing is, and the refusal is on record."""
    options = {"host": "127.0.0.1", "port": port_of(server, "keyed"), "eventMode": "PackedForward", "requireAckResponse": True}
    right = {**options, "security": {"clientHostname": "edge.example.com", "sharedKey": KEY}}
    assert run_node(right, 20) == {"delivered": 20, "errors": []}
    assert len(wait_events(server, "keyed", "metadata.tag:node.audit", 20)) == 20
    wrong = {**options, "security": {"clientHostname": "edge.example.com", "sharedKey": "a key that is not the one"}}
    said = run_node({**wrong, "ackResponseTimeout": 2_000, "enableReconnect": False}, 5)
    assert said["delivered"] == 0
    assert len(events(server, "keyed", "metadata.tag:node.audit")) == 20
    params = {"query": 'action:tallystick.login_failed AND metadata.via:"source keyed"', "tenant": "_tallystick"}
    wait_for(lambda: server.http.get("/v1/events", params=params).json().get("events"), "the failed login to be on record")


def test_key_and_user_over_tls(server: Server, place: Path) -> None:
    """Node's client over TLS with key, user and password: its records are its tenant's, under its name."""
    options = {
        "host": "127.0.0.1", "port": port_of(server, "closed"), "eventMode": "CompressedPackedForward", "requireAckResponse": True,
        "tls": True, "security": {"clientHostname": "edge.example.com", "sharedKey": KEY, "username": "edge", "password": "swordfish"},
    }  # fmt: skip
    assert run_node(options, 50, ca=str(place / "ca.pem")) == {"delivered": 50, "errors": []}
    found = wait_events(server, "acme", "metadata.tag:node.audit", 50)
    assert found[0]["source"] == {"name": "closed", "type": "forward", "credential": "user:edge"}


def test_a_chunk_that_is_sent_again_is_stored_once(server: Server) -> None:
    """Its sender did not hear of it and sends it again, after a restart of the server too: acknowledged each time, there once."""
    entries = [(event_time(1_768_832_635, number), {"n": number, "kind": "again"}) for number in range(2_500)]
    message = packed_forward("again", entries, "the same chunk", compressed=True)
    for life in range(2):
        for _ in range(2):
            with ForwardClient(("127.0.0.1", port_of(server, "open"))) as client:
                client.send(message)
                assert client.ack() == "the same chunk"
        if life == 0:
            server.kill()
            server.start()
    with server.http.stream("GET", "/v1/export", params={"query": "metadata.kind:again"}) as answer:
        found = [json.loads(line)["metadata"]["n"] for line in answer.iter_lines() if line]
    assert found == list(range(2_500))


async def test_our_own_destination_is_acknowledged_and_stored_once(server: Server, place: Path) -> None:
    """`forward` sends a cut here over TLS, with key and user, and again as after a lost acknowledgement: the events are there once."""
    port, ca = port_of(server, "closed"), RemoteTlsSettings(ca=str(place / "ca.pem"))
    settings = ForwardSettings(host="127.0.0.1", port=port, tls=ca, shared_key=KEY, username="edge", password="swordfish")
    for _ in range(2):
        destination = ForwardDestination("here", settings)
        answer = await destination.send(make_cut(destination, [make_line(index) for index in range(3)]))
        assert answer.kind is AnswerKind.DELIVERED, answer.reason
        await destination.close()
    wait_events(server, "acme", "metadata.tag:tallystick.acme", 3)
    wrong = ForwardDestination("here", msgspec.structs.replace(settings, password="shark"))
    assert (await wrong.probe()).kind is AnswerKind.PARK
    await wrong.close()
