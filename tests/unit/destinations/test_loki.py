"""The loki destination, against a receiver that python-logging-loki, a client of others, is happy with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from logging_loki import LokiHandler

from support.delivery import make_cut, make_line
from tallystick.destinations.loki import LokiDestination, LokiSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.loki import LokiReceiver
from tallystick.testing.receiver import Said

LINES = [make_line(index) for index in range(4)]
STREAM = '{service_name="tallystick", tenant="acme"}'


@pytest.fixture
def receiver() -> Iterator[LokiReceiver]:
    with LokiReceiver() as running:
        yield running


def settings(receiver: LokiReceiver, **changes: Any) -> LokiSettings:
    return LokiSettings(**({"url": receiver.url, "allow_private": True} | changes))


async def send(receiver: LokiReceiver, *answers: Said, **changes: Any) -> Answer:
    destination = LokiDestination("loki", settings(receiver, **changes))
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, LINES))
    await destination.close()
    return answer


def test_the_receiver_answers_as_a_client_of_others_expects(receiver: LokiReceiver) -> None:
    """python-logging-loki pushes an entry with labels; a refusal is its error."""
    receiver.password = "open sesame"
    url = f"{receiver.url}/loki/api/v1/push"
    handler = LokiHandler(url, tags={"app": "a"}, auth=("loki", "open sesame"), version="1")
    handler.emitter(logging.makeLogRecord({"name": "n", "levelname": "INFO"}), "hello")
    (labels, entries), *others = receiver.streams.items()
    assert labels == '{app="a", logger="n", severity="info"}'
    assert [line for _, line in entries] == ["hello"]
    assert others == []
    with pytest.raises(ValueError, match="401"):
        LokiHandler(url, version="1").emitter(logging.makeLogRecord({"levelname": "INFO"}), "x")


async def test_a_cut_is_one_stream_of_its_tenant(receiver: LokiReceiver) -> None:
    """Few labels, the canonical line as text, the time of receipt in nanoseconds."""
    assert (await send(receiver)).kind is AnswerKind.DELIVERED
    assert receiver.streams == {STREAM: [("1772600768000000000", line.decode()) for line in LINES]}
    assert receiver.requests[0].headers["content-encoding"] == "gzip"


async def test_labels_organisation_and_token_are_sent(receiver: LokiReceiver) -> None:
    """The organisation can be the tenant's own."""
    await send(receiver, labels={"env": "prod", "service_name": "audit"}, org_id="org-{tenant}", token="t")
    assert list(receiver.streams) == ['{env="prod", service_name="audit", tenant="acme"}']
    headers = receiver.requests[0].headers
    assert (headers["x-scope-orgid"], headers["authorization"]) == ("org-acme", "Bearer t")


async def test_an_entry_that_is_refused_splits_and_the_others_stay_one(receiver: LokiReceiver) -> None:
    """Loki takes the others of the request; when the halves bring them again they are the same entries."""
    receiver.judge = lambda line: "entry too far behind" if json.loads(line)["id"] == "acme-2" else ""
    answer = await send(receiver)
    assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "refused")
    assert "total ignored: 1 out of 4" in answer.reply
    destination = LokiDestination("loki", settings(receiver))
    assert (await destination.send(make_cut(destination, LINES[:2]))).kind is AnswerKind.DELIVERED
    assert [json.loads(line)["id"] for _, line in receiver.streams[STREAM]] == ["acme-0", "acme-1", "acme-3"]
    await destination.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, AnswerKind.DELIVERED),
        (204, AnswerKind.DELIVERED),
        (400, AnswerKind.SPLIT),
        (422, AnswerKind.SPLIT),
        (413, AnswerKind.SPLIT),
        (429, AnswerKind.THROTTLE),
        (503, AnswerKind.THROTTLE),
        (408, AnswerKind.RETRY),
        (500, AnswerKind.RETRY),
        (302, AnswerKind.PARK),
        (401, AnswerKind.PARK),
        (403, AnswerKind.PARK),
        (404, AnswerKind.PARK),
    ],
)
async def test_each_status_has_its_answer(receiver: LokiReceiver, status: int, kind: AnswerKind) -> None:
    """The table, over the wire."""
    assert (await send(receiver, Said(status))).kind is kind


@pytest.mark.parametrize(
    "changes", [{"labels": {"a-b": "c"}}, {"labels": {"tenant": "x"}}, {"username": "u"}, {"password": "p"}, {"org_id": "a\nb"}]
)
def test_settings_that_cannot_work_are_refused(receiver: LokiReceiver, changes: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        settings(receiver, **changes).check()
