"""What destinations over HTTP share: addresses that are not public, nobody there, credentials, and answers that are garbage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.delivery import make_cut, make_line
from tallystick.destinations.datadog import DatadogDestination, DatadogSettings
from tallystick.destinations.loki import LokiDestination, LokiSettings
from tallystick.destinations.opensearch import OpenSearchDestination, OpenSearchSettings
from tallystick.destinations.otlp import OtlpDestination, OtlpSettings, read_success
from tallystick.destinations.over_http import basic_authorization
from tallystick.destinations.pagerduty import PagerDutyDestination, PagerDutySettings
from tallystick.destinations.slack import SlackDestination, SlackSettings
from tallystick.destinations.splunk_hec import SplunkHecDestination, SplunkHecSettings, read_reply
from tallystick.destinations.webhook import WebhookDestination, WebhookSettings
from tallystick.errors import ConfigError
from tallystick.http.outbound import Reply
from tallystick.plugin import AnswerKind
from tallystick.testing.opensearch import OpenSearchReceiver
from tallystick.testing.receiver import Said

KINDS: list[tuple[Any, Any, dict[str, Any]]] = [
    (DatadogDestination, DatadogSettings, {"api_key": "k"}),
    (LokiDestination, LokiSettings, {}),
    (OpenSearchDestination, OpenSearchSettings, {}),
    (OtlpDestination, OtlpSettings, {}),
    (PagerDutyDestination, PagerDutySettings, {"routing_key": "k"}),
    (SlackDestination, SlackSettings, {}),
    (SplunkHecDestination, SplunkHecSettings, {"token": "t"}),
    (WebhookDestination, WebhookSettings, {"secret": "a secret, long enough"}),
]
LINES = [make_line(index) for index in range(3)]


@pytest.mark.parametrize(("kind", "settings", "more"), KINDS)
async def test_a_private_address_parks_and_nobody_there_is_a_retry(kind: Any, settings: Any, more: dict[str, Any]) -> None:
    """Sending and probing, for each kind: no request is led into our own network unless the settings say so."""
    for url, allowed, expected in (("https://127.0.0.1:9", False, AnswerKind.PARK), ("http://127.0.0.1:9", True, AnswerKind.RETRY)):
        destination = kind("d", settings(url=url, allow_private=allowed, **more))
        answers = [await destination.send(make_cut(destination, LINES)), await destination.probe()]
        assert [answer.kind for answer in answers] == [expected] * 2
        assert all(answer.reason for answer in answers)
        assert ("not public" in answers[0].reason) is not allowed
        await destination.close()


@pytest.mark.parametrize(("kind", "settings", "more"), KINDS)
def test_what_is_not_safe_is_refused(kind: Any, settings: Any, more: dict[str, Any]) -> None:
    """Plain http to a public address, other schemes, credentials in the URL, and a CA file that is not there."""
    for url in ("http://example.com", "ftp://example.com", "https://u:p@example.com"):
        with pytest.raises(ConfigError):
            settings(url=url, **more).check()
    settings(url="http://example.com", insecure=True, **more).check()
    with pytest.raises(ConfigError):
        settings(url="https://example.com", ca="/no/such.pem", **more).check()


def test_one_way_to_say_who_sends() -> None:
    """A user with a password, or a token; half of one, and both, are refused."""
    assert basic_authorization(None, None, None) == {}
    assert basic_authorization("ann", "pä", None) == {"authorization": "Basic YW5uOnDDpA=="}
    assert basic_authorization(None, None, "t", "ApiKey") == {"authorization": "ApiKey t"}
    bad = (("u", None, None), (None, "p", None), ("u", "p", "t"), ("u:v", "p", None), (None, None, "a\nb"), (None, None, " "))
    for user, password, token in bad:
        with pytest.raises(ConfigError):
            basic_authorization(user, password, token)


@given(status=st.integers(100, 999), body=st.binary(max_size=60))
def test_garbage_is_no_success(status: int, body: bytes) -> None:
    """Whatever bytes come as an answer, they are sorted; Splunk's success needs its own code."""
    answer = read_reply(Reply(status, {}, body), "there")
    assert answer.kind is not AnswerKind.DELIVERED or b'"code"' in body
    assert answer.kind is AnswerKind.DELIVERED or answer.reason
    assert read_success(Reply(200, {}, body), 3, "there").kind in (
        AnswerKind.DELIVERED,
        AnswerKind.RETRY,
        AnswerKind.SPLIT,
        AnswerKind.REFUSED,
    )


async def test_an_answer_over_the_limit_splits() -> None:
    """A bulk answer that is longer than what is read of it settles nothing: half as many events have half as long an answer."""
    with OpenSearchReceiver() as receiver:
        destination = OpenSearchDestination("search", OpenSearchSettings(url=receiver.url, allow_private=True))
        receiver.script = [Said(200, b" " * (16 << 20))]
        answer = await destination.send(make_cut(destination, LINES))
        assert (answer.kind, answer.reason) == (AnswerKind.SPLIT, "too_large")
        await destination.close()
