"""rsyslog and logger, as the documentation configures them, against a real server: over UDP, TCP and TLS."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.ledger import OURS
from support.rsyslog import run_rsyslog
from support.server import Server, wait_for

PAGE = (Path(__file__).parents[2] / "docs/sources/syslog.md").read_text("utf-8")
PLAIN = '[sources.network]\ntype = "syslog"\nlisten = "127.0.0.1:0"\ntenant = "acme"\n'
TLS = """
[sources.hosts]
type = "syslog"
listen = "127.0.0.1:0"
transport = ["tcp"]
tls = {{ cert = "{0}/audit.example.com.pem", key = "{0}/audit.example.com.key", client_ca = "{0}/ca.pem" }}
clients = {{ "web-1.example.com" = "acme" }}
"""


def block(name: str) -> str:
    """A block of code of the page, by what stands behind its fence."""
    found = re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found[1]


def events(server: Server, tenant: str = "acme") -> list[dict[str, Any]]:
    params = {"query": OURS, "order": "asc", "limit": "1000", "tenant": tenant}
    found: list[dict[str, Any]] = server.http.get("/v1/events", params=params).json().get("events", [])
    return found


def page_of(server: Server, source: str = "network") -> dict[str, Any]:
    return dict(server.status()["sources"][source])


def port_of(server: Server, source: str = "network", key: str = "listen") -> str:
    return str(page_of(server, source)[key]).rpartition(":")[2]


def wait_accepted(server: Server, count: int, source: str = "network") -> None:
    wait_for(lambda: page_of(server, source)["accepted"] >= count, f"{count} events; {page_of(server, source)}", 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it as it is."""
    made = Server(tmp_path_factory.mktemp("server"), PLAIN).start()
    yield made
    made.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rsyslog_as_the_page_configures_it(server: Server, tmp_path: Path, transport: str) -> None:
    """Two hundred messages to its local socket arrive once and in order, with all that rsyslog said of each."""
    before = page_of(server)["accepted"]
    port = port_of(server, key="listen" if transport == "tcp" else "listen_udp")
    with run_rsyslog(tmp_path / "rsyslog", block(f"rsyslog {transport}").replace("5514", port)) as rsyslog:
        for number in range(200):
            rsyslog.log(f"{transport} {number} of ana\tfrom 10.0.0.{number}")
        wait_accepted(server, before + 200)
    found = [event for event in events(server) if event["metadata"]["message"].split()[0] == transport]
    assert [event["metadata"]["message"].split()[1] for event in found] == [str(number) for number in range(200)]
    event = found[0]
    assert (event["action"], event["severity"], event["context"]) == ("syslog.record", 1, {"ip": "127.0.0.1"})
    assert (event["metadata"]["facility"], event["metadata"]["procid"]) == ("authpriv", "7")
    assert event["actor"] == {"type": "system", "id": event["metadata"]["hostname"]}
    assert event["source"] == {"name": "network", "type": "syslog"}
    assert "flags" not in event["ingest"]


