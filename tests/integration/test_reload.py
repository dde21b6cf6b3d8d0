"""SIGHUP: a new configuration under a running server, and a bad one that changes nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from support.server import Server, wait_for

EVENT = {"action": "user.login", "actor": {"type": "user", "id": "u_1"}}
SOURCE = '\n[sources.app]\ntype = "http"\ntenant = "acme"\nmapping = "generic"\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path).start()
    yield made
    made.close()


def reload(server: Server, text: str) -> None:
    """Put ``text`` behind the file's first lines and tell the server."""
    head = "\n".join(server.config.read_text().splitlines()[:2])
    server.config.write_text(f"{head}\n{text}")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)


def in_force(server: Server) -> str:
    return str(server.status()["config"]["hash"])


def await_change(server: Server, before: str) -> str:
    """The hash of the new configuration, once it is in force."""
    wait_for(lambda: in_force(server) != before, "the new configuration to be in force")
    server.wait_api()
    return in_force(server)


def own_events(server: Server) -> list[dict[str, Any]]:
    answer = server.http.get("/v1/events", params={"query": "action:tallystick.config.reload", "tenant": "_tallystick"})
    return list(answer.json()["events"])


def test_a_new_configuration_is_taken_while_senders_go_on(server: Server) -> None:
    """No request fails and no connection ends; the new source answers; events know which configuration they met; it is on record."""
    before = in_force(server)
    stop, failures, sent = threading.Event(), [], 0
    lines = [msgspec.json.encode({**EVENT, "id": f"e{n}"}) for n in range(100_000)]

    def send() -> None:
        nonlocal sent
        # One connection, and none anew: a transport error is a failure.
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/v1/events", content=lines[sent], headers={"Content-Type": "application/x-ndjson"})
                if answer.status_code != 200:
                    failures.append(answer.text)
                sent += 1

    def guarded() -> None:
        try:
            send()
        except httpx.TransportError as error:
            failures.append(repr(error))

    sender = threading.Thread(target=guarded)
    sender.start()
    wait_for(lambda: sent > 0, "the first answer")
    assert server.http.post("/v1/in/app", content=b"{}").status_code == 404
    reload(server, SOURCE)
    wait_for(lambda: server.http.post("/v1/in/app", content=b'{"a":1}').status_code == 200, "the new source to answer")
    after = await_change(server, before)
    stop.set()
    sender.join()
    assert failures == []
    events = server.http.get("/v1/events", params={"tenant": "default", "limit": 1, "order": "desc"}).json()["events"]
    first = server.http.get("/v1/events/e0", params={"tenant": "default"}).json()
    assert (first["ingest"]["config"], events[0]["ingest"]["config"]) == (before, after)
    (event,) = wait_for(lambda: own_events(server), "the record")
    assert (event["outcome"], event["metadata"]["in_force"]) == ("success", after)
    wait_for(lambda: in_root_log(server, after), "the hash in the root log")


def in_root_log(server: Server, digest: str) -> bool:
    """Whether the root log has a `config` entry with this hash."""
    head = server.http.get("/log/root/checkpoint").text.split("\n")
    size = int(head[1])
    entries = server.http.get(f"/log/root/tile/entries/000.p/{size}" if size % 256 else "/log/root/tile/entries/000")
    return digest.encode() in entries.content


def test_a_bad_file_leaves_the_old_configuration_running(server: Server) -> None:
    """The reason names file and line, in status and on record; an intake that dies starts again with the old one."""
    before = in_force(server)
    reload(server, SOURCE)
    good = await_change(server, before)
    wait_for(lambda: server.http.post("/v1/in/app", content=b'{"a":1}').status_code == 200, "the source to answer")
    reload(server, SOURCE.replace('mapping = "generic"', 'mapping = "nosuch"'))
    reason = wait_for(lambda: server.status()["config"]["refused"], "the refusal")
    assert f"{server.config}:7" in reason
    assert in_force(server) == good
    assert any("configuration" in line for line in server.status()["reasons"])
    assert wait_for(lambda: [event for event in own_events(server) if event["outcome"] == "failure"], "the record")
    (intake,) = [pid for pid, role in children(server) if role == "intake"]
    os.kill(intake, signal.SIGKILL)
    wait_for(lambda: role_pid(server) not in (0, intake), "the intake to start again")
    server.wait_ready()
    assert server.http.post("/v1/in/app", content=b'{"a":1}').status_code == 200
    assert in_force(server) == good


def test_what_only_a_start_can_change_is_refused_by_name(server: Server) -> None:
    """Nothing of such a file is taken, its other changes neither."""
    before = in_force(server)
    reload(server, SOURCE + '[data]\nquota = "1GiB"\n')
    assert "data" in wait_for(lambda: server.status()["config"]["refused"], "the refusal")
    assert in_force(server) == before
    assert server.http.post("/v1/in/app", content=b'{"a":1}').status_code == 404


def test_a_new_destination_gets_what_was_there_and_what_comes(server: Server, tmp_path: Path) -> None:
    """The dispatcher is started anew with it."""
    server.send_ok(msgspec.json.encode({**EVENT, "id": "before"}))
    reload(server, '[destinations.disk]\ntype = "file"\npath = "out.jsonl"\nbatch = { max_age = "50ms" }\n')
    out = tmp_path / "out.jsonl"
    wait_for(out.exists, "the first delivery")
    server.send_ok(msgspec.json.encode({**EVENT, "id": "after"}))
    wait_for(
        lambda: len([line for line in out.read_text().splitlines() if json.loads(line)["tenant"] == "default"]) == 2, "both events"
    )


def children(server: Server) -> list[tuple[int, str]]:
    """(pid, role) of the server's child processes."""
    assert server.process is not None
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == server.process.pid and b"tallystick.pipeline.role" in words:
                found.append((int(entry.name), words[words.index(b"tallystick.pipeline.role") + 1].decode()))
    return found


def role_pid(server: Server, role: str = "intake") -> int:
    return next((pid for pid, name in children(server) if name == role), 0)
