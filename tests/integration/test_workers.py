"""`[server] workers = 2`: two processes take requests in for one writer, and the installation is one to everybody outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.certificates import Authority
from support.faults import children, role_pid, wait_intake
from support.server import ADMIN_KEY, Server, free_port, wait_for

WORKERS = "workers = 2\n"
AUTHORIZED = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/x-ndjson"}


@contextlib.contextmanager
def running(directory: Path, configuration: str = "") -> Iterator[Server]:
    server = Server(directory, WORKERS + configuration)
    try:
        yield server.start()
    finally:
        if server.process is not None and server.process.poll() is None:
            for child in children(server.process.pid):
                os.kill(child, signal.SIGCONT)
        server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that harm nothing."""
    source = '[sources.app]\ntype = "http"\ntenant = "acme"\nmapping = "generic"\n'
    noise = '[pipeline]\ntransforms = ["noise"]\n[transforms.noise]\ntype = "filter"\ndrop = "action:health.check"\n[seal]\nroot_interval = "1s"\n'
    with running(tmp_path_factory.mktemp("workers"), source + noise) as made:
        yield made


def event(**members: Any) -> dict[str, Any]:
    return {"action": "user.login", "actor": "u_1", **members}


def ndjson(*events: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, events)).encode()


class Sender:
    """One kept connection."""

    def __init__(self, server: Server) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.http.connect()
        self.port = self.http.sock.getsockname()[1]

    def post(self, body: bytes, path: str = "/v1/events", headers: dict[str, str] = AUTHORIZED) -> tuple[int, Any]:
        self.http.request("POST", path, body, headers)
        answer = self.http.getresponse()
        return answer.status, json.loads(answer.read())


def owners(server: Server, ports: list[int]) -> list[str]:
    """Which role holds the server's end of the connection from each of these ports."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == server.port and words[9] != "0":
            inodes[words[9]] = int(words[2].partition(":")[2], 16)
    found = {}
    for role in ("worker-1", "worker-2", "intake"):
        for entry in Path(f"/proc/{role_pid(server, role)}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(entry)
                if name.startswith("socket:[") and name[8:-1] in inodes:
                    found[inodes[name[8:-1]]] = role
    return [found.get(port, "") for port in ports]


def one_at_each(server: Server) -> list[Sender]:
    """A connection to each worker; how they are spread may depend on how busy each is."""
    made: list[Sender] = []

    def place() -> bool:
        made.append(Sender(server))
        return len(set(owners(server, [sender.port for sender in made])) - {""}) == 2

    wait_for(place, "connections to both workers", every_s=0.02)
    by_role = dict(zip(owners(server, [sender.port for sender in made]), made, strict=True))
    kept = [by_role["worker-1"], by_role["worker-2"]]
    for sender in made:
        if sender not in kept:
            sender.http.close()
    return kept


@pytest.fixture
def two(server: Server) -> Iterator[list[Sender]]:
    """A connection to each worker."""
    made = one_at_each(server)
    yield made
    for sender in made:
        sender.http.close()


def test_connections_are_spread_evenly(server: Server) -> None:
    """Of forty senders each worker gets twenty, and the writer none."""
    before = Counter(owners(server, connections_to(server)))
    senders = [Sender(server) for _ in range(40)]
    ports = [sender.port for sender in senders]
    wait_for(lambda: "" not in owners(server, ports), "all connections to be taken")
    found = Counter(owners(server, ports)) + before
    assert abs(found["worker-1"] - found["worker-2"]) <= 1
    assert found["intake"] == 0
    for sender in senders:
        sender.http.close()


def connections_to(server: Server) -> list[int]:
    """Ports of the connections that are there already, as those of the test's own client."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(words[2].partition(":")[2], 16)
        for words in lines
        if int(words[1].partition(":")[2], 16) == server.port and words[3] == "01"
    ]