def test_rsyslog_over_tls_is_known_by_its_certificate(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """The page's TLS configuration: both sides check each other, and the name in the client's certificate chooses the tenant."""
    authority = Authority(tmp_path)
    authority.issue("audit.example.com", "audit.example.com")
    client = authority.issue("web-1.example.com", "web-1.example.com")
    server = make_server(TLS.format(tmp_path)).start()
    action = block("rsyslog tls").replace("6514", port_of(server, "hosts"))
    for path, file in (("ca.pem", authority.path), ("client.pem", client.cert), ("client.key", client.key)):
        action = action.replace(f"/etc/rsyslog.d/{path}", str(file))
    with run_rsyslog(tmp_path / "rsyslog", action) as rsyslog:
        for number in range(100):
            rsyslog.log(f"message {number}")
        wait_accepted(server, 100, "hosts")
    found = [event for event in events(server) if event["metadata"]["app_name"] == "audit"]
    # What rsyslog reads from its socket keeps the space behind the tag: it is part of the message.
    assert [event["metadata"]["message"] for event in found] == [f" message {number}" for number in range(100)]
    assert found[0]["source"] == {"name": "hosts", "type": "syslog", "credential": "cert:web-1.example.com"}


def test_logger_as_the_page_calls_it(server: Server) -> None:
    """Every line of the page's example: lines and counts over TCP, a datagram in the old form."""
    before = page_of(server)["accepted"]
    for command in block("sh logger").strip().split("\n"):
        port = port_of(server, key="listen_udp" if "--udp" in command else "listen")
        subprocess.run(["sh", "-c", command.replace("5514", port)], check=True, timeout=30, capture_output=True)
    wait_accepted(server, before + 3)
    found = {event["metadata"]["message"]: event for event in events(server)}
    first, second, third = (
        found[text] for text in ("nightly backup finished", "with structured data", "the old form, in a datagram")
    )
    assert (first["metadata"]["app_name"], first["metadata"]["msgid"]) == ("backup", "done")
    assert "timeQuality" in first["metadata"]["structured_data"]
    assert second["metadata"]["structured_data"]["meta@32473"] == {"job": "17"}
    assert third["metadata"]["app_name"] == "backup"
    assert third["ingest"]["flags"] == ["time_zone_missing"]


def test_rsyslog_waits_for_a_server_that_was_killed(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """The server is killed (-9) and comes back at the same address: what was durable is there once, and rsyslog's queue follows.

    What plain syslog loses is what rsyslog had handed to its kernel and nobody had read: it never knows of it.
    """
    server = make_server(PLAIN).start()
    port = port_of(server)
    server.config.write_text(server.config.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))
    action = (
        block("rsyslog tcp")
        .replace("5514", port)
        .replace('action.resumeRetryCount="-1"', 'action.resumeRetryCount="-1" action.resumeInterval="1"')
    )
    with run_rsyslog(tmp_path / "rsyslog", action) as rsyslog:
        for number in range(500):
            rsyslog.log(f"before {number}")
        wait_accepted(server, 500)
        server.kill()
        for number in range(500):
            rsyslog.log(f"after {number}")
        server.start()
        number = 499

        def is_back() -> bool:
            nonlocal number
            number += 1
            rsyslog.log(f"after {number}")  # any one message may be among those that were lost
            return any(f"after {late}" in json.dumps(event) for event in _last(server) for late in range(500, number))

        wait_for(is_back, "rsyslog to come back", 90)
        wait_for(lambda: any(f"after {number}" in json.dumps(event) for event in _last(server)), "its queue to be empty", 60)
    texts = [event["metadata"]["message"].strip() for event in _all(server) if event["metadata"]["app_name"] == "audit"]
    assert [text for text in texts if text.startswith("before")] == [f"before {number}" for number in range(500)]
    after = [int(text.split()[1]) for text in texts if text.startswith("after")]
    assert after == sorted(set(after))
    assert after[-1] == number
    server.drain(len(texts), "acme")
    wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", 30, 0.5)


def _last(server: Server) -> list[dict[str, Any]]:
    params = {"query": OURS, "limit": "5", "tenant": "acme"}
    return list(server.http.get("/v1/events", params=params).json().get("events", []))


def _all(server: Server) -> list[dict[str, Any]]:
    with server.http.stream("GET", "/v1/export", params={"query": OURS, "tenant": "acme"}) as answer:
        return [json.loads(line) for line in answer.iter_lines() if line]


def test_a_wrong_configuration_opens_nothing(make_server: Callable[[str], Server]) -> None:
    """A listener off loopback without TLS: `up` ends with 2 and names the line before anything is made."""
    server = make_server('[sources.net]\ntype = "syslog"\nlisten = "0.0.0.0:514"\n')
    done = server.cli("up", "--config", str(server.config), check=2)
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "without TLS" in said
    assert "tallystick.toml:5" in said.replace(" ", "")
    assert not server.data.exists()
