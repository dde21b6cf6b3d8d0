"""Telling the story: its configuration is good, and it is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tallystick.client import Client, ProblemError
from tallystick.config import load_config
from tallystick.demo import tell as telling
from tallystick.demo.tell import prepare, tell_story
from tallystick.pipeline.check import check_config
from tallystick.sources.kind import built_in_kinds


class Server:
    """Takes everything and remembers it; ``fail_after`` requests it refuses."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.fail_after = 1 << 30

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if len(self.requests) >= self.fail_after:
            return httpx.Response(403, json={"detail": "enough"})
        self.requests.append(request)
        if request.url.path == "/v1/tenants":
            return httpx.Response(409 if len(self.requests) > 2 else 201, json={})
        return httpx.Response(200, json={})

    def records(self) -> list[Any]:
        sent = [request for request in self.requests if request.url.path != "/v1/tenants"]
        return [(request.url.path, msgspec.json.decode(line)) for request in sent for line in request.content.splitlines()]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(telling, "Client", lambda url, key: Client(url, key, transport=httpx.MockTransport(made)))
    return made


def test_the_demo_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    """It passes the check, keeps everything below its directory, and is left alone once it is there."""
    path = prepare(tmp_path / "demo-data")
    config = load_config(path)
    assert {way["source"] for way in check_config(config)} == {"events", *built_in_kinds(), "github", "cloudtrail"}
    assert "Who?" in config.console.notice
    assert config.data_dir.is_relative_to(tmp_path / "demo-data")
    path.write_text("[server]\n")
    assert prepare(tmp_path / "demo-data").read_text() == "[server]\n"


def test_the_story_goes_through_the_doors_that_anyone_uses(tmp_path: Path, server: Server) -> None:
    """Tenants first, then every record once, at the door of its source."""
    tell_story("http://127.0.0.1:1", "ts_a_b", tmp_path)
    assert [request.url.path for request in server.requests[:2]] == ["/v1/tenants"] * 2
    records = server.records()
    assert len(records) > 500
    assert {path for path, _ in records} == {"/v1/events", "/v1/in/github", "/v1/in/cloudtrail"}
    ids = [record["id"] for path, record in records if path == "/v1/events"]
    assert len(ids) == len(set(ids))


def test_a_story_that_was_cut_short_is_told_again_with_the_same_records(tmp_path: Path, server: Server) -> None:
    """The second start sends the same ids, which the server stores once; a third sends nothing."""
    server.fail_after = 50
    with pytest.raises(ProblemError, match="enough"):
        tell_story("http://127.0.0.1:1", "ts_a_b", tmp_path)
    first = server.records()
    server.requests.clear()
    server.fail_after = 1 << 30
    tell_story("http://127.0.0.1:1", "ts_a_b", tmp_path)
    assert server.records()[: len(first)] == first
    server.requests.clear()
    tell_story("http://127.0.0.1:1", "ts_a_b", tmp_path)
    assert server.requests == []