def test_an_id_is_one_event_whichever_worker_it_comes_to(server: Server, two: list[Sender]) -> None:
    """Stored once, with the same receipt everywhere; other content under it is a conflict, or kept in the quarantine."""
    body = ndjson(*[event(id=f"w{number}") for number in range(50)])
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda sender: [sender.post(body)[1] for _ in range(3)], two)
    answers = [answer for each in found for answer in each]
    assert sorted(answer["accepted"] for answer in answers) == [0] * 5 + [50]
    assert len({json.dumps(answer["receipts"][0]["ranges"]) + answer["receipts"][0]["batch_root"] for answer in answers}) == 1
    mixed = ndjson(event(id="w3", action="other.content"), event(id="wnew"), event(id="w4"))
    assert two[1].post(mixed)[0] == 409
    status, kept = two[1].post(mixed, "/v1/events?on_invalid=quarantine")
    assert (status, kept["accepted"], kept["duplicates"]) == (200, 1, 1)
    assert [(row["line"], row["code"]) for row in kept["quarantined"]] == [(1, "id_conflict")]
    kept_ones = "/v1/quarantine?tenant=default"
    (record,) = wait_for(lambda: server.http.get(kept_ones).json()["records"], "the record to be in the quarantine")
    assert (record["code"], record["line"]) == ("id_conflict", 1)
    assert "other.content" in server.http.get(f"/v1/quarantine/{record['id']}").text


def test_status_and_metrics_sum_over_the_workers(server: Server, two: list[Sender]) -> None:
    """What each took in, by source, is in one page and one scrape; a new tenant is made once, by the writer."""
    before, scraped = server.status()["sources"], metrics(server)
    for sender in two:
        assert sender.post(ndjson(event(tenant="fresh"), event(action="health.check"), event()))[0] == 200
        assert sender.post(b'{"a":1}\n{"a":2}', "/v1/in/app")[0] == 200
        assert sender.post(b"no json", "/v1/events?on_invalid=quarantine")[0] == 200
    page = server.status()
    grown = {
        name: {key: page["sources"][name][key] - before[name][key] for key in ("accepted", "filtered", "quarantined")}
        for name in ("events", "app")
    }
    assert grown == {
        "events": {"accepted": 4, "filtered": 2, "quarantined": 2},
        "app": {"accepted": 4, "filtered": 0, "quarantined": 0},
    }
    assert page["tenants"]["fresh"]["accepted"] == 2
    name = 'tallystick_events_accepted_total{source="app"}'
    assert metrics(server)[name] - scraped.get(name, 0) == 4
    assert (page["ready"], page["reasons"]) == (True, [])


def metrics(server: Server) -> dict[str, float]:
    lines = server.http.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_large_requests_and_the_api_go_through_workers(server: Server, two: list[Sender]) -> None:
    """A batch that is packed beside the loop, single events many at a time, and everything that is the api's."""
    body = ndjson(*[event(id=f"big{number}", metadata={"text": "x" * 300}) for number in range(10_000)])
    assert two[0].post(body)[1]["accepted"] == 10_000
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: server.send_ok(ndjson(event(id=f"one{number}"))), range(300)))
    assert all(answer["accepted"] == 1 for answer in answers)
    assert len({answer["receipts"][0]["ranges"][0][0] for answer in answers}) == 300
    wait_for(lambda: server.http.get("/v1/events/one7").status_code == 200, "the event to be found")
    wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", every_s=0.5)


def test_a_new_configuration_reaches_every_worker(server: Server, two: list[Sender]) -> None:
    """SIGHUP: both take it, on the connections that are there; one that is no good changes nothing."""
    text = server.config.read_text()
    assert server.process is not None
    before = server.status()["config"]["hash"]
    server.config.write_text(text + '\n[sources.late]\ntype = "http"\ntenant = "acme"\n')
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.status()["config"]["hash"] != before, "the new configuration to be in force")
    assert [sender.post(b'{"a":1}', "/v1/in/late")[0] for sender in two] == [200, 200]
    server.config.write_text(text.replace("workers = 2", "workers = 3"))
    server.process.send_signal(signal.SIGHUP)
    refused = wait_for(lambda: server.status()["config"]["refused"], "the refusal to be told")
    assert "workers" in refused


