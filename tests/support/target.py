"""A server under attack, and the ledger of what it accepted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.server import Server

NDJSON = "application/x-ndjson"
OURS = "NOT action:tallystick.*"
_numbers = itertools.count()


def fresh_id() -> str:
    """An event id that no other test uses."""
    return f"t{next(_numbers)}"


def event(**members: Any) -> dict[str, Any]:
    """An event as a sender writes it, with an id of its own."""
    return {"id": fresh_id(), "action": "test.done", "actor": "u_1", **members}


def event_text(**members: Any) -> bytes:
    """The same as bytes."""
    return json.dumps(event(**members)).encode()


def event_with_metadata(text: str) -> bytes:
    """An event whose metadata is this JSON text, as it is."""
    return f'{{"id":"{fresh_id()}","action":"test.done","actor":"u_1","metadata":{text}}}'.encode()


class Target:
    """One running server. ``accepted`` are the ids of every event that it answered 200 for through ``post``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.accepted: set[str] = set()

    def post(self, body: bytes, media: str | None = NDJSON, headers: dict[str, str] | None = None, **params: str) -> httpx.Response:
        """One request to `/v1/events`; asks for results, so that the ledger learns every id."""
        sent = {**({"Content-Type": media} if media is not None else {}), **(headers or {})}
        answer = self.server.http.post("/v1/events", content=body, headers=sent, params={"results": "true", **params})
        if answer.status_code == 200:
            self.accepted |= {row["id"] for row in answer.json().get("results", []) if row["outcome"] in ("accepted", "duplicate")}
        return answer

    def accept(self, body: bytes, media: str | None = NDJSON, headers: dict[str, str] | None = None, **params: str) -> Any:
        """One request that must be accepted; its answer."""
        answer = self.post(body, media, headers, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refuse(
        self, body: bytes, statuses: int | tuple[int, ...], media: str | None = NDJSON, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """One request that must be refused, leaving nothing behind; its problem document."""
        with self.unchanged():
            answer = self.post(body, media, headers)
        assert answer.status_code in ((statuses,) if isinstance(statuses, int) else statuses), (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["code"]
        assert problem["detail"]
        assert problem["request_id"]
        return problem

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within the block nothing is stored, neither events nor quarantined records."""
        before = self._stored()
        yield
        assert self._stored() == before

    @contextmanager
    def unchanged_but_for_its_own(self) -> Iterator[None]:
        """The same, but the server may record what happened in its own log."""
        before = self._events_of_others()
        yield
        assert self._events_of_others() == before

    def _stored(self) -> tuple[int, Any]:
        page = self.server.status()
        return sum(row["accepted"] for row in page["tenants"].values()), page["durable"]

    def _events_of_others(self) -> dict[str, int]:
        tenants = self.server.status()["tenants"]
        return {name: row["accepted"] for name, row in tenants.items() if name != "_tallystick"}

    def get(self, event_id: str) -> dict[str, Any]:
        """The stored event of that id."""
        answer = self.server.http.get(f"/v1/events/{event_id}")
        assert answer.status_code == 200, answer.text
        stored: dict[str, Any] = answer.json()
        return stored

    def export(self, query: str = OURS) -> list[bytes]:
        """Canonical lines of everything that matches."""
        answer = self.server.http.get("/v1/export", params={"query": query})
        assert answer.status_code == 200, answer.text
        return answer.content.splitlines()

    def check_ledger(self) -> None:
        """Export and search hold exactly what was accepted, each once."""
        exported = [json.loads(line)["id"] for line in self.export()]
        assert sorted(exported) == sorted(self.accepted)
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.server.http.get("/v1/events", params={"query": OURS, "limit": "1000", **cursor}).json()
            found += [row["id"] for row in page["events"]]
            if not page["next"]:
                break
            cursor = {"cursor": page["next"]}
        assert sorted(found) == sorted(self.accepted)

    def check_log(self) -> None:
        """The server's own log has no traceback, and every line but the greeting is whole JSON."""
        text = self.server.log.read_text()
        assert "Traceback" not in text, text[text.index("Traceback") - 1000 :][:4000]
        for line in text.splitlines():
            assert line.startswith(("Tallystick is up", "  ")) or json.loads(line)["event"], line


@contextmanager
def run_target(directory: Path, configuration: str = "") -> Iterator[Target]:
    """A started server; at the end its log is looked at, and it is stopped."""
    server = Server(directory, configuration)
    try:
        target = Target(server.start())
        yield target
        target.check_log()
        assert server.stop() == 0, server.tail()
    finally:
        server.close()
