"""The syslog destination against a real rsyslogd: over TCP and TLS, in both framings, and over its death."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.delivery import make_cut, make_line
from support.rsyslog_sink import RsyslogSink, run_rsyslog_sink
from tallystick.config import Duration
from tallystick.destinations.syslog import SyslogDestination, SyslogSettings
from tallystick.plugin import AnswerKind
from tallystick.sources.remote import RemoteTlsSettings


@pytest.fixture(scope="module")
def sink() -> Iterator[RsyslogSink]:
    with run_rsyslog_sink() as running:
        yield running


def make_destination(sink: RsyslogSink, transport: str, **changes: Any) -> SyslogDestination:
    way = {"port": sink.tcp_port} if transport == "tcp" else {"port": sink.tls_port, "tls": RemoteTlsSettings(ca=str(sink.ca))}
    return SyslogDestination("siem", SyslogSettings(**({"host": "127.0.0.1", "timeout": Duration("10s")} | way | changes)))


@pytest.mark.parametrize(
    ("transport", "framing", "confirm"),
    [("tcp", "octet-counting", True), ("tcp", "lf", True), ("tls", "octet-counting", True), ("tls", "octet-counting", False)],
)
async def test_every_line_arrives_byte_for_byte(sink: RsyslogSink, transport: str, framing: str, confirm: bool) -> None:
    """A thousand events in five cuts: rsyslog writes each canonical line as it is in the log, once and in order."""
    first = len(sink.texts())
    lines = [make_line(first + number) for number in range(1_000)]
    destination = make_destination(sink, transport, framing=framing, confirm=confirm)
    assert (await destination.probe()).kind is AnswerKind.DELIVERED
    for at in range(0, 1_000, 200):
        answer = await destination.send(make_cut(destination, lines[at : at + 200], first + at))
        assert answer.kind is AnswerKind.DELIVERED, answer.reason
    await destination.close()
    if not confirm:  # nobody says when it is read: wait for the file
        sink.wait(first + 1_000)
    assert [text.encode() for text in sink.texts()[first:]] == lines


async def test_what_is_confirmed_was_read(sink: RsyslogSink) -> None:
    """As soon as a cut is delivered, a message sent afterwards by another way is written behind it: it had been read."""
    first = len(sink.texts())
    destination = make_destination(sink, "tls")
    for number in range(20):
        cut = make_cut(destination, [make_line(first + number)], first + number)
        assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
        assert len(sink.texts()) == first + number + 1
    await destination.close()
