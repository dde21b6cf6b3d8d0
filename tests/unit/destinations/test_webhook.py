"""The webhook destination: signatures, the table of answers, and what its settings refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from tallystick.destinations.webhook import TABLE, WebhookDestination, WebhookSettings, read_secret, sign_message
from tallystick.errors import ConfigError
from tallystick.http.outbound import Reply
from tallystick.plugin import AnswerKind

RAW = "raw secret of enough bytes"


def settings(**changes: Any) -> WebhookSettings:
    return WebhookSettings(**({"url": "https://example.com/hook", "secret": RAW} | changes))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, AnswerKind.DELIVERED),
        (204, AnswerKind.DELIVERED),
        (301, AnswerKind.PARK),
        (400, AnswerKind.SPLIT),
        (401, AnswerKind.PARK),
        (403, AnswerKind.PARK),
        (404, AnswerKind.PARK),
        (408, AnswerKind.RETRY),
        (409, AnswerKind.RETRY),
        (410, AnswerKind.PARK),
        (413, AnswerKind.SPLIT),
        (422, AnswerKind.SPLIT),
        (425, AnswerKind.RETRY),
        (429, AnswerKind.THROTTLE),
        (500, AnswerKind.RETRY),
        (503, AnswerKind.THROTTLE),
        (507, AnswerKind.RETRY),
        (999, AnswerKind.RETRY),
    ],
)
def test_each_status_has_its_answer(status: int, kind: AnswerKind) -> None:
    """The table decides, and no status means "drop"."""
    assert TABLE.answer(Reply(status, {}, b""), "there").kind is kind


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds and an HTTP date; anything else is no advice."""
    assert TABLE.answer(Reply(429, {"retry-after": "7"}, b""), "").retry_after_s == 7.0
    assert TABLE.answer(Reply(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""), "").retry_after_s == 0.0
    assert TABLE.answer(Reply(503, {"retry-after": "soon"}, b""), "").retry_after_s is None
    assert TABLE.answer(Reply(503, {}, b""), "").retry_after_s is None


def test_signatures_follow_standard_webhooks() -> None:
    """HMAC-SHA256 over id, timestamp and body with the decoded secret; one signature per secret while they change over."""
    key = b"0123456789abcdef0123"
    secret = "whsec_" + base64.b64encode(key).decode()
    expected = base64.b64encode(hmac.new(key, b"msg.17.{}", hashlib.sha256).digest()).decode()
    header = sign_message([read_secret(secret), read_secret(RAW)], "msg", "17", b"{}")
    assert header.split(" ")[0] == f"v1,{expected}"
    assert len(header.split(" ")) == 2


@pytest.mark.parametrize("secret", ["short", "whsec_!!!!", "whsec_YWJj"])
def test_weak_or_broken_secrets_are_refused(secret: str) -> None:
    """A secret that protects nothing is a configuration error."""
    with pytest.raises(ConfigError):
        read_secret(secret)


@pytest.mark.parametrize(
    "changes",
    [{"url": "http://example.com/hook"}, {"url": "ftp://example.com"}, {"url": "https://u:p@example.com/"}, {"url": "https:///x"}],
)
def test_urls_that_are_not_safe_are_refused(changes: dict[str, Any]) -> None:
    """Plain http, other schemes and credentials in the URL need another form or an explicit word."""
    with pytest.raises(ConfigError):
        WebhookDestination("hook", settings(**changes))


def test_plain_http_is_possible_by_word() -> None:
    """`insecure = true` is that word."""
    WebhookDestination("hook", settings(url="http://example.com/hook", insecure=True))


async def test_a_private_address_parks_with_the_reason() -> None:
    """Loopback is refused before a connection is made, also when it is written as a number."""
    for host in ("127.0.0.1", "2130706433", "localhost", "[::1]"):
        destination = WebhookDestination("hook", settings(url=f"https://{host}/x"))
        answer = await destination.probe()
        assert answer.kind is AnswerKind.PARK
        assert "not public" in answer.reason
        await destination.close()
