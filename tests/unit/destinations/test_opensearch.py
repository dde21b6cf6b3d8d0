"""The opensearch destination, against a receiver that opensearch-py, the project's own client, is happy with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import OpenSearch, helpers

from support.delivery import make_cut, make_line
from tallystick.destinations.encodings.bulk import BulkCreate
from tallystick.destinations.encodings.json import make
from tallystick.destinations.opensearch import OpenSearchDestination, OpenSearchSettings
from tallystick.errors import ConfigError
from tallystick.evidence.entry import event_hashes
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.opensearch import OpenSearchReceiver
from tallystick.testing.receiver import Said

BULK = BulkCreate(make({}))
LINES = [make_line(index) for index in range(6)]


@pytest.fixture
def receiver() -> Iterator[OpenSearchReceiver]:
    with OpenSearchReceiver() as running:
        yield running


def settings(receiver: OpenSearchReceiver, **changes: Any) -> OpenSearchSettings:
    return OpenSearchSettings(**({"url": receiver.url, "allow_private": True} | changes))


async def send(receiver: OpenSearchReceiver, *answers: Said, **changes: Any) -> Answer:
    """One attempt of one new destination."""
    destination = OpenSearchDestination("search", settings(receiver, **changes))
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, LINES))
    await destination.close()
    return answer


def documents(receiver: OpenSearchReceiver) -> list[str]:
    return [document["id"] for document in receiver.indexes.get("audit-acme", {}).values()]


def test_the_receiver_answers_as_the_projects_own_client_expects(receiver: OpenSearchReceiver) -> None:
    """opensearch-py creates, sees conflicts, refusals and retries of single items, and reads a document back."""
    client = OpenSearch(receiver.url, http_compress=True)
    actions = [{"_op_type": "create", "_index": "books", "_id": str(n), "n": n} for n in range(3)]
    assert helpers.bulk(client, actions) == (3, [])
    done, errors = helpers.bulk(client, actions, raise_on_error=False)
    assert done == 0
    assert {error["create"]["status"] for error in errors} == {409}
    receiver.judge = lambda document: (400, "mapper_parsing_exception", "failed to parse field [n]") if document["n"] == 7 else None
    more = [{"_op_type": "create", "_index": "books", "_id": str(n), "n": n} for n in (6, 7, 8)]
    done, errors = helpers.bulk(client, more, raise_on_error=False)
    assert (done, [error["create"]["_id"] for error in errors]) == (2, ["7"])
    assert errors[0]["create"]["error"]["type"] == "mapper_parsing_exception"
    assert client.count(index="books")["count"] == 5
    assert client.get(index="books", id="8")["_source"] == {"n": 8}


def test_the_client_and_the_destination_make_the_same_documents(receiver: OpenSearchReceiver) -> None:
    """Our body sent by opensearch-py, byte for byte, is understood: the `_id` is the leaf hash, the source the canonical line."""
    client = OpenSearch(receiver.url)
    reply = client.bulk(body=BULK.encode_lines(LINES).decode(), index="audit-acme")
    assert [item["create"]["status"] for item in reply["items"]] == [201] * 6
    names = event_hashes(LINES).hex()
    for at, line in enumerate(LINES):
        assert client.get(index="audit-acme", id=names[at * 64 : at * 64 + 64])["_source"] == json.loads(line)


async def test_what_is_there_already_is_a_success(receiver: OpenSearchReceiver) -> None:
    """Two instances send one cut: the second is told 409 six times, which is delivered, and each event is there once."""
    assert (await send(receiver)).kind is AnswerKind.DELIVERED
    answer = await send(receiver)
    assert (answer.kind, dict(answer.refused)) == (AnswerKind.DELIVERED, {})
    assert documents(receiver) == [f"acme-{index}" for index in range(6)]
    assert receiver.requests[0].headers["content-encoding"] == "gzip"


async def test_a_mapping_error_is_one_events_own(receiver: OpenSearchReceiver) -> None:
    """Its reply goes with its position; the other events are delivered."""
    receiver.judge = lambda document: (400, "mapper_parsing_exception", "no such date") if document["id"] == "acme-4" else None
    answer = await send(receiver)
    assert (answer.kind, answer.reason, list(answer.refused)) == (AnswerKind.DELIVERED, "refused", [4])
    assert "no such date" in answer.refused[4]
    assert "acme-4" not in documents(receiver)
    assert len(documents(receiver)) == 5


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, AnswerKind.THROTTLE),
        (503, AnswerKind.THROTTLE),
        (500, AnswerKind.RETRY),
        (403, AnswerKind.PARK),
        (404, AnswerKind.PARK),
        (401, AnswerKind.PARK),
    ],
)
async def test_only_events_that_can_still_arrive_are_sent_again(
    receiver: OpenSearchReceiver, status: int, kind: AnswerKind
) -> None:
    """Some items pushed back, one refused: the next attempt sends those pushed back alone, and the refusal is not forgotten."""
    states = {
        "acme-1": (status, "es_rejected_execution_exception", "queue"),
        "acme-3": (status, "x", "y"),
        "acme-5": (400, "bad", "no"),
    }
    receiver.judge = lambda document: states.get(document["id"])
    destination = OpenSearchDestination("search", settings(receiver))
    cut = make_cut(destination, LINES)
    first = await destination.send(cut)
    assert first.kind is kind
    assert "2 of 6 events" in first.reason
    receiver.judge = lambda document: None
    second = await destination.send(cut)
    assert (second.kind, list(second.refused)) == (AnswerKind.DELIVERED, [5])
    assert receiver.requests[-1].body == BULK.encode_lines([LINES[1], LINES[3]])
    assert sorted(documents(receiver)) == ["acme-0", "acme-1", "acme-2", "acme-3", "acme-4"]
    await destination.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, AnswerKind.PARK),
        (401, AnswerKind.PARK),
        (403, AnswerKind.PARK),
        (404, AnswerKind.PARK),
        (302, AnswerKind.PARK),
        (408, AnswerKind.RETRY),
        (413, AnswerKind.SPLIT),
        (429, AnswerKind.THROTTLE),
        (500, AnswerKind.RETRY),
        (502, AnswerKind.RETRY),
        (503, AnswerKind.THROTTLE),
    ],
)
async def test_each_status_of_a_request_has_its_answer(receiver: OpenSearchReceiver, status: int, kind: AnswerKind) -> None:
    """The table decides over the wire too."""
    answer = await send(receiver, Said(status, b"so it is", {"retry-after": "3"}))
    assert (answer.kind, answer.retry_after_s) == (kind, 3.0)
    assert documents(receiver) == []


@pytest.mark.parametrize("body", [b"<html>", b"{}", {"errors": False, "items": []}, {"errors": False, "items": [{"create": {}}]}])
async def test_an_answer_that_is_none_is_a_retry(receiver: OpenSearchReceiver, body: Any) -> None:
    """A proxy's page with status 200 settles nothing."""
    assert (await send(receiver, Said(200, body))).kind is AnswerKind.RETRY