def test_what_is_limited_is_limited_over_all_workers(tmp_path: Path) -> None:
    """Connections, quotas and failed logins hold for the installation, exactly as with one process."""
    limits = "[limits]\nconnections_per_address = 21\nfailed_logins = 7\ntenant_events_per_second = 1\nquota_burst = '30s'\n"
    with running(tmp_path, limits) as server:
        wait_for(lambda: len(connections_to(server)) == 1, "nobody but the test's own client to be connected")
        senders = [Sender(server) for _ in range(20)]
        statuses = Counter(sender.post(ndjson(event(tenant="t1")))[0] for sender in senders)
        assert statuses == {200: 20}
        late = Sender(server)
        late.http.request("GET", "/healthz/live")
        assert late.http.getresponse().status == 503
        ports = [sender.port for sender in senders]
        assert len(set(owners(server, ports))) == 2

        began = time.monotonic()
        statuses = Counter(sender.post(ndjson(event(tenant="t2")))[0] for sender in senders * 3)
        assert set(statuses) == {200, 429}
        assert 30 <= statuses[200] <= 31 + (time.monotonic() - began)  # the burst, and what is earned meanwhile

        wrong = {**AUTHORIZED, "Authorization": "Bearer ts_testadmin01_" + "x" * 43}
        statuses = Counter(sender.post(b"{}", headers=wrong)[0] for sender in senders[:12])
        assert statuses == {401: 7, 429: 5}


def test_bodies_in_flight_are_bounded_over_all_workers(tmp_path: Path) -> None:
    """One sender's share is counted wherever its bodies are: half of all, one at each worker; when they go there is room again."""
    limits = '[limits]\nbody = "1MiB"\ndecompressed = "1MiB"\nbodies_in_flight = "4MiB"\n'
    with running(tmp_path, limits) as server:
        holders = one_at_each(server)
        for sender in holders:
            sender.http.putrequest("POST", "/v1/events")
            for name, value in {**AUTHORIZED, "Content-Length": str(2**20)}.items():
                sender.http.putheader(name, value)
            sender.http.endheaders()
        body = ndjson(event(metadata={"text": "x" * 20_000}))  # too large to share a commit

        def answers() -> set[tuple[str, int]]:
            found = set()
            for _ in range(6):
                sender = Sender(server)
                wait_for(lambda sender=sender: owners(server, [sender.port]) != [""], "the connection to be taken")
                (role,) = owners(server, [sender.port])
                found.add((role, sender.post(body)[0]))
                sender.http.close()
            return found

        wait_for(lambda: answers() == {("worker-1", 503), ("worker-2", 503)}, "both workers to refuse")
        for sender in holders:
            sender.http.close()
        wait_for(lambda: answers() == {("worker-1", 200), ("worker-2", 200)}, "room to be there again")


def test_a_dead_worker_is_replaced_and_the_others_serve_on(tmp_path: Path) -> None:
    """kill -9 of one worker: its connections end, new ones are served at once, status says who is away, and then nothing more."""
    with running(tmp_path) as server:
        victim = role_pid(server, "worker-1")
        senders = [Sender(server) for _ in range(4)]
        ports = [sender.port for sender in senders]
        wait_for(lambda: "" not in owners(server, ports), "all connections to be taken")
        held = dict(zip(ports, owners(server, ports), strict=True))
        os.kill(victim, signal.SIGKILL)
        assert all(Sender(server).post(ndjson(event()))[0] == 200 for _ in range(8))
        for sender in senders:
            if held[sender.port] == "worker-1":
                with pytest.raises((OSError, http.client.HTTPException)):
                    sender.post(ndjson(event()))
            else:
                assert sender.post(ndjson(event()))[0] == 200
        wait_for(lambda: role_pid(server, "worker-1") != victim, "the worker to be started again")
        wait_for(lambda: not server.status()["reasons"], "nothing to be amiss")


