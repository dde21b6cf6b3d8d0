"""One tenant floods, another sends a little: the flood is pushed back, the other one is served (promise P9).

The latencies are printed, not asserted: they are the machine's as much as ours. `pytest -s` shows them.
"""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import msgspec
import pytest

from support.flood import result_of, start_flood
from support.raw_http import RawConnection, head
from support.server import Server, wait_for

EVENT = {"action": "invoice.view", "actor": "u_1", "metadata": {"note": "quarterly review of access rights " * 12}}
FLOOD_S = 4.0


def key_for(server: Server, tenant: str) -> str:
    """A new key bound to one tenant."""
    answer = server.http.post("/v1/keys", json={"owner": tenant, "purpose": "t", "tenants": [tenant], "permissions": ["ingest"]})
    assert answer.status_code in (200, 201), answer.text
    secret: str = answer.json()["secret"]
    return secret


def steady(server: Server, secret: str, seconds: float, per_second: float = 50.0) -> tuple[list[int], list[float]]:
    """Single events at an even rate over one connection: statuses, and seconds from when each was due to its answer."""
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    body = msgspec.json.encode(EVENT)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    statuses, latencies = [], []
    started = time.monotonic()
    for number in range(int(seconds * per_second)):
        due = started + number / per_second
        time.sleep(max(0.0, due - time.monotonic()))
        connection.request("POST", "/v1/events", body, headers)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        latencies.append(time.monotonic() - due)
    connection.close()
    return statuses, latencies


def told(name: str, latencies: list[float]) -> None:
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    print(f"{name}: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, max {ordered[-1] * 1000:.1f} ms")


@pytest.mark.parametrize(("events", "connections"), [(1_000, 16), (20_000, 8)])
def test_one_tenants_flood_refuses_nobody_else(tmp_path: Path, events: int, connections: int) -> None:
    """Sixteen connections of large batches, then eight of very large ones; each single event of the other tenant is accepted."""
    body = tmp_path / "body"
    body.write_bytes(msgspec.json.Encoder().encode_lines([EVENT] * events))
    server = Server(tmp_path).start()
    try:
        loud, quiet = key_for(server, "loud"), key_for(server, "quiet")
        told("alone", steady(server, quiet, 2)[1])
        flood = start_flood(server.port, loud, connections, FLOOD_S, body)
        statuses, latencies = steady(server, quiet, FLOOD_S)
        result = result_of(flood)
        told(f"beside {result['counts']} × {events} events", latencies)
        assert set(statuses) == {200}
        assert result["counts"].get("200", 0) > 0
        assert set(result["counts"]) <= {"200", "503"}
        told("after", steady(server, quiet, 1)[1])
    finally:
        server.close()


def test_a_tenant_over_its_quota_is_pushed_back_alone(tmp_path: Path) -> None:
    """429 with advice for the one, 200 for the other; what is stored of the flood keeps to the quota."""
    body = tmp_path / "body"
    body.write_bytes(msgspec.json.Encoder().encode_lines([EVENT] * 1_000))
    configuration = '[limits]\nquota_burst = "2s"\n[tenants.loud]\nevents_per_second = 2000\n'
    server = Server(tmp_path, configuration).start()
    try:
        loud, quiet = key_for(server, "loud"), key_for(server, "quiet")
        told("alone", steady(server, quiet, 1)[1])
        started = time.monotonic()
        flood = start_flood(server.port, loud, 16, FLOOD_S, body)
        statuses, latencies = steady(server, quiet, FLOOD_S)
        result = result_of(flood)
        took = time.monotonic() - started
        told(f"beside {result['counts']}", latencies)
        assert set(statuses) == {200}
        assert result["counts"]["429"] > 0
        assert result["retry_after_min"] >= 1
        assert server.status()["tenants"]["loud"]["accepted"] <= 2 * 2_000 + 2_000 * took + 1_000
    finally:
        server.close()


def test_more_bodies_than_fit_are_refused_unread(tmp_path: Path) -> None:
    """One sender opens bodies that it does not send: past its share 503 with advice before any of the next body, others get in."""
    configuration = '[limits]\nbody = "4MiB"\ndecompressed = "4MiB"\nbodies_in_flight = "16MiB"\n'
    server = Server(tmp_path, configuration).start()
    connections: list[RawConnection] = []
    try:
        loud, quiet = key_for(server, "loud"), key_for(server, "quiet")
        opened = head(headers=[f"Content-Length: {4 * 2**20}"], key=f"Authorization: Bearer {loud}")
        for _ in range(2):
            connections.append(RawConnection(server.port))
            connections[-1].send(opened)

        def is_refused() -> bool:
            with RawConnection(server.port, 1.0) as connection:
                connection.send(opened)
                try:
                    answer = connection.answer()
                except TimeoutError:
                    return False
            assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            return True

        wait_for(is_refused, "a refusal")
        assert set(steady(server, quiet, 0.5)[0]) == {200}
        for connection in connections:
            connection.close()
        body = msgspec.json.Encoder().encode_lines([EVENT] * 5_000)
        media = {"Authorization": f"Bearer {loud}", "Content-Type": "application/x-ndjson"}
        wait_for(lambda: server.http.post("/v1/events", content=body, headers=media).status_code == 200, "room again")
    finally:
        for connection in connections:
            connection.close()
        server.close()
