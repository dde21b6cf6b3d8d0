"""`[privacy.TENANT]`: which members of a tenant's events are sealed."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from tallystick.config.base import Settings

_ACTOR = ("id", "name", "email", "roles", "credential")
_CONTEXT = ("ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location")
_WHOLE = ("reason", "targets", "on_behalf_of", "changes", "metadata", "enrichment")
SEALABLE = (*(f"actor.{name}" for name in _ACTOR), *(f"context.{name}" for name in _CONTEXT), *_WHOLE)
"""What can be sealed, besides members of `metadata` by their names. Lists are sealed whole."""
_METADATA = re.compile(r"metadata(\.[^.\s]+)+")
_SUBJECT = re.compile(r"actor\.(id|email)|target\.id|metadata(\.[^.\s]+)+")


class PrivacySettings(Settings, frozen=True):
    """`[privacy.TENANT]`: sealed members of that tenant's events."""

    seal: Annotated[
        tuple[str, ...],
        Meta(
            description="Members that leave the event and come back encrypted: `actor.id`, `actor.name`, `context.ip`, `reason`, "
            "`targets`, `changes`, `metadata`, `metadata.NAME` … Lists are sealed whole.",
            min_length=1,
        ),
    ]
    subject: Annotated[
        str,
        Meta(description="Whose key seals them: `actor.id`, `actor.email`, `target.id` (of the first target) or `metadata.NAME`."),
    ] = "actor.id"
    raw: Annotated[
        Literal["drop", "seal"], Meta(description="What becomes of the original record in `raw`: it would repeat what is sealed.")
    ] = "drop"
    subjects_max: Annotated[
        int, Meta(description="Most people with a key; an event of one more is refused with `subjects_exceeded`.", ge=1)
    ] = 1_000_000

    def __post_init__(self) -> None:
        for path in self.seal:
            if path not in SEALABLE and not _METADATA.fullmatch(path):
                raise ValueError(f"seal = {path!r} is no member that can be sealed; there are {', '.join(SEALABLE)}, metadata.NAME")
        for path in self.seal:
            if any(other.startswith(f"{path}.") for other in self.seal) or self.seal.count(path) > 1:
                raise ValueError(f"seal = {path!r} is there twice, by itself or as a part of another")
        if not _SUBJECT.fullmatch(self.subject):
            raise ValueError(f"subject = {self.subject!r} is none of actor.id, actor.email, target.id, metadata.NAME")