async def test_credentials_and_pipeline_are_sent(receiver: OpenSearchReceiver) -> None:
    """A user's password, an API key, and the pipeline that events go through."""
    receiver.password = "open sesame"
    assert (await send(receiver)).kind is AnswerKind.PARK
    assert (await send(receiver, username="admin", password="open sesame", pipeline="geoip")).kind is AnswerKind.DELIVERED
    assert receiver.requests[-1].query["pipeline"] == "geoip"
    await send(receiver, api_key="aWQ6a2V5")
    assert receiver.requests[-1].headers["authorization"] == "ApiKey aWQ6a2V5"


async def test_a_probe_tells_a_bad_password(receiver: OpenSearchReceiver) -> None:
    """It parks as long as nobody mends it, and leaves no document."""
    receiver.password = "open sesame"
    for password, kind in (("wrong", AnswerKind.PARK), ("open sesame", AnswerKind.DELIVERED)):
        destination = OpenSearchDestination("search", settings(receiver, username="admin", password=password))
        assert (await destination.probe()).kind is kind
        await destination.close()
    assert receiver.indexes == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"index": "Audit"},
        {"index": "a b"},
        {"index": "{tenant}-x"},
        {"api_key": "a\nb"},
        {"username": "u"},
        {"username": "u", "password": "p", "api_key": "k"},
        {"url": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(receiver: OpenSearchReceiver, changes: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        settings(receiver, **changes).check()
