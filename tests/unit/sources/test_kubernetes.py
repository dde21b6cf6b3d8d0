"""The door of the audit webhook."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from tallystick.errors import OverloadedError
from tallystick.journal.frame import FrameType

from .conftest import Rig

PATH = "/v1/kubernetes?timeout=30s"
JSON = "application/json"
ENTRY = {
    "level": "Metadata",
    "auditID": "0a1b7d5e-7d0c-4c64-8ce7-5e4e1a3f2c11",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/secrets/db",
    "verb": "get",
    "user": {"username": "ann@example.com"},
    "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db"},
    "responseStatus": {"code": 200},
    "stageTimestamp": "2026-03-04T10:00:00.004000Z",
}


def event_list(*entries: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": entries})


async def test_stages_are_events_apart_and_linked(rig: Rig) -> None:
    """Each has an id of its own under the one auditID, which both have as their request; a repeat is stored once."""
    body = event_list({**ENTRY, "stage": "RequestReceived"}, ENTRY)
    for duplicates in (0, 2):
        answer = await rig.accept(PATH, body, media=JSON)
        assert (answer["accepted"], answer["duplicates"]) == (2 - duplicates, duplicates)
    first, second = rig.events()
    assert first["id"].startswith(f"{ENTRY['auditID']}.RequestReceived.")
    assert second["id"].startswith(f"{ENTRY['auditID']}.ResponseComplete.")
    assert first["context"]["request_id"] == second["context"]["request_id"] == ENTRY["auditID"]
    assert (second["action"], second["source"]["type"]) == ("secrets.get", "kubernetes")


async def test_entries_that_are_none_are_kept_and_hold_up_nobody(rig: Rig) -> None:
    """The answer is success; what is no entry is in the quarantine by itself. An empty list is taken too."""
    answer = await rig.accept(PATH, event_list(ENTRY, {"auditID": "x"}), media=JSON)
    assert (answer["accepted"], [bad["code"] for bad in answer["quarantined"]]) == (1, ["record_unknown"])
    (record,) = rig.records(FrameType.QUARANTINED)
    assert base64.b64decode(record["data"]) == b'{"auditID":"x"}'
    assert (await rig.accept(PATH, event_list(), media=JSON))["accepted"] == 0


async def test_lines_of_a_log_file(rig: Rig) -> None:
    """NDJSON: an entry a line, bad ones by their line."""
    answer = await rig.accept(PATH, msgspec.json.encode(ENTRY) + b"\n\nnothing\n")
    assert (answer["accepted"], [bad["line"] for bad in answer["quarantined"]]) == (1, [3])


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"body": b" "}, 400, "BadRequest"),
        ({"secret": "ts_nobody00_" + "x" * 43}, 401, "Unauthorized"),
        ({"media": "text/plain"}, 415, "UnsupportedMediaType"),
        ({"method": "PUT"}, 405, "MethodNotAllowed"),
    ],
)
async def test_refusals_are_told_as_the_api_server_knows_them(rig: Rig, options: dict[str, Any], status: int, reason: str) -> None:
    """A `Status`, whose message it writes into its log."""
    answer = await rig.call(PATH, **{"body": event_list(ENTRY), "media": JSON, **options})
    found = answer.json()
    assert (answer.status, found["kind"], found["status"], found["code"]) == (status, "Status", "Failure", status)
    assert (found["reason"], bool(found["message"])) == (reason, True)


async def test_pushback_says_when_to_come_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the header and in the object: client-go reads both."""

    async def refuse(request: Any) -> None:
        raise OverloadedError("full", retry_after_s=2)

    monkeypatch.setattr(rig.service.journal, "append", refuse)
    answer = await rig.call(PATH, event_list(ENTRY), media=JSON)
    assert (answer.status, answer.headers["retry-after"], answer.json()["details"]) == (503, "2", {"retryAfterSeconds": 2})
