"""uvicorn's HTTP/1.1 protocol with deadlines, caps and a clean end (RELIABILITY "Hostile inputs").

Where a connection is, and what may pass before something must happen

    idle      idle_time     no request has begun: closed
    head      head_time     request line and headers are coming: 408
    body      body_time     the body is coming: 408, or closed when the answer has begun
    waiting   none          the request is whole, the answer is being made
    linger    2 s           refused: the answer is out, what still comes is thrown away until the other side closes

1. Deadlines are times on the connection; one sweep a second over all of them keeps them. A request costs no timer.
2. A head over its size or number of headers is 431; a Content-Length over the limit is 413 before any of the body is read.
   Malformed lengths, two lengths, a length with chunks: refused by the parser, 400. Two Host or Authorization headers: 400.
3. Past the connection caps, in all and for one address, the newcomer gets 503; those that are there are served.
4. A refusal with a body still on its way is followed by half a close, not a close: closing with unread bytes sends a reset
   that can destroy the answer before the sender reads it (RFC 9112 section 9.6).
5. An answer that its reader does not take is given up after idle_time.
6. An application that cannot say what became of a request hangs up (`HANG_UP` among the scope's extensions): no answer says "unknown".
7. A small request may go through a `SmallDoor` (`http.small`) instead of a task and an ASGI conversation of its own.

To be used with uvicorn's ``ws="none"``, ``proxy_headers=False`` (no header of a sender changes who it seems to be) and
``server_header=False``; its ``timeout_keep_alive`` has no effect, idle_time takes its place.
"""

from __future__ import annotations

import asyncio
import enum
import math
import uuid
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tallystick.config import IngestLimits
from tallystick.holdings import Holdings, OwnHoldings
from tallystick.http.problem import Problem
from tallystick.http.security import with_security_headers
from tallystick.http.small import SMALL_BYTES_MAX, SmallDoor, SmallRequest, success_head

HANG_UP = "tallystick.hang_up"
"""The ASGI extension of rule 6: a function without arguments, to be called in place of an answer."""

