"""The email destination, against a real SMTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.delivery import make_cut, make_line
from support.smtp_server import PASSWORD, USER, SmtpServer, run_smtp_server
from tallystick.config import Duration
from tallystick.destinations.email import EmailDestination, EmailSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.sources.remote import RemoteTlsSettings

LINES = [make_line(index) for index in range(3)]


def make_alert(index: int, actor: str = "u_1", **facts: Any) -> bytes:
    """An alert's line, as the engine makes them."""
    event = json.loads(make_line(index, action="tallystick.alert"))
    event |= {
        "id": f"alert:denials:{index}",
        "severity": 4,
        "actor": {"type": "system", "id": "tallystick", "name": "Tallystick"},
        "targets": [{"type": "rule", "id": "denials", "name": "Denied twenty times"}],
        "reason": "Somebody tries what they may do.",
        "metadata": {"rule": "denials", "severity": "high", "group": {"actor": actor}, "count": 20},
    }
    return json.dumps(event | facts).encode()


@pytest.fixture(scope="module")
def running() -> Iterator[SmtpServer]:
    with run_smtp_server() as server:
        yield server


@pytest.fixture
def server(running: SmtpServer) -> SmtpServer:
    running.messages.clear()
    running.recipients.clear()
    running.secured.clear()
    running.data, running.refused = "", {}
    return running


def settings(server: SmtpServer, **changes: Any) -> EmailSettings:
    mine = {
        "host": "127.0.0.1", "port": server.port, "sender": "audit@example.com", "to": ("a@example.com", "b@example.com"),
        "username": USER, "password": PASSWORD, "tls": RemoteTlsSettings(ca=str(server.ca)), "interval": Duration("1ms"),
    }  # fmt: skip
    return EmailSettings(**(mine | changes))


async def send(server: SmtpServer, lines: list[bytes] = LINES, **changes: Any) -> Answer:
    destination = EmailDestination("mail", settings(server, **changes))
    answer = await destination.send(make_cut(destination, lines))
    await destination.close()
    return answer


async def test_an_alert_is_a_message_that_says_what_happened(server: SmtpServer) -> None:
    """Title, severity, tenant and how many in the subject; the facts, a link to the console and the place in the log in the text."""
    answer = await send(server, [make_alert(0), make_line(1)], console="https://audit.example.com/")
    assert answer.kind is AnswerKind.DELIVERED
    (message,), (text,) = server.messages, server.texts()
    assert message["Subject"] == "[Tallystick] high: Denied twenty times (acme) and 1 more"
    assert (message["From"], message["To"]) == ("audit@example.com", "a@example.com, b@example.com")
    assert server.recipients == [["a@example.com", "b@example.com"]]
    assert server.secured == [True]
    for said in (
        "high: Denied twenty times\n  2026-03-04 05:06:07Z tallystick.alert in acme, by Tallystick: success\n  Somebody tries",
        "  rule: denials\n  count: 20\n  actor: u_1\n  https://audit.example.com/alerts?id=alert%3Adenials%3A0&tenant=acme\n",
        "\nuser.login\n",
    ):
        assert said in text


async def test_the_same_cut_is_the_same_message(server: SmtpServer) -> None:
    """After a lost answer and a restart: one message id, one text."""
    await send(server)
    await send(server)
    first, second = server.messages
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Message-ID"] in (await send(server)).where
    assert first.get_content() == second.get_content()


async def test_nothing_in_an_event_makes_a_header_or_a_line(server: SmtpServer) -> None:
    """Names with line breaks and control characters, in the subject and in the text."""
    targets = [{"type": "rule", "id": "x", "name": "A\r\nBcc: evil@example.com\r\n\x1b[31mred" + "y" * 300}]
    await send(server, [make_alert(0, targets=targets, reason="one\ntwo\u2028three")])
    (message,), (text,) = server.messages, server.texts()
    assert message["Bcc"] is None
    assert len(message["Subject"]) <= 150
    assert "  one two three\n" in text
    assert "\x1b" not in text


async def test_one_refused_address_sends_to_nobody(server: SmtpServer) -> None:
    """A 5xx parks and names the address, a 4xx waits; no other address gets a message that would come again."""
    server.refused = {"b@example.com": "550 5.1.1 unknown"}
    answer = await send(server)
    assert (answer.kind, answer.reason) == (AnswerKind.PARK, "550 b@example.com: 5.1.1 unknown")
    server.refused = {"b@example.com": "450 4.2.0 greylisted"}
    assert (await send(server)).kind is AnswerKind.RETRY
    assert server.messages == []


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        ("451 4.3.0 later", AnswerKind.RETRY, "451 4.3.0 later"),
        ("552 5.3.4 too big", AnswerKind.SPLIT, "too_large"),
        ("554 5.7.1 spam", AnswerKind.SPLIT, "refused"),
    ],
)
async def test_answers_to_a_message(server: SmtpServer, said: str, kind: AnswerKind, reason: str) -> None:
    """What is said to the message itself."""
    server.data = said
    answer = await send(server)
    assert (answer.kind, answer.reason) == (kind, reason)


async def test_nothing_is_said_without_the_tls_that_was_asked_for(server: SmtpServer) -> None:
    """A stranger's certificate, a server without STARTTLS, and a wrong password: parked, and no message anywhere."""
    stranger = await send(server, tls=RemoteTlsSettings(ca=str(server.stranger)))
    password = await send(server, password="wrong")
    with run_smtp_server(is_secure=False) as plain:
        bare = await send(plain, username=None, password=None)
        allowed = await send(plain, username=None, password=None, security="none")
        assert len(plain.messages) == 1
    assert [answer.kind for answer in (stranger, password, bare, allowed)] == [AnswerKind.PARK] * 3 + [AnswerKind.DELIVERED]
    assert "certificate" in stranger.reason
    assert password.reason.startswith("535")
    assert server.messages == []


async def test_an_alert_that_was_told_lately_makes_no_message(server: SmtpServer) -> None:
    """Same rule and group within `repeat`: settled with the message that told of it; another group is news, and so is any other event."""
    destination = EmailDestination("mail", settings(server, repeat=Duration("1h")))
    first = await destination.send(make_cut(destination, [make_alert(0)]))
    again = await destination.send(make_cut(destination, [make_alert(1)], 1))
    news = await destination.send(make_cut(destination, [make_alert(2), make_alert(3, "u_2")], 2))
    other = await destination.send(make_cut(destination, [make_line(4)], 4))
    await destination.close()
    assert {answer.kind for answer in (first, again, news, other)} == {AnswerKind.DELIVERED}
    assert again.where == f"told by {server.messages[0]['Message-ID']}"
    assert len(server.messages) == 3


async def test_of_many_events_the_number_is_said(server: SmtpServer) -> None:
    """Fifty are spelled out."""
    await send(server, [make_line(index) for index in range(60)])
    assert server.texts()[0].count("  id: ") == 50
    assert "… and 10 more events" in server.texts()[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"to": ("nobody",)},
        {"sender": "a@b\r\nBcc: c@d"},
        {"host": "mail.example.com", "security": "none"},
        {"password": None},
        {"console": "javascript:1"},
    ],
)
def test_what_is_not_safe_is_refused(server: SmtpServer, changes: dict[str, Any]) -> None:
    """Addresses that are none, the open network in the clear, half a login, a console that is no URL."""
    settings(server).check()
    with pytest.raises(ConfigError):
        settings(server, **changes).check()
