"""Source type `audit`: the OpenTelemetry audit-logging draft at `POST /v1/audit`, with a receipt for every record.

The draft's rules: the payload is OTLP's, all of a request is taken or nothing, `audit.record.id` makes sending again harmless
(same content: success again; other content: 409), proofs that are there are checked before anything is acknowledged, and each
record is answered with an `AuditReceipt`. What it calls the sink is our log: 200 means on disk. Where destinations have got to
is in `/v1/events/{id}/explain`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from msgspec import Meta

from tallystick.config import Config
from tallystick.errors import ConfigError
from tallystick.http.problem import Problem
from tallystick.protocols.audit_integrity import TrustedKey
from tallystick.protocols.otlp import decode_protobuf
from tallystick.protocols.otlp_answer import JSON
from tallystick.protocols.otlp_json import decode_json
from tallystick.protocols.otlp_wire import OtlpInvalidError
from tallystick.sources.asgi import Receive, Reply, Scope, headers_of, peer_of, query_of
from tallystick.sources.audit_answer import AuditProblem, Receipts, refuse
from tallystick.sources.audit_batch import AuditBatch, AuditReader, Chains, Demand
from tallystick.sources.doors import DoorParts
from tallystick.sources.kind import SourceKind, SourceSettings
from tallystick.sources.otlp import media_of
from tallystick.sources.plan import SourcePlan
from tallystick.sources.refusal import TOO_MANY_EVENTS
from tallystick.sources.routes import Route
from tallystick.sources.submission import ConflictingLinesError, InvalidBatchError
from tallystick.transforms.otlp import OtlpMapping

_SECRET_BYTES_MIN = 16
_STREAMS_MAX = 10_000


class AuditSettings(SourceSettings, frozen=True):
    """`[sources.NAME]` with `type = "audit"`."""

    verify: Annotated[
        Demand,
        Meta(
            description="`when_possible`: a proof that a trusted key can check must fit; `required`: every record must have such a proof; "
            "`off`: proofs are kept and not checked."
        ),
    ] = "when_possible"
    trusted: Annotated[
        tuple[str, ...],
        Meta(
            description="Paths of certificates or public keys, PEM, of producers; a key's name is its file's, without the ending."
        ),
    ] = ()
    hmac_key: Annotated[str | None, Meta(description="Secret of HMAC proofs in base64, as `{ env = … }` or `{ file = … }`.")] = None
    keep_raw: Annotated[bool, Meta(description="Keep the canonical form, which `integrity_hash` is over, in `raw`.")] = True

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        self.keys(base_dir)

    def keys(self, base_dir: Path) -> list[TrustedKey]:
        """The keys that proofs are checked with. Raises ConfigError."""
        found = []
        for name in self.trusted:
            path = base_dir / name
            try:
                found.append(TrustedKey.of_pem(path.stem, path.read_bytes()))
            except (OSError, ValueError) as error:
                hint = "A certificate or public key in PEM: RSA, ECDSA on P-256 or Ed25519"
                raise ConfigError(f"{path} cannot be used: {error}", place="trusted", hint=hint) from error
        if self.hmac_key is not None:
            found.append(TrustedKey("hmac", _secret(self.hmac_key)))
        if self.verify == "required" and not found:
            raise ConfigError("`verify` is required, and no key is trusted", place="verify", hint="Set `trusted` or `hmac_key`")
        return found


def _secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) < _SECRET_BYTES_MIN:
        raise ConfigError("no base64 of 16 bytes or more", place="hmac_key", hint="head -c 32 /dev/urandom | base64")
    return secret


class AuditMapping(OtlpMapping):
    """The mapping `otlp` with what it takes to hold its events to the draft."""

    def __init__(self, depth: int, reader: AuditReader) -> None:
        super().__init__(depth)
        self.reader = reader


@dataclass(frozen=True, slots=True)
class AuditDoor:
    """`POST /v1/audit` of one source."""

    parts: DoorParts
    plan: SourcePlan
    receipts: Receipts

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """A receipt for each record, once all are durable."""
        parts, plan, headers = self.parts, self.plan, headers_of(scope)
        sender = parts.sender(scope, headers.get(b"authorization"))
        query_of(scope, ())
        media = media_of(headers)
        parts.service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        with parts.bodies.hold(plan.tenant or sender.lane) as hold:
            body = await parts.body(sender, headers, receive, hold)
            draft = parts.service.draft(plan, sender, on_invalid="reject", peer=peer_of(scope))
            batch, owner = AuditBatch(), sender.credential

            def read() -> AuditBatch:
                nonlocal batch
                batch = self._read(body, media, draft.peer, owner)
                return batch

            try:
                await parts.service.decode(draft, len(body), read)
                outcome = await parts.service.commit(draft, wants_results=True)
            except OtlpInvalidError as error:
                raise Problem(413 if error.code == TOO_MANY_EVENTS else 400, error.code, error.message) from None
            except InvalidBatchError as error:
                raise AuditProblem.of_faults(error.bad, batch) from None
            except ConflictingLinesError as error:
                raise AuditProblem.of_conflicts(error.lines, batch) from None
            self._mapping.reader.chains.note(owner, batch.places)
            return Reply(200, self.receipts.encode(batch, draft, outcome, parts.service.clock()))

    @property
    def _mapping(self) -> AuditMapping:
        return cast("AuditMapping", self.plan.mapping)

    def _read(self, body: bytes, media: bytes, peer: str, owner: str) -> AuditBatch:
        mapping, events_max = self._mapping, self.parts.service.reader.limits.events
        decode = decode_json if media == JSON else decode_protobuf
        return mapping.reader.read(mapping.map_groups(decode(body, mapping.value_depth, events_max), peer), owner)


def _path(plan: SourcePlan) -> str:
    return "/v1/audit" if plan.name == plan.type else f"/v1/in/{plan.name}"


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    return [Route(_path(plan), AuditDoor(parts, plan, Receipts(parts.signer)), refuse=refuse)]


def _mapping(config: Config, settings: AuditSettings) -> AuditMapping:
    chains = Chains(streams_max=_STREAMS_MAX if config.server.workers == 1 else 0)
    return AuditMapping(
        config.limits.depth, AuditReader(settings.keys(config.base_dir), settings.verify, settings.keep_raw, chains)
    )


KIND = SourceKind(AuditSettings, lambda plan: f"POST {_path(plan)}", _doors, own_mapping=_mapping)