_LINGER_S = 2.0
_SWEEP_S = 1.0
_SPECIAL_HEADERS = frozenset({b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"})
_SINGLE_HEADERS = (b"host", b"authorization", b"content-type", b"content-encoding")


class Phase(enum.IntEnum):
    """See the table in the module's text."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    WAITING = 3
    LINGER = 4


class Connections:
    """All connections of one listener in this process, and the sweep that keeps the deadlines. ``holdings`` count them for the caps,
    by address, over all processes that share the listener."""

    def __init__(self, limits: IngestLimits, small: SmallDoor | None = None, holdings: Holdings | None = None) -> None:
        self.small = small
        self.refused = 0
        self._head: tuple[Any, bytes] = (None, b"")
        self._open: set[LimitedProtocol] = set()
        self._holdings = holdings or OwnHoldings()
        self._sweep_handle: asyncio.TimerHandle | None = None
        self.meet(limits)

    def meet(self, limits: IngestLimits) -> None:
        """From now on these limits hold, for the connections that are there too."""
        self.limits = limits
        times = (limits.idle_time.seconds, limits.head_time.seconds, limits.body_time.seconds)
        self.times_s = (*times, math.inf, _LINGER_S)  # by phase
        self.body_max = limits.body.bytes
        self.head_max = limits.head.bytes
        self.headers_max = limits.headers
        self._sweep_s = min(_SWEEP_S, *(time / 4 for time in times))

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: LimitedProtocol, address: str) -> bool:
        """Count a connection in; False when a cap is reached."""
        holdings, limits = self._holdings, self.limits
        if holdings.total >= limits.connections or (address and holdings.held(address) >= limits.connections_per_address):
            self.refused += 1
            return False
        self._open.add(connection)
        holdings.add(address, 1)
        if self._sweep_handle is None:
            self._sweep_handle = connection.loop.call_later(self._sweep_s, self._sweep, connection.loop)
        return True

    def leave(self, connection: LimitedProtocol, address: str) -> None:
        """Count a connection out."""
        if connection in self._open:
            self._open.discard(connection)
            self._holdings.add(address, -1)

    def success_head(self, default_headers: list[tuple[bytes, bytes]], *, is_tls: bool) -> bytes:
        """`small.success_head`, made once for each list of default headers: uvicorn makes a new one a second, with the date."""
        if self._head[0] is not default_headers:
            self._head = (default_headers, success_head(default_headers, is_tls=is_tls))
        return self._head[1]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._open):
            connection.keep_deadlines(now)
        self._sweep_handle = loop.call_later(self._sweep_s, self._sweep, loop) if self._open else None


class _Outlet:
    """The transport as uvicorn sees it: closing with a body on its way lingers first (rule 4)."""

    __slots__ = ("_protocol", "_transport", "get_extra_info", "pause_reading", "resume_reading", "write")

    def __init__(self, transport: asyncio.Transport, protocol: LimitedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def is_closing(self) -> bool:
        return self._protocol.phase is Phase.LINGER or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.phase is Phase.BODY and not self._transport.is_closing():
            self._protocol.linger()
        elif self._protocol.phase is not Phase.LINGER:
            self._transport.close()


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Made by uvicorn through `limited_protocol`."""

    table: Connections
    phase = Phase.IDLE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._head_bytes = self._chunk_bytes = 0
        self._refusal: Problem | None = None
        self._write_due = 0.0
        self._due = math.inf
        self._extensions = {HANG_UP: self.hang_up}
        self._asked: RequestResponseCycle | None = None
        super().connection_made(_Outlet(transport, self))  # type: ignore[arg-type]
        self._address = self.client[0] if self.client else ""
        if not self.table.admit(self, self._address):
            self.refuse(Problem(503, "too_many_connections", "too many connections", headers={"retry-after": "1"}))
            transport.close()
            return
        self._enter(Phase.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.LINGER:
            return
        self._chunk_bytes = len(data)
        is_first = self.phase is Phase.IDLE
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No upgrade is offered; the answer ends the connection, since the parser takes no further request.
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            self.refuse(self._refusal or _problem_of(error))
            return
        if self.phase is Phase.HEAD:
            # What the parser holds of an unfinished header is seen only here: all that came belongs to this head.
            if is_first:
                self._head_bytes = len(data)
            if problem := self._head_problem(self._head_bytes):
                self.refuse(problem)

    def eof_received(self) -> None:
        if self.phase is Phase.LINGER:
            self._transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self._head_bytes = 0
        self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        values = dict(self.headers)
        problem = self._header_problem(values)
        if problem is not None:
            # What is raised in a callback of the parser ends `feed_data` with an HttpParserError.
            self._refusal = problem
            raise problem
        self._enter(Phase.BODY)
        small = self._small_request(values) if self.table.small is not None else None
        if small is not None:
            self.cycle = small  # type: ignore[assignment]
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle: Any = self.cycle
        if cycle is not None and cycle.response_complete and not self.pipeline:
            self._enter(Phase.IDLE)
        else:
            self._enter(Phase.WAITING)
            if type(cycle) is SmallRequest and self.table.small is not None:
                self.table.small.take(cycle)

    def answer_small(self, request: SmallRequest, body: bytes) -> None:
        """Write the whole 200 of a small request."""
        if self._transport.is_closing():
            return
        head = self.table.success_head(self.server_state.default_headers, is_tls=self.scheme == "https")
        end = b"\r\n\r\n" if request.keep_alive else b"\r\nconnection: close\r\n\r\n"
        self._transport.write(b"%b%d%b%b" % (head, len(body), end, body))
        if not request.keep_alive:
            self._transport.close()
        self.on_response_complete()

    def pass_on(self, request: SmallRequest, scope: Any) -> None:
        """Give a small request to the application after all."""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=request.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += request.body
        cycle.more_body = False
        cycle.message_event.set()
        last: Any = self.cycle
        if last is request:
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _small_request(self, values: dict[bytes, bytes]) -> SmallRequest | None:
        """The request whose head is complete, when it is a small one that the door wants and nothing about it is special."""
        length = values.get(b"content-length")
        if length is None or int(length) > SMALL_BYTES_MAX or len(values) != len(self.headers) or self.table.small is None:
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None  # pipelined: its turn comes when the one before is answered, in uvicorn's way
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        if not _SPECIAL_HEADERS.isdisjoint(values):
            return None
        ticket = self.table.small.ticket(self.url, values)
        if ticket is None:
            return None
        scope: Any = self.scope
        scope.update(method="POST", path=self.url.decode("ascii"), raw_path=self.url, query_string=b"")
        return SmallRequest(self, scope, ticket)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._asked = cycle  # with pipelined requests behind it, `cycle` is not the last one
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, with the idle deadline in place of a timer for each response."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.phase is Phase.WAITING:
            self._enter(Phase.IDLE)

    def pause_writing(self) -> None:
        self._write_due = self.loop.time() + self.table.limits.idle_time.seconds
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_due = 0.0
        super().resume_writing()

    def keep_deadlines(self, now: float) -> None:
        """Act on what is due at ``now`` (loop time)."""
        if self._write_due and now >= self._write_due:
            self._transport.abort()
        elif now < self._due:
            return
        elif self.phase is Phase.LINGER:
            self._transport.abort()
        elif self.phase is Phase.HEAD:
            self.refuse(Problem(408, "head_timeout", "the request head did not arrive in time"))
        elif self.phase is Phase.BODY and not self.cycle.response_started:
            self.refuse(Problem(408, "body_timeout", "the request body did not arrive in time"))
        else:
            self._transport.close()

    def refuse(self, problem: Problem) -> None:
        """Answer ``problem`` and end the connection; the application, if it runs, hears that the client is gone."""
        is_answered = self.phase is Phase.BODY and self.cycle is not None and self.cycle.response_started
        if (
            self.pipeline
            or is_answered
            or (self.phase is Phase.HEAD and self.cycle is not None and not self.cycle.response_complete)
        ):
            # An earlier answer is still being written on this connection: nothing may be put in between.
            self._transport.close()
        else:
            self._transport.write(_answer(problem, is_tls=self.scheme == "https"))
            self.linger()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def hang_up(self) -> None:
        """Close without an answer (rule 6); to the application it is as if the client had gone."""
        if self._asked is not None:
            self._asked.disconnected = True
        self._transport.close()

    def linger(self) -> None:
        """Say that no more is sent, and read on for a moment without looking (rule 4)."""
        self._enter(Phase.LINGER)
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._due = self.loop.time() + self.table.times_s[phase]

    def _head_problem(self, size: int) -> Problem | None:
        if size > self.table.head_max:
            return Problem(431, "head_too_large", "the request line and headers are too large")
        if len(self.headers) > self.table.headers_max:
            return Problem(431, "headers_too_many", f"more than {self.table.headers_max} headers")
        return None

    def _header_problem(self, values: dict[bytes, bytes]) -> Problem | None:
        size = 0
        if self._chunk_bytes > self.table.head_max or self._head_bytes > self.table.head_max:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if problem := self._head_problem(size):
            return problem
        if len(values) < len(self.headers):
            names = [name for name, _ in self.headers]
            repeated = [name for name in _SINGLE_HEADERS if names.count(name) > 1]
            if repeated:
                return Problem(400, "header_repeated", f"the header {repeated[0].decode()} is given more than once")
        if b"host" not in values and self.parser.get_http_version() == "1.1":
            return Problem(400, "host_missing", "the header host is missing")
        length = int(values.get(b"content-length", b"0"))
        if length > self.table.body_max:
            return Problem(413, "body_too_large", f"the body has {length} bytes; the limit is {self.table.body_max}")
        return None


def limited_protocol(
    limits: IngestLimits, small: SmallDoor | None = None, holdings: Holdings | None = None
) -> type[LimitedProtocol]:
    """A protocol class for one listener, with its own table of connections (attribute ``table``)."""
    return type("LimitedProtocol", (LimitedProtocol,), {"table": Connections(limits, small, holdings)})


def _answer(problem: Problem, *, is_tls: bool) -> bytes:
    body = problem.body(uuid.uuid4().hex)
    lines = with_security_headers([*problem.header_lines(body), (b"connection", b"close")], is_tls=is_tls)
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"".join((STATUS_LINE[problem.status], head, b"\r\n", body))


def _problem_of(error: httptools.HttpParserError) -> Problem:
    """Want of memory in a callback also ends the parser: that is no fault of the sender's, and it may try again."""
    if isinstance(error.__context__, MemoryError):
        return Problem(503, "overloaded", "there is no memory for this request now", headers={"retry-after": "1"})
    return Problem(400, "http_malformed", "this is no well-formed HTTP/1.1 request")
