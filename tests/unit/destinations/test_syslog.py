"""The syslog destination: frames, and what the other side's end says. Sockets are real, the other side is a few lines here."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.delivery import make_cut, make_line
from tallystick.config import Duration, Size
from tallystick.destinations.syslog import SyslogDestination, SyslogSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.protocols.syslog_frames import SyslogFramer
from tallystick.sources.remote import RemoteTlsSettings

LINES = [make_line(index) for index in range(4)]


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], Any], port: int = 0) -> Iterator[int]:
    """A server of one connection: ``serve`` gets it, and it is closed behind that. Gives the port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(10)

        def run() -> None:
            with listener.accept()[0] as sock:
                sock.settimeout(10)
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def settings(port: int, **changes: Any) -> SyslogSettings:
    return SyslogSettings(**({"host": "127.0.0.1", "port": port, "timeout": Duration("5s")} | changes))


async def send(port: int, lines: list[bytes] = LINES, **changes: Any) -> Answer:
    destination = SyslogDestination("siem", settings(port, **changes))
    answer = await destination.send(make_cut(destination, lines))
    await destination.close()
    return answer


def reader(found: list[bytes]) -> Callable[[socket.socket], None]:
    """Reads to the end, as a syslog server does."""

    def serve(sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            found.append(data)

    return serve


@pytest.mark.parametrize("framing", ["octet-counting", "lf"])
@pytest.mark.parametrize("encoding", ["rfc5424", "cef", "json"])
async def test_our_own_framer_reads_the_frames(framing: str, encoding: str) -> None:
    """Each message whole and in order, in both framings; the canonical line or the record is its text."""
    found: list[bytes] = []
    with listening(reader(found)) as port:
        assert (await send(port, framing=framing, encoding=encoding)).kind is AnswerKind.DELIVERED
    messages = SyslogFramer(1 << 16).feed(b"".join(found))
    assert len(messages) == 4
    for message, line in zip(messages, LINES, strict=True):
        assert message.startswith(b"<110>1 2026-03-04T05:06:07.000000Z - tallystick - ")
        assert (b" CEF:0|Tallystick|" in message) if encoding == "cef" else message.endswith(b" " + line)


async def test_a_server_that_closes_before_our_end_has_not_confirmed() -> None:
    """It read something and closed, as one that is restarted does: a retry, however it closed."""

    def close_at_once(sock: socket.socket) -> None:
        sock.recv(10)

    def close_with_a_reset(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for serve in (close_at_once, close_with_a_reset):
        with listening(serve) as port:
            answer = await send(port, [make_line(index) for index in range(2_000)])
            assert answer.kind is AnswerKind.RETRY
            assert answer.reason


async def test_a_server_that_never_closes_is_a_retry_unless_it_need_not() -> None:
    """With `confirm` no end is no answer; without it the connection stays, and carries the next cut as well."""
    is_over = threading.Event()
    found: list[bytes] = []

    def keep(sock: socket.socket) -> None:
        reader(found)(sock)
        is_over.wait(10)

    with listening(keep) as port:
        answer = await send(port, timeout=Duration("200ms"))
        assert (answer.kind, "timed out" in answer.reason) == (AnswerKind.RETRY, True)
        is_over.set()
    found.clear()
    with listening(reader(found)) as port:
        destination = SyslogDestination("siem", settings(port, confirm=False))
        for first in (0, 2):
            answer = await destination.send(make_cut(destination, LINES[first : first + 2], first))
            assert answer.kind is AnswerKind.DELIVERED
        await destination.close()
    assert len(SyslogFramer(1 << 16).feed(b"".join(found))) == 4


async def test_a_kept_connection_that_was_closed_is_made_anew() -> None:
    """The next attempt finds it closed, which is a retry; the one after that connects."""
    found: list[bytes] = []
    with listening(lambda sock: sock.recv(1)) as port:
        destination = SyslogDestination("siem", settings(port, confirm=False))
        first = await destination.send(make_cut(destination, LINES))
    second = await destination.send(make_cut(destination, LINES))
    with listening(reader(found), port=port):
        third = await destination.send(make_cut(destination, LINES))
        await destination.close()
    assert [answer.kind for answer in (first, second, third)] == [AnswerKind.DELIVERED, AnswerKind.RETRY, AnswerKind.DELIVERED]
    assert len(SyslogFramer(1 << 16).feed(b"".join(found))) == 4


async def test_an_event_that_would_be_cut_is_dead_lettered_alone() -> None:
    """By the size of its message; the others are sent."""
    large = json.loads(LINES[1]) | {"reason": "r" * 2_000}
    lines = [LINES[0], json.dumps(large, separators=(",", ":")).encode(), LINES[2]]
    found: list[bytes] = []
    with listening(reader(found)) as port:
        answer = await send(port, lines, message_max=Size("2KiB"))
    assert (answer.kind, answer.reason, list(answer.refused)) == (AnswerKind.DELIVERED, "too_large", [1])
    assert len(SyslogFramer(1 << 16).feed(b"".join(found))) == 2
    alone = await send(1, lines[1:2], message_max=Size("2KiB"))
    assert (alone.kind, alone.reason) == (AnswerKind.REFUSED, "too_large")


async def test_nobody_there_is_a_retry() -> None:
    """Sending and probing alike."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert (await send(port)).kind is AnswerKind.RETRY
        destination = SyslogDestination("siem", settings(port))
        assert (await destination.probe()).kind is AnswerKind.RETRY
        await destination.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "siem.example.com"},
        {"message_max": Size("400B")},
        {"encoding": "no-such"},
        {"tls": RemoteTlsSettings(ca="/no/such")},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    """In the clear to another machine, a size that no receiver has, an unknown form, a file that is not there."""

    def check_all() -> None:
        made = settings(514, **changes)
        made.check()
        made.check_encoding()

    with pytest.raises(ConfigError):
        check_all()
