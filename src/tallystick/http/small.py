"""Small requests without a task and an ASGI conversation each.

Most of what one small request costs is not its event but its surroundings: a task, a scope, messages to and fro, an answer
in two writes. A `SmallDoor` takes such requests from the protocol whole, as bytes, many at a time, and gives each its
answer in one write. Whatever it does not want, before or after the body came, goes the ordinary way and is answered there;
so a door here needs to know success only, and every refusal has one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tallystick.http.security import with_security_headers

if TYPE_CHECKING:
    from tallystick.http.protocol import LimitedProtocol

SMALL_BYTES_MAX = 16 * 1024
"""Bodies up to this many bytes are small."""


class SmallDoor(Protocol):
    """Takes small requests from all connections of one listener."""

    def ticket(self, url: bytes, headers: Mapping[bytes, bytes]) -> Any:
        """What `take` needs to know of a POST with this target and these headers; None sends it the ordinary way."""

    def take(self, request: SmallRequest) -> None:
        """The request is whole. Its `answer` or `decline` is to be called, once, now or later."""


class _Nobody:
    """Stands for uvicorn's event of a request: nobody waits for one here."""

    __slots__ = ()

    def set(self) -> None:
        """Nothing to wake."""


class SmallRequest:
    """One request on its way through a `SmallDoor`. To uvicorn's protocol it looks like a cycle that has not yet answered."""

    __slots__ = ("_protocol", "_scope", "body", "disconnected", "keep_alive", "more_body", "response_complete", "ticket")

    message_event = _Nobody()
    response_started = False

    def __init__(self, protocol: LimitedProtocol, scope: Any, ticket: Any) -> None:
        self.ticket = ticket
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self._protocol = protocol
        self._scope = scope

    def answer(self, body: bytes) -> None:
        """200 with a JSON body. A client that has gone gets none."""
        self.response_complete = True
        if not self.disconnected:
            self._protocol.answer_small(self, body)

    def hang_up(self) -> None:
        """No answer, and no second try: it may be stored."""
        self.response_complete = True
        if not self.disconnected:
            self._protocol.hang_up()

    def decline(self) -> None:
        """Let the application answer."""
        if not self.disconnected:
            self._protocol.pass_on(self, self._scope)


def success_head(default_headers: list[tuple[bytes, bytes]], *, is_tls: bool) -> bytes:
    """Everything of a 200 with a JSON body up to the value of its Content-Length."""
    lines = [*default_headers, *with_security_headers([(b"content-type", b"application/json")], is_tls=is_tls)]
    return b"".join((b"HTTP/1.1 200 OK\r\n", *(b"%b: %b\r\n" % line for line in lines), b"content-length: "))
