"""The datadog destination, against a receiver that datadog-api-client, Datadog's own client, is happy with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException, ForbiddenException
from datadog_api_client.v2.api.logs_api import LogsApi
from datadog_api_client.v2.model.content_encoding import ContentEncoding
from datadog_api_client.v2.model.http_log import HTTPLog
from datadog_api_client.v2.model.http_log_item import HTTPLogItem

from support.delivery import make_cut, make_line
from tallystick.config import BatchSettings
from tallystick.destinations.datadog import DatadogDestination, DatadogSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.datadog import DatadogReceiver
from tallystick.testing.receiver import Said

KEY = "0123456789abcdef0123456789abcdef"
LINES = [make_line(index) for index in range(4)]


@pytest.fixture
def receiver() -> Iterator[DatadogReceiver]:
    with DatadogReceiver() as running:
        yield running


def settings(receiver: DatadogReceiver, **changes: Any) -> DatadogSettings:
    return DatadogSettings(**({"url": receiver.url, "allow_private": True, "api_key": KEY} | changes))


async def send(receiver: DatadogReceiver, *answers: Said, lines: list[bytes] = LINES, **changes: Any) -> Answer:
    destination = DatadogDestination("dd", settings(receiver, **changes))
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, lines))
    await destination.close()
    return answer


def submit(receiver: DatadogReceiver, key: str, *messages: str) -> Any:
    """What Datadog's own client makes of an answer."""
    configuration = Configuration(host=receiver.url, api_key={"apiKeyAuth": key, "appKeyAuth": "a"}, enable_retry=False)
    configuration.server_operation_index = {"v2.submit_log": 0}
    with ApiClient(configuration) as client:
        client.configuration.host = receiver.url
        api = LogsApi(client)
        api._submit_log_endpoint.settings["servers"] = [{"url": receiver.url, "description": "", "variables": {}}]
        items = [HTTPLogItem(message=message, ddsource="test", service="app", ddtags="a:b") for message in messages]
        return api.submit_log(HTTPLog(items), content_encoding=ContentEncoding.GZIP)


def test_the_receiver_answers_as_datadogs_own_client_expects(receiver: DatadogReceiver) -> None:
    """Entries arrive, a wrong key is Forbidden, a refused payload carries its error."""
    submit(receiver, KEY, "one", "two")
    assert [entry["message"] for entry in receiver.entries] == ["one", "two"]
    with pytest.raises(ForbiddenException):
        submit(receiver, "wrong", "x")
    receiver.judge = lambda entry: "no such thing"
    with pytest.raises(ApiException) as refused:
        submit(receiver, KEY, "x")
    assert refused.value.status == 400
    assert "no such thing" in str(refused.value.body)


async def test_an_event_is_the_message_of_an_entry(receiver: DatadogReceiver) -> None:
    """Canonical line as text; source, service and tags as the settings say, with the tenant."""
    assert (await send(receiver, tags={"env": "prod"}, service="audit")).kind is AnswerKind.DELIVERED
    assert receiver.entries == [
        {"ddsource": "tallystick", "service": "audit", "ddtags": "tenant:acme,env:prod", "message": line.decode()} for line in LINES
    ]


async def test_what_datadog_would_cut_is_never_sent(receiver: DatadogReceiver) -> None:
    """A line over 1 MB, and a body over 5 MB, are split until one event is left, which is then dead-lettered whole."""
    large = LINES[0][:-1] + b',"raw":"' + b"x" * 1_000_000 + b'"}'
    answer = await send(receiver, lines=[large])
    assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "too_large")
    middle = LINES[0][:-1] + b',"raw":"' + b"x" * 900_000 + b'"}'
    assert (await send(receiver, lines=[middle] * 6)).kind is AnswerKind.SPLIT
    assert receiver.requests == []
    assert (await send(receiver, lines=[middle] * 5)).kind is AnswerKind.DELIVERED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, AnswerKind.DELIVERED),
        (202, AnswerKind.DELIVERED),
        (400, AnswerKind.SPLIT),
        (413, AnswerKind.SPLIT),
        (429, AnswerKind.THROTTLE),
        (503, AnswerKind.THROTTLE),
        (408, AnswerKind.RETRY),
        (500, AnswerKind.RETRY),
        (401, AnswerKind.PARK),
        (403, AnswerKind.PARK),
        (301, AnswerKind.PARK),
    ],
)
async def test_each_status_has_its_answer(receiver: DatadogReceiver, status: int, kind: AnswerKind) -> None:
    """The table, over the wire."""
    assert (await send(receiver, Said(status))).kind is kind


@pytest.mark.parametrize(
    "changes", [{"api_key": "ä"}, {"tags": {"a": "b,c"}}, {"tags": {"a b": "c"}}, {"batch": BatchSettings(max_events=1_001)}]
)
def test_settings_that_cannot_work_are_refused(receiver: DatadogReceiver, changes: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        settings(receiver, **changes).check()
