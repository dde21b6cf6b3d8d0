"""Source type `kubernetes`: the audit webhook of kube-apiserver, built in at `/v1/kubernetes`.

The api server posts an `EventList` (audit.k8s.io/v1) and looks at the status alone: 2xx is taken, 429 and 503 with `Retry-After` are
sent again, any other is given up and counted by the api server as an error. So an entry that cannot be stored goes to the
quarantine, and refusals are told as the `Status` object that it writes into its own log.

The stages of one request (RequestReceived, ResponseStarted, ResponseComplete, Panic) are events of their own, named by auditID and
stage and linked by the auditID in `context.request_id`; an entry that is sent again is stored once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from tallystick.http.problem import Problem
from tallystick.sources.asgi import Receive, Reply, Scope, headers_of, peer_of
from tallystick.sources.doors import DoorParts, Wishes, media_type, split_records
from tallystick.sources.kind import MappedSettings, SourceKind
from tallystick.sources.plan import SourcePlan
from tallystick.sources.routes import Route

PATH = "/v1/kubernetes"
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge",
            415: "UnsupportedMediaType", 429: "TooManyRequests", 503: "ServiceUnavailable"}  # fmt: skip


class KubernetesSettings(MappedSettings, frozen=True):
    """`[sources.NAME]` with `type = "kubernetes"`."""

    mapping: Annotated[str, Meta(description="Mapping that turns records into events.")] = "kubernetes_audit"


@dataclass(frozen=True, slots=True)
class KubernetesDoor:
    """`POST /v1/kubernetes` of one source."""

    parts: DoorParts
    plan: SourcePlan

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to one EventList; the api server reads only that it is a success."""
        parts, plan, headers = self.parts, self.plan, headers_of(scope)
        service, peer = parts.service, peer_of(scope)
        sender = parts.sender(scope, headers.get(b"authorization"))
        # The api server adds its own time limit (`?timeout=30s`).
        wishes = Wishes.of(scope, plan.on_invalid, ignored=("timeout",))
        media = media_type(headers, default=b"application/json")
        service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        with parts.bodies.hold(plan.tenant or sender.lane) as hold:
            body = await parts.body(sender, headers, receive, hold)
            if not body.strip():
                raise Problem(400, "json_invalid", "the body is empty; send an EventList of audit.k8s.io/v1")
            draft = service.draft(plan, sender, on_invalid=wishes.on_invalid, peer=peer)
            await service.map_records(draft, split_records(body, media, peer))
            return await parts.commit(draft, wishes)


def refuse(problem: Problem, scope: Scope, request_id: str) -> Reply:
    """A problem as a `Status` of the Kubernetes API."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{problem.detail} ({problem.code}, request {request_id})",
        "reason": _REASONS.get(problem.status, "InternalError" if problem.status == 500 else ""),
        "code": problem.status,
    }
    if "retry-after" in problem.headers:
        status["details"] = {"retryAfterSeconds": int(problem.headers["retry-after"])}
    return Reply(problem.status, msgspec.json.encode(status))


def _path(plan: SourcePlan) -> str:
    return PATH if plan.name == plan.type else f"/v1/in/{plan.name}"


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    yield Route(_path(plan), KubernetesDoor(parts, plan), refuse=refuse)


KIND = SourceKind(KubernetesSettings, lambda plan: f"POST {_path(plan)}", _doors)
