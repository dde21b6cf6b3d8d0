"""Source type `otlp`: OpenTelemetry log records, over HTTP here and over gRPC in `otlp_grpc`.

Built in at `POST /v1/logs`, where exporters send. A further source answers at `/v1/in/NAME/v1/logs` (an exporter's base
endpoint is then `…/v1/in/NAME`) and at `/v1/in/NAME`.

Good records are stored, bad ones kept in the quarantine, in one commit; the answer is then a success that tells how many were
rejected and why, as the protocol has it: a sender must not send any of them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from msgspec import Meta, field

from tallystick.config import Config, Size, TlsSettings
from tallystick.errors import ConfigError
from tallystick.http.problem import Problem
from tallystick.plugin import Source, SourceContext
from tallystick.protocols.otlp import decode_protobuf
from tallystick.protocols.otlp_answer import JSON, PROTOBUF, encode_status, encode_success, status_code
from tallystick.protocols.otlp_json import decode_json
from tallystick.protocols.otlp_wire import OtlpInvalidError
from tallystick.sources.asgi import Receive, Reply, Scope, headers_of, peer_of, query_of
from tallystick.sources.doors import DoorParts
from tallystick.sources.intake import IntakeService
from tallystick.sources.kind import SourceKind, SourceSettings
from tallystick.sources.listener import check_listen
from tallystick.sources.plan import SourcePlan
from tallystick.sources.refusal import TOO_MANY_EVENTS
from tallystick.sources.routes import Route
from tallystick.sources.submission import Outcome, Sender
from tallystick.sources.tls import build_context
from tallystick.transforms.otlp import OtlpDecoded, OtlpMapping

_TOLD_MAX = 5


class OtlpSourceSettings(SourceSettings, frozen=True):
    """`[sources.NAME]` with `type = "otlp"`."""

    listen: Annotated[
        str | None,
        Meta(
            description="Address and port for gRPC, usually :4317. Off loopback it needs `tls` or `insecure = true`. Absent: HTTP only."
        ),
    ] = None
    tls: Annotated[TlsSettings | None, Meta(description="Certificate and key of `listen`, and the CA of client certificates.")] = (
        None
    )
    insecure: Annotated[bool, Meta(description="Allow `listen` off loopback without TLS.")] = False
    message: Annotated[Size, Meta(description="One gRPC message, as sent and decompressed.")] = field(
        default_factory=lambda: Size("16MiB")
    )
    calls: Annotated[int, Meta(description="gRPC calls that are read and worked on at a time.", ge=1)] = 16
    waiting: Annotated[int, Meta(description="gRPC calls that may wait for that; past them the answer is UNAVAILABLE.", ge=1)] = (
        1_024
    )
    connections: Annotated[int, Meta(description="Open gRPC connections.", ge=1)] = 1_024

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        if self.listen is None:
            if self.tls is not None:
                raise ConfigError("`tls` is that of `listen`, which is not set", place="tls")
            return
        check_listen(self.listen, may_be_public=self.tls is not None or self.insecure)
        if self.tls is not None:
            build_context(self.tls, base_dir)


@dataclass(frozen=True, slots=True)
class OtlpDoor:
    """`POST /v1/logs` of one source."""

    parts: DoorParts
    plan: SourcePlan

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to one request, in its own encoding."""
        parts, plan, headers = self.parts, self.plan, headers_of(scope)
        sender = parts.sender(scope, headers.get(b"authorization"))
        query_of(scope, ())
        media = media_of(headers)
        parts.service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        with parts.bodies.hold(plan.tenant or sender.lane) as hold:
            body = await parts.body(sender, headers, receive, hold)
            outcome = await take_logs(parts.service, plan, sender, body, media, peer_of(scope))
            return Reply(200, encode_success(media, len(outcome.bad), rejection(outcome)), media)


async def take_logs(service: IntakeService, plan: SourcePlan, sender: Sender, body: bytes, media: bytes, peer: str) -> Outcome:
    """One request, made durable. Raises Problem 400 or 413 for a body that is not taken, and what `IntakeService.commit` does."""
    mapping, events_max = cast("OtlpMapping", plan.mapping), service.reader.limits.events
    decode = decode_json if media == JSON else decode_protobuf

    def read() -> OtlpDecoded:
        return mapping.map_groups(decode(body, mapping.value_depth, events_max), peer)

    draft = service.draft(plan, sender, peer=peer)
    try:
        await service.decode(draft, len(body), read)
    except OtlpInvalidError as error:
        raise Problem(413 if error.code == TOO_MANY_EVENTS else 400, error.code, error.message) from None
    return await service.commit(draft)


def media_of(headers: Mapping[bytes, bytes]) -> bytes:
    """`PROTOBUF` or `JSON`, whichever the body is. Raises Problem 415."""
    media = _media(headers.get(b"content-type", b""))
    if media is None:
        detail = "send application/x-protobuf or application/json"
        raise Problem(415, "media_type_unsupported", detail, headers={"accept": "application/x-protobuf, application/json"})
    return media


def rejection(outcome: Outcome) -> str:
    """What the sender is told of records that are in the quarantine; empty when there are none."""
    if not outcome.bad:
        return ""
    told = [f"record {bad.line}: {bad.error.message} ({bad.error.code})" for bad in outcome.bad[:_TOLD_MAX]]
    more = f"; and {len(outcome.bad) - _TOLD_MAX} more" if len(outcome.bad) > _TOLD_MAX else ""
    return f"kept in the quarantine: {'; '.join(told)}{more}"


def refuse(problem: Problem, scope: Scope, request_id: str) -> Reply:
    """A google.rpc.Status, in the encoding of the request where that is known."""
    sent = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    media = _media(sent) or JSON
    retry_after = problem.headers.get("retry-after")
    message = f"{problem.detail} ({problem.code})"
    body = encode_status(media, status_code(problem.status), message, None if retry_after is None else int(retry_after))
    return Reply(problem.status, body, media)


def _media(content_type: bytes) -> bytes | None:
    media = content_type.partition(b";")[0].strip().lower()
    return media if media in (PROTOBUF, JSON) else None


def _paths(plan: SourcePlan) -> list[str]:
    return ["/v1/logs"] if plan.name == plan.type else [f"/v1/in/{plan.name}/v1/logs", f"/v1/in/{plan.name}"]


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    door = OtlpDoor(parts, plan)
    return [Route(path, door, refuse=refuse) for path in _paths(plan)]


def _mapping(config: Config, settings: OtlpSourceSettings) -> OtlpMapping:
    return OtlpMapping(config.limits.depth)


def _way(plan: SourcePlan) -> str:
    listen = cast("OtlpSourceSettings", plan.settings).listen
    return f"POST {_paths(plan)[0]}" + (f", gRPC on {listen}" if listen else "")


def _listener(parts: DoorParts, plan: SourcePlan, context: SourceContext) -> Source | None:
    settings = cast("OtlpSourceSettings", plan.settings)
    if settings.listen is None:
        return None
    from tallystick.sources.otlp_grpc import OtlpGrpcSource  # a large library: only who listens pays for it

    return OtlpGrpcSource(settings, parts, plan, context.limits, context.base_dir)


KIND = SourceKind(OtlpSourceSettings, _way, _doors, own_mapping=_mapping, listener=_listener)