def test_readiness_at_a_worker_is_the_writers(tmp_path: Path) -> None:
    """While the writer is gone every worker refuses with 503 and says so; when it is back both accept, without help."""
    with running(tmp_path) as server:
        writer = role_pid(server, "intake")
        os.kill(writer, signal.SIGKILL)
        wait_intake(server, status=503)
        answer = server.send(ndjson(event()))
        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepting")
        assert int(answer.headers["retry-after"]) >= 1
        assert server.http.get("/healthz/live").status_code == 200
        wait_intake(server)
        assert server.send(ndjson(event())).status_code == 200
        os.kill(role_pid(server, "intake"), signal.SIGSTOP)
        wait_intake(server, status=503)
        os.kill(role_pid(server, "intake"), signal.SIGCONT)
        wait_intake(server)


def test_a_stop_answers_what_is_in_flight(tmp_path: Path) -> None:
    """SIGTERM under load: exit code 0 in time, nothing refused that is stored, and everything answered is there at the next start."""
    accepted: set[str] = set()
    lock = threading.Lock()
    with running(tmp_path) as server:
        stop = threading.Event()

        def send(sender: int) -> None:
            with httpx.Client(base_url=server.url, headers=AUTHORIZED, timeout=30) as client:
                for number in range(100_000):
                    ids = [f"s{sender}-{number}-{k}" for k in range(20)]
                    try:
                        answer = client.post("/v1/events", content=ndjson(*[event(id=name) for name in ids]))
                    except httpx.TransportError:
                        return
                    if answer.status_code == 200:
                        with lock:
                            accepted.update(ids)
                    elif stop.is_set():
                        return

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(accepted) > 2_000, "some load")
        stop.set()
        assert server.stop() == 0
        for thread in threads:
            thread.join(30)
        server.start()
        server.drain(len(accepted))
        with server.http.stream("GET", "/v1/export", timeout=120) as answer:
            found = {json.loads(line)["id"] for line in answer.iter_lines() if line}
        assert accepted <= found


def test_a_port_that_is_taken_is_refused_at_once(tmp_path: Path) -> None:
    """By another program, and by a server with workers of its own: exit code 2, and nothing is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert refused(tmp_path / "a", other.getsockname()[1]) == 2
    (tmp_path / "b").mkdir()
    with running(tmp_path / "b") as server:
        assert refused(tmp_path / "c", server.port) == 2
        assert server.send(ndjson(event())).status_code == 200


def refused(directory: Path, port: int) -> int:
    """The exit code of a server that is to listen on ``port``."""
    directory.mkdir()
    server = Server(directory, WORKERS, port=port)
    command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "up", "--config", str(server.config)]
    done = subprocess.run(command, env=server.full_environment(), cwd=directory, capture_output=True, timeout=30)
    assert b"cannot listen" in done.stderr
    assert not (directory / "data" / "journal").exists()
    return done.returncode


def test_tls_is_spoken_by_every_worker(tmp_path: Path) -> None:
    """Handshakes spread over the workers, and one that does not come holds nobody up."""
    authority = Authority(tmp_path)
    pair = authority.issue("server", "localhost")
    port = free_port()
    text = f'[server]\nlisten = "127.0.0.1:{port}"\nworkers = 2\ntls = {{ cert = "{pair.cert}", key = "{pair.key}" }}\n'
    server = Server(tmp_path, text, port=port)
    context = ssl.create_default_context(cafile=str(authority.path))
    try:
        server.start(wait=False)

        def connect() -> ssl.SSLSocket:
            return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="localhost")

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                connect().close()
                return True
            return False

        wait_for(is_up, "the listener")
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        open_ones: list[ssl.SSLSocket] = []

        def has_each_one() -> bool:
            open_ones.append(connect())
            return set(owners(server, [each.getsockname()[1] for each in open_ones])) == {"worker-1", "worker-2"}

        wait_for(has_each_one, "a connection at each worker")
        for each in open_ones:
            each.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in each.recv(1_000)
        for each in (*silent, *open_ones):
            each.close()
    finally:
        server.close()
