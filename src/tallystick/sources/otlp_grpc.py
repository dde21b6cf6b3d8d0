"""OTLP over gRPC: `opentelemetry.proto.collector.logs.v1.LogsService/Export` on a listener of its own.

One call is one request, taken as over HTTP (`otlp.take_logs`). The order of checks is the same too: the key and the quotas come
before the message is read, which is why the handler is one of streams: of a unary one the library reads the message first. On
the wire the two are the same.

1. `calls` messages at a time are read and worked on; the next waits unread, and the connection's flow control holds its sender.
   Past `waiting` of those a call is told to come again (UNAVAILABLE with a RetryInfo).
2. A message that is too large is RESOURCE_EXHAUSTED without a RetryInfo, which no client sends again; the library says it.
3. What a sender should send again is UNAVAILABLE or RESOURCE_EXHAUSTED with a RetryInfo, in a google.rpc.Status in the
   trailing metadata.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import grpc
import grpc.aio

from tallystick.config import IngestLimits, TlsSettings
from tallystick.errors import OverloadedError
from tallystick.event.entropy import random_piece
from tallystick.http.problem import Problem
from tallystick.plugin import Intake
from tallystick.protocols.otlp_answer import PROTOBUF, encode_status, encode_success, status_code
from tallystick.sources.doors import DoorParts
from tallystick.sources.otlp import OtlpSourceSettings, rejection, take_logs
from tallystick.sources.plan import SourcePlan
from tallystick.sources.refusal import forget_request, problem_of
from tallystick.telemetry import log

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
_GRACE_S = 5.0
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_STREAMS_PER_CONNECTION = 100


class OtlpGrpcSource:
    """`plugin.Source`: the listener of one source of type `otlp`."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = "the call returns"

    def __init__(
        self, settings: OtlpSourceSettings, parts: DoorParts, plan: SourcePlan, limits: IngestLimits, base_dir: Path
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._plan = plan
        self._limits = limits
        self._base_dir = base_dir
        self._places = asyncio.Semaphore(settings.calls)
        self._waiting = 0
        self._address = ""

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """Serve until ``stop``; calls in progress are answered first."""
        server = grpc.aio.server(options=self._options())
        handler = grpc.stream_unary_rpc_method_handler(self._export)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        self._address = self._bind(server)
        await server.start()
        log.info("listening", source=self._plan.name, protocol="otlp/grpc", listen=self._address)
        try:
            await stop.wait()
        finally:
            await server.stop(_GRACE_S)

    def status(self) -> Mapping[str, Any]:
        """Where it listens, and how many calls wait."""
        return {"reason": "", "listen": self._address, "calls_waiting": self._waiting}

    def _options(self) -> list[tuple[str, int]]:
        limits = self._limits
        return [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._settings.message.bytes),
            ("grpc.max_metadata_size", limits.head.bytes),
            ("grpc.absolute_max_metadata_size", limits.head.bytes),
            ("grpc.server_handshake_timeout_ms", int(limits.head_time.seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(limits.idle_time.seconds * 1000)),
            ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
            ("grpc.max_allowed_incoming_connections", self._settings.connections),
        ]

    def _bind(self, server: grpc.aio.Server) -> str:
        """The address that it listens on. Raises OSError."""
        listen, tls = str(self._settings.listen), self._settings.tls
        try:
            port = server.add_secure_port(listen, self._credentials(tls)) if tls else server.add_insecure_port(listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}: {error}") from error
        return f"{listen.rpartition(':')[0]}:{port}"

    def _credentials(self, tls: TlsSettings) -> grpc.ServerCredentials:
        key, chain = (self._base_dir / tls.key).read_bytes(), (self._base_dir / tls.cert).read_bytes()
        authority = (self._base_dir / tls.client_ca).read_bytes() if tls.client_ca else None
        return grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=authority is not None)

    async def _export(self, _: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """One call: the answer's bytes, or the call's end with a status."""
        request_id = random_piece().hex()[:16]
        answer = await self._attempt(context, request_id)
        if isinstance(answer, Problem):
            await _refuse(context, answer, request_id)
            raise AssertionError("abort returned")
        return answer

    async def _attempt(self, context: grpc.aio.ServicerContext[bytes, bytes], request_id: str) -> bytes | Problem:
        """The answer, or why there is none.

        The problem comes with nothing of the request: the library keeps the error that ends a call in a cycle with the call's context,
        and message and events would stay in memory with it until the collector looks for cycles.
        """
        try:
            return await self._take(context)
        except Exception as error:  # noqa: BLE001 - whatever a call ends with, its sender gets an answer, and the log the rest
            problem = problem_of(error)
            if problem is None:
                log.exception("request failed", request_id=request_id, source=self._plan.name)
                problem = Problem(500, "internal", "this request failed; the log has the request id")
            forget_request(error)
            return problem

    async def _take(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        parts, plan, peer = self._parts, self._plan, peer_host(context.peer())
        metadata = dict(context.invocation_metadata() or ())
        authorization = str(metadata.get("authorization", "")).encode()
        sender = parts.sender({"client": (peer, 0)}, authorization or None)
        parts.service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        if self._waiting >= self._settings.waiting:
            raise OverloadedError(f"{self._waiting} calls wait to be read, which is the most")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            with parts.bodies.hold(plan.tenant or sender.lane) as hold:
                message = await self._read(context)
                hold.grow_to(len(message))
                parts.service.quotas.charge_body(sender.credential, len(message))
                outcome = await take_logs(parts.service, plan, sender, message, PROTOBUF, peer)
        finally:
            self._places.release()
        return encode_success(PROTOBUF, len(outcome.bad), rejection(outcome))

    async def _read(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """The call's one message. Raises Problem."""
        try:
            async with asyncio.timeout(self._limits.body_time.seconds):
                message = await context.read()
        except TimeoutError:
            raise Problem(408, "body_timeout", "the message did not arrive in time") from None
        if not isinstance(message, bytes):
            raise Problem(400, "otlp_invalid", "the call brought no message")
        return message


async def _refuse(context: grpc.aio.ServicerContext[bytes, bytes], problem: Problem, request_id: str) -> None:
    """End the call with a status. Raises what `abort` raises."""
    code, retry_after = status_code(problem.status), problem.headers.get("retry-after")
    message = f"{problem.detail} ({problem.code})"
    details = encode_status(PROTOBUF, code, message, None if retry_after is None else int(retry_after))
    trailing = (("grpc-status-details-bin", details), ("x-request-id", request_id))
    await context.abort(_CODES[code], message, trailing)


def peer_host(peer: str) -> str:
    """The address in what gRPC calls a peer: `ipv4:127.0.0.1:4317`, `ipv6:%5B::1%5D:4317`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
