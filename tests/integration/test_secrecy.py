"""Nothing readable at rest: a marker sent in an event is in no file of the data directory, and no key is either."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from support.server import ADMIN_KEY, Server, wait_for

MARKER = "zebra-quartz-marker-4711"


def grep(text: str, directory: object) -> list[str]:
    """Files below ``directory`` that hold ``text``, by GNU grep."""
    done = subprocess.run(["grep", "-ral", "--", text, str(directory)], capture_output=True, text=True)
    return done.stdout.splitlines()


def test_a_marker_is_nowhere_in_clear(make_server: Callable[[str], Server]) -> None:
    """Event, quarantined record and dead letter with a marker: journal, archive, catalog, trees and logs stay silent."""
    server = make_server(
        '[archive]\nmax_age = "1s"\n[sources.github]\ntype = "http"\nmapping = "github_audit"\ntenant = "default"\n'
    )
    server.start()
    body = f'{{"id":"marked","action":"a.b","actor":"{MARKER}","targets":[{{"type":"t","id":"{MARKER}"}}],"metadata":{{"k":"{MARKER}"}}}}'
    server.send_ok(body.encode())
    answer = server.http.post(
        "/v1/in/github", content=f'{{"no":"{MARKER}"}}'.encode(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 200
    assert answer.json()["quarantined"]
    assert server.http.get("/v1/events", params={"query": f'"{MARKER}"'}).json()["events"]
    wait_for(lambda: server.status()["tenants"]["default"]["archived"] >= 1, "the event to be archived")
    assert grep(MARKER, server.data) == []
    secret = ADMIN_KEY.rpartition("_")[2]
    assert grep(secret, server.data) == []
    assert grep("PRIVATE KEY", server.data) == []
    server.send_ok(b'{"action":"after.all","actor":"u"}')
    assert MARKER not in server.log.read_text()
    assert secret not in server.log.read_text()
