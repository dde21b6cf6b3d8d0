"""The door of signed hooks: `/v1/in/NAME` of a source with `verify`, for products that sign instead of sending a key.

1. What the head says is looked at: is there a signature, is its time near ours. Without that no body is read.
2. The body's bytes as they came are checked against the signature, before anything in them is read. So a compressed body is refused:
   it would have to be opened first.
3. Records get the delivery's name where they have no id of their own: a delivery that comes again is answered with the positions of
   the first, as duplicates, and nothing is stored twice.

Failures count as failed logins of their address, and are on record like those.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tallystick.event.stamp import add_flag
from tallystick.http.access import AuthError
from tallystick.http.problem import Problem
from tallystick.plugin import Record, Sender
from tallystick.protocols.hooks import Delivery, SignatureError, Verifier
from tallystick.sources.asgi import Receive, Reply, Scope, headers_of, peer_of
from tallystick.sources.doors import DoorParts, Wishes, media_type, split_records
from tallystick.sources.plan import SourcePlan

_CHALLENGE_MAX = 1_024


class _Challenge(msgspec.Struct):
    """Slack's question whether this is the address that its app names."""

    type: str
    challenge: str


_decode_challenge = msgspec.json.Decoder(_Challenge).decode


@dataclass(frozen=True, slots=True)
class HookDoor:
    """One source's door. ``clock`` gives Unix seconds."""

    parts: DoorParts
    plan: SourcePlan
    verifier: Verifier
    clock: Callable[[], float] = time.time

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """Counts and receipts, or the answer to a challenge."""
        parts, plan, headers = self.parts, self.plan, headers_of(scope)
        service, peer = parts.service, peer_of(scope)
        try:
            self.verifier.look(headers, self.clock())
            if scope["method"] in ("GET", "HEAD"):
                return _answer_okta(headers)
            wishes = Wishes.of(scope, plan.on_invalid)
            media = media_type(headers, default=b"application/json")
            if headers.get(b"content-encoding", b"identity") != b"identity":
                raise Problem(
                    415, "encoding_unknown", "a signed body must not be compressed", headers={"accept-encoding": "identity"}
                )
            with parts.bodies.hold(f"hook:{plan.name}") as hold:
                body = await parts.bodies.read(headers, receive, hold)
                draft = service.draft(plan, Sender("", (plan.tenant or "",)), on_invalid=wishes.on_invalid, peer=peer)
                service.size(draft, len(body))
                delivery = await service.work(draft, self.verifier.check, headers, body)
                challenge = _slack_challenge(body)
                if challenge is not None:
                    return challenge
                await service.map_records(draft, self._records(body, media, peer, delivery))
                for event in draft.events if delivery.flags else ():
                    for flag in delivery.flags:
                        add_flag(event, flag)
                return await parts.commit(draft, wishes)
        except SignatureError as error:
            failure = AuthError(error.code, error.message)
            raise (failure if error.code == "signature_missing" else parts.logins.failed(peer, failure)) from None

    def _records(self, body: bytes, media: bytes, peer: str, delivery: Delivery) -> list[Record]:
        """The records of a delivery, each named by it; what its headers say is kept with them."""
        more = {"hook": dict(delivery.facts)} if delivery.facts else {}
        name = f"{self.plan.name}:{delivery.name}"
        records = split_records(body, media, peer)
        return [
            Record(record.data, record.line, peer, name if len(records) == 1 else f"{name}:{record.line}", more)
            for record in records
        ]


def _answer_okta(headers: dict[bytes, bytes]) -> Reply:
    """Okta asks once whether this is the address that its hook names. Raises Problem 400."""
    challenge = headers.get(b"x-okta-verification-challenge", b"")
    if not challenge or len(challenge) > _CHALLENGE_MAX:
        raise Problem(400, "challenge_missing", "GET answers Okta's X-Okta-Verification-Challenge and nothing else")
    return Reply(200, msgspec.json.encode({"verification": challenge.decode("latin-1")}))


def _slack_challenge(body: bytes) -> Reply | None:
    """The same of Slack, in a signed body."""
    if b"url_verification" not in body or len(body) > 4 * _CHALLENGE_MAX:
        return None
    try:
        found = _decode_challenge(body)
    except msgspec.MsgspecError:
        return None
    return Reply(200, msgspec.json.encode({"challenge": found.challenge})) if found.type == "url_verification" else None
