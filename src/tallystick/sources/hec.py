"""Source type `hec`: Splunk's HTTP Event Collector at `/services/collector`, for the forwarders that speak it.

The token is one of our keys, as `Splunk <key>`, `Bearer <key>` or the password of Basic. Every answer comes after the commit, so
each acknowledgement id that was given out is of events on disk; `/ack` says true for exactly these (`AckIds`).

A request whose form is wrong is refused whole with Splunk's code and the number of the event, nothing stored: that is what its
clients expect. An event that is well-formed and cannot be stored all the same goes to the quarantine, and the answer is success.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast
from urllib.parse import parse_qsl

from msgspec import Meta

from tallystick.http.problem import Problem
from tallystick.plugin import Sender
from tallystick.protocols import hec, hec_answers
from tallystick.protocols.hec_answers import Answer, HecError, encode_answer
from tallystick.sources.answer import quarantined_lines
from tallystick.sources.asgi import Receive, Reply, Scope, headers_of, peer_of
from tallystick.sources.doors import DoorParts
from tallystick.sources.hec_acks import AckIds
from tallystick.sources.hec_events import read_body, reread
from tallystick.sources.kind import NATIVE, MappedSettings, SourceKind
from tallystick.sources.plan import OnInvalid, SourcePlan
from tallystick.sources.routes import READ, Route

PATH = "/services/collector"
_ACKS_MAX = 10_000
_WORK_WEIGHT = 3


class HecSettings(MappedSettings, frozen=True):
    """`[sources.NAME]` with `type = "hec"`."""

    keep_raw: Annotated[
        bool, Meta(description="Keep the original record in `raw`; its members are in `metadata` all the same.")
    ] = False
    acks: Annotated[
        Literal["optional", "required", "off"],
        Meta(
            description="`optional`: a request that names a channel gets an acknowledgement id; `required`: every request must name one; "
            "`off`: none gets one."
        ),
    ] = "optional"


class HecProblem(Problem):
    """A refusal with an answer of the collector's own."""

    def __init__(self, answer: Answer, number: int | None = None) -> None:
        super().__init__(answer.status, "hec_invalid", answer.text)
        self.answer = answer
        self.number = number


def refuse(problem: Problem, scope: Scope, request_id: str) -> Reply:
    """A problem in the collector's words: its own code where it has one, else the nearest, with our sentence."""
    if isinstance(problem, HecProblem):
        return Reply(problem.status, encode_answer(problem.answer, number=problem.number))
    answer = _BY_CODE.get(problem.code)
    if answer is not None:
        return Reply(answer.status, encode_answer(answer))
    nearest = _BY_STATUS.get(problem.status, hec_answers.INVALID_FORMAT)
    return Reply(problem.status, encode_answer(nearest, text=_sentence(problem, nearest), number=_first_line(problem)))


_BY_CODE = {
    "unauthenticated": hec_answers.TOKEN_REQUIRED,
    "key_invalid": hec_answers.INVALID_TOKEN,
    "key_expired": hec_answers.TOKEN_DISABLED,
    "permission_missing": hec_answers.TOKEN_DISABLED,
}
_BY_STATUS = {
    403: hec_answers.INVALID_TOKEN,
    429: hec_answers.BUSY,
    500: hec_answers.SERVER_ERROR,
    503: hec_answers.BUSY,
}


def _sentence(problem: Problem, answer: Answer) -> str:
    return answer.text if problem.status in (429, 500, 503) else problem.detail


