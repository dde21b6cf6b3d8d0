"""The event (DESIGN section 4): field order here is key order in the canonical line.

Structs are compiled without garbage-collector tracking (``gc=False``): events are trees, never cycles, and skipping the
tracking halves the cost of decoding. Members whose text must survive unchanged (``metadata``, values in ``changes``) stay
`msgspec.Raw`, the sender's own bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

ActorType = Literal["user", "service", "agent", "system", "anonymous"]
Category = Literal["authentication", "authorization", "account", "data", "configuration", "system", "network", "other"]
OutcomeName = Literal["success", "failure", "denied", "unknown"]

Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,128}\Z")]
Action = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}\Z")]
Named = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TenantName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")]


class Part(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every struct of the event: unknown keys refused, absent keys left out."""


class Actor(Part, kw_only=True):
    type: ActorType
    id: Named
    name: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    roles: list[str] | UnsetType = UNSET
    credential: str | UnsetType = UNSET


class Delegate(Part, kw_only=True):
    """One link of ``on_behalf_of``: an actor, and how the one before acts for it."""

    type: ActorType
    id: Named
    name: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    roles: list[str] | UnsetType = UNSET
    credential: str | UnsetType = UNSET
    mode: Literal["impersonation", "delegation"]


class Target(Part, kw_only=True):
    type: Named
    id: Named
    name: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET


class Context(Part, kw_only=True):
    ip: str | UnsetType = UNSET
    user_agent: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    span_id: str | UnsetType = UNSET
    location: str | UnsetType = UNSET


class Change(Part, kw_only=True):
    path: str
    op: Literal["add", "remove", "replace"]
    before: msgspec.Raw | UnsetType = UNSET
    after: msgspec.Raw | UnsetType = UNSET
    masked: bool | UnsetType = UNSET


class Producer(Part, kw_only=True):
    id: Named
    epoch: Count
    seq: Count


class Source(Part, kw_only=True):
    """Set by the server."""

    name: str
    type: str
    credential: str | UnsetType = UNSET


class Redaction(Part, kw_only=True):
    """What was redacted, where, by which rule and how. Never a hash of the original."""

    path: str
    rule: str
    action: Literal["drop", "mask", "partial", "hash"]


class Ingest(Part, kw_only=True):
    """Set by the server. ``class_`` is the retention class; ``config`` the hash of the configuration the event met."""

    mapping: str | UnsetType = UNSET
    class_: str = msgspec.field(name="class", default="")
    config: str = ""
    flags: list[str] | UnsetType = UNSET
    redactions: list[Redaction] | UnsetType = UNSET
    salt: str = ""


class SealedGroup(Part, kw_only=True):
    v: Literal[1]
    subject: str
    nonce: str
    commit: str
    data: str


class Event(Part, kw_only=True):
    """One event; mutable until its line is encoded."""

    v: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    occurred_at: str | UnsetType = UNSET
    received_at: str | UnsetType = UNSET
    action: Action
    category: Category | UnsetType = UNSET
    severity: Annotated[int, Meta(ge=0, le=6)] | UnsetType = UNSET
    actor: Actor
    on_behalf_of: list[Delegate] | UnsetType = UNSET
    targets: list[Target] | UnsetType = UNSET
    outcome: OutcomeName | UnsetType = UNSET
    reason: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    context: Context | UnsetType = UNSET
    changes: list[Change] | UnsetType = UNSET
    metadata: msgspec.Raw | UnsetType = UNSET
    enrichment: msgspec.Raw | UnsetType = UNSET
    producer: Producer | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    ingest: Ingest | UnsetType = UNSET
    sealed: list[SealedGroup] | UnsetType = UNSET
