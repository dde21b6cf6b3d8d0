"""Erasure in a running server with workers: nobody can read the person any more, over a kill, and verify says why."""

from __future__ import annotations

import json
from pathlib import Path

from support.server import Server, wait_for
from support.target import event

CONFIGURATION = """
[server]
listen = "127.0.0.1:{port}"
workers = 2
[data]
reserve = "1MiB"
[journal]
segment_size = "4MiB"
[seal]
root_interval = "100ms"
[archive]
max_age = "300ms"
[privacy.default]
seal = ["actor.id", "actor.email"]
[erasure]
cool_off = "1s"
interval = "200ms"
[destinations.disk]
type = "file"
path = "out.jsonl"
"""
MARK = "ana-unmistakable"


def test_an_erased_person_is_read_nowhere_and_verify_says_why(tmp_path: Path) -> None:
    """Sealed from the start; opened on record; after two approvals, a cool-off and a kill the text is gone, others open, proofs hold."""
    server = Server(tmp_path, CONFIGURATION)
    server.config.write_text(CONFIGURATION.replace("{port}", str(server.port)))
    server.start()
    try:
        people = [MARK, "bob", MARK]
        lines = [
            event(id=f"e{n}", actor={"type": "user", "id": who, "email": f"{who}@example.com"}) for n, who in enumerate(people)
        ]
        for line in lines:
            server.send_ok(json.dumps(line).encode())
        server.drain(3, destinations=("disk",))

        def opened(name: str) -> str:
            page = server.http.get(f"/v1/events/{name}", params={"tenant": "default", "open": "true"})
            assert page.status_code == 200, page.text
            return str(page.json()["actor"]["id"])

        assert [opened(f"e{n}") for n in range(3)] == people
        assert MARK not in (tmp_path / "out.jsonl").read_text()

        asked = server.http.post("/v1/erasures", json={"tenant": "default", "subject": MARK, "basis": "request"})
        assert asked.status_code == 201, asked.text
        for owner in ("bea", "carl"):
            made = server.http.post("/v1/keys", json={"owner": owner, "permissions": ["approve"], "tenants": ["default"]}).json()
            header = {"Authorization": f"Bearer {made['secret']}"}
            answer = server.http.post(f"/v1/erasures/{asked.json()['id']}/approve", headers=header)
            assert answer.status_code == 200, answer.text
        server.kill()
        server.start()
        page = f"/v1/erasures/{asked.json()['id']}"
        view = wait_for(lambda: (found := server.http.get(page).json())["state"] == "erased" and found, "the erasure")
        assert (view["subject"], view["events"]) == ("", 2)
        wait_for(lambda: opened("e0") == opened("e2") == f"sealed:{view['key']}", "every process to forget the key")
        assert opened("e1") == "bob"
        # A late event of the person is taken, without what would be sealed.
        server.send_ok(json.dumps(event(id="late", actor={"type": "user", "id": MARK, "email": f"{MARK}@example.com"})).encode())
        late = server.http.get("/v1/events/late", params={"tenant": "default"}).json()
        assert MARK not in json.dumps(late)
        assert late["ingest"]["redactions"]
    finally:
        server.stop()
    told = server.verify().stdout
    assert "ERASED" in told
    server.close()
