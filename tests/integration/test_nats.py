"""The source `nats` in a whole server: the page's own configuration, kill -9, the quarantine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ledger import CONFIGURATION, Ledger
from support.nats_server import NatsServer, publish
from support.queues import exported, kill_while_reading
from support.server import Server, wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "nats.md").read_text("utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
CONF = re.findall(r"```conf\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    broker = NatsServer(tmp_path / "broker", CONF[0]).start()
    yield broker
    broker.close()


LOGIN = {"user": "tallystick", "password": "change-me"}


def with_stream(broker: NatsServer) -> None:
    broker.talk(lambda client: client.jsm().add_stream(name="AUDIT", subjects=["audit.>"]), **LOGIN)


def send(broker: NatsServer, bodies: list[bytes], subject: str = "audit.orders") -> None:
    broker.talk(lambda client: publish(client, subject, bodies), **LOGIN)


def on_page(broker: NatsServer, table: str) -> str:
    """A configuration of the page, with the test's address and password."""
    return table.replace("127.0.0.1:4222", f"127.0.0.1:{broker.port}")


def test_the_pages_configuration_reads_a_stream(make_server: Callable[..., Server], broker: NatsServer) -> None:
    """Events arrive under the tenant of the table; what is no event is in the quarantine and does not come again."""
    with_stream(broker)
    send(broker, [b'{"action":"invoice.approve","actor":"u_1"}', b"{broken", b'{"action":"invoice.pay","actor":"u_1"}'])
    server = make_server(on_page(broker, TOML[0]))
    server.environment["NATS_PASSWORD"] = LOGIN["password"]
    server.start()
    wait_for(lambda: server.status()["sources"]["orders"]["accepted"] == 2, "both events")
    row: dict[str, Any] = server.status()["sources"]["orders"]
    assert (row["state"], row["quarantined"], row["stream"]) == ("running", 1, "AUDIT")
    wait_for(lambda: server.status()["sources"]["orders"]["lag"] == 0, "the last acknowledgement")
    server.drain(2, "acme")
    found = [one for one in exported(server) if one["tenant"] == "acme"]
    assert [one["action"] for one in found] == ["invoice.approve", "invoice.pay"]
    assert re.fullmatch(r"AUDIT:1\.[0-9a-f]{12}", str(found[0]["id"]))
    quarantine = server.http.get("/v1/quarantine", params={"tenant": "acme"}).json()
    assert "broken" in json.dumps(quarantine) or len(quarantine["records"]) == 1
    assert server.cli("check", str(server.config), NATS_PASSWORD="p").returncode == 0


@pytest.mark.timeout(240)
def test_kills_while_reading_lose_and_repeat_nothing(make_server: Callable[..., Server], broker: NatsServer) -> None:
    """kill -9 four times while 10,000 events are read: each is there once, in order, and verify passes."""
    with_stream(broker)
    table = on_page(broker, TOML[0]).replace('tenant = "acme"', 'ack_wait = "2s"\nbatch_records = 100')
    server = make_server(CONFIGURATION + table)
    server.environment["NATS_PASSWORD"] = LOGIN["password"]
    kill_while_reading(server, Ledger(), lambda bodies: send(broker, bodies), "orders", 7)
