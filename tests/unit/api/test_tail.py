"""The live tail."""

from __future__ import annotations

import asyncio
from typing import Any

from support.api_rig import Rig, event
from tallystick.api.tail import Listener, Tailed


class Stream:
    """One open request, read message by message as the server sends them."""

    def __init__(self, rig: Rig, path: str, query: str, key: str) -> None:
        self.head: dict[str, Any] = {}
        self.text = ""
        self._came = asyncio.Event()
        self._gone = asyncio.Event()
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8420), "asgi": {"version": "3.0"},
            "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {key}".encode())],
        }  # fmt: skip
        self.task = asyncio.create_task(rig.app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def wait_for(self, word: str) -> None:
        async with asyncio.timeout(10):
            while word not in self.text:
                self._came.clear()
                await self._came.wait()

    async def close(self) -> None:
        self._gone.set()
        async with asyncio.timeout(10):
            await self.task

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.head = message
        else:
            self.text += message.get("body", b"").decode()
        self._came.set()


async def test_matching_events_come_as_they_are_accepted(rig: Rig) -> None:
    """Only those of the query and the caller's tenant, as canonical lines with their place; a listener that leaves is forgotten."""
    stream = Stream(rig, "/v1/tail", "query=outcome:denied", rig.key("read", tenants=["acme"]))
    await stream.wait_for(": from now on")
    await rig.send("globex", [event(1, outcome="denied")])
    await rig.send("acme", [event(2), event(3, outcome="denied")])
    await stream.wait_for('"id":"e3"')
    assert "id: acme/" in stream.text
    assert '"id":"e1"' not in stream.text
    assert '"id":"e2"' not in stream.text
    assert dict(stream.head["headers"])[b"content-type"].startswith(b"text/event-stream")
    await stream.close()
    assert not rig.deps.tail._listeners


async def test_a_session_is_on_record(rig: Rig) -> None:
    """The opening of a tail is an event of the tenant's log."""
    stream = Stream(rig, "/v1/tail", "tenant=acme&query=outcome:denied", rig.admin)
    await stream.wait_for(": from now on")
    await stream.close()
    async with rig.client() as client:
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.tail"})).json()
    assert found["events"][0]["metadata"]["query"] == "outcome:denied"


async def test_a_bad_query_is_refused_before_the_stream(rig: Rig) -> None:
    """A query that cannot be understood is a 400, not an empty stream."""
    async with rig.client() as client:
        assert (await client.get("/v1/tail", params={"query": "(", "tenant": "acme"})).status_code == 400


async def test_a_slow_listener_is_told_what_it_missed() -> None:
    """Its queue is bounded; what does not fit is counted."""
    listener = Listener(None, lambda _: True, asyncio.get_running_loop())
    listener.offer([Tailed("acme", number, b"{}") for number in range(1_500)])
    assert listener.queue.qsize() == 1_000
    assert listener.missed == 500