def _first_line(problem: Problem) -> int | None:
    """The number of the first event at fault, from 0."""
    return problem.errors[0]["line"] - 1 if problem.errors else None


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as far as its head says: who, on which channel, with which parameters."""

    sender: Sender
    channel: str
    headers: dict[bytes, bytes]
    params: dict[str, str]

    def defaults(self, peer: str) -> hec.Defaults:
        """What holds for events that do not say otherwise."""
        found = {name: self.params.get(name, "") for name in ("host", "source", "sourcetype", "index", "time")}
        return hec.Defaults(**found, peer=peer)

    def on_invalid(self) -> OnInvalid | None:
        """What the sender wants done with events that are none; None: as the collector does."""
        wanted = self.params.get("on_invalid")
        if wanted not in (None, "reject", "quarantine"):
            raise Problem(400, "parameter_invalid", "on_invalid is not one of reject, quarantine")
        return cast("OnInvalid | None", wanted)


@dataclass(frozen=True, slots=True)
class _Door:
    parts: DoorParts
    plan: SourcePlan
    acks: AckIds

    @property
    def settings(self) -> HecSettings:
        return cast("HecSettings", self.plan.settings)

    def call(self, scope: Scope) -> _Call:
        """Raises Problem for a token or a channel that is not right."""
        headers = headers_of(scope)
        params = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        if any("\0" in value for value in params.values()):
            raise HecProblem(hec_answers.INVALID_FORMAT)
        sender = self.parts.sender(scope, _bearer(headers.get(b"authorization"), params))
        channel = headers.get(b"x-splunk-request-channel", b"").decode("latin-1") or params.get("channel", "")
        if channel and not hec.is_channel(channel):
            raise HecProblem(hec_answers.CHANNEL_INVALID)
        return _Call(sender, channel.lower(), headers, params)


@dataclass(frozen=True, slots=True)
class CollectDoor(_Door):
    """`POST /services/collector`, `/event` and (``is_raw``) `/raw`."""

    is_raw: bool = False

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """Success once all is durable."""
        parts, plan, service = self.parts, self.plan, self.parts.service
        call, peer = self.call(scope), peer_of(scope)
        on_invalid = call.on_invalid()
        if self.settings.acks == "required" and not call.channel:
            raise HecProblem(hec_answers.CHANNEL_MISSING)
        service.quotas.admit(call.sender.credential, plan.tenant or call.sender.only_tenant)
        with parts.bodies.hold(plan.tenant or call.sender.lane) as hold:
            body = await parts.body(call.sender, call.headers, receive, hold)
            draft = service.draft(plan, call.sender, on_invalid=on_invalid, peer=peer)
            service.size(draft, _WORK_WEIGHT * len(body))
            try:
                is_kept = on_invalid is not None
                await service.work(draft, read_body, service, draft, body, call.defaults(peer), self.is_raw, is_kept)
            except HecError as error:
                raise HecProblem(error.answer, error.number) from None
            except hec.TooManyError as error:
                raise Problem(413, error.code, error.message) from None
            outcome = await service.commit(draft)
        more: dict[str, Any] = {"quarantined": quarantined_lines(outcome.bad)} if outcome.bad else {}
        return Reply(200, encode_answer(hec_answers.SUCCESS, ack_id=self._ack(call), more=more))

    def _ack(self, call: _Call) -> int | None:
        if not call.channel or self.settings.acks == "off":
            return None
        return self.acks.issue(call.sender.credential, call.channel)


@dataclass(frozen=True, slots=True)
class AckDoor(_Door):
    """`POST /services/collector/ack`: which acknowledgement ids of a channel are of durable events."""

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """True for the ids that this token was given on this channel."""
        call = self.call(scope)
        if self.settings.acks == "off":
            raise HecProblem(hec_answers.ACK_DISABLED)
        if not call.channel:
            raise HecProblem(hec_answers.CHANNEL_MISSING)
        with self.parts.bodies.hold(call.sender.lane) as hold:
            body = await self.parts.body(call.sender, call.headers, receive, hold)
            try:
                asked = hec_answers.read_acks(body)
            except HecError as error:
                raise HecProblem(error.answer) from None
        if len(asked) > _ACKS_MAX:
            raise Problem(413, "too_many_acks", f"more than {_ACKS_MAX} acknowledgement ids in one request")
        known = {ack: self.acks.check(call.sender.credential, call.channel, ack) for ack in asked}
        return Reply(200, hec_answers.encode_acks(known))


@dataclass(frozen=True, slots=True)
class HealthDoor:
    """`GET /services/collector/health`, without a token: whether events would be taken."""

    parts: DoorParts

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """Code 17 or 18."""
        answer = hec_answers.UNHEALTHY if self.parts.not_ready() else hec_answers.HEALTHY
        return Reply(answer.status, encode_answer(answer))


def _bearer(authorization: bytes | None, params: dict[str, str]) -> bytes | None:
    """The Authorization header in our own form. Raises HecProblem for one that Splunk would not read either."""
    if not authorization:
        if "token" in params:
            raise HecProblem(hec_answers.QUERY_TOKEN)
        return None
    scheme, _, rest = authorization.partition(b" ")
    match scheme.lower():
        case b"splunk" | b"bearer":
            return b"Bearer " + rest.strip()
        case b"basic":
            try:
                return b"Bearer " + base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                raise HecProblem(hec_answers.INVALID_AUTHORIZATION) from None
    raise HecProblem(hec_answers.INVALID_AUTHORIZATION)


def _base(plan: SourcePlan) -> str:
    return PATH if plan.name == plan.type else f"/v1/in/{plan.name}{PATH}"


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    base, acks = _base(plan), AckIds(parts.derive("hec-acks"))
    events, raw = CollectDoor(parts, plan, acks), CollectDoor(parts, plan, acks, is_raw=True)
    for path, door in (("", events), ("/event", events), ("/raw", raw), ("/ack", AckDoor(parts, plan, acks))):
        yield Route(base + path, door, refuse=refuse)
        if path:
            yield Route(f"{base}{path}/1.0", door, refuse=refuse)
    for path in ("/health", "/health/1.0"):
        yield Route(base + path, HealthDoor(parts), READ, refuse=refuse)


KIND = SourceKind(
    HecSettings,
    lambda plan: f"POST {_base(plan)}",
    _doors,
    mappings=(NATIVE,),
    reread=reread,
)
