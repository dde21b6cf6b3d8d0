"""`[privacy.TENANT]` and `[erasure]`: which members of a tenant's events are sealed, and the periods of destroying a person's key."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration

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


class ErasureSettings(Settings, frozen=True):
    """`[erasure]`"""

    cool_off: Annotated[
        Duration,
        Meta(description="Time between the second approval of an erasure and the destruction of the key; it can be cancelled."),
    ] = field(default_factory=lambda: Duration("72h"))
    interval: Annotated[Duration, Meta(description="Time between two looks for erasures that are due.")] = field(
        default_factory=lambda: Duration("1m")
    )
    rotate: Annotated[
        Duration, Meta(description="All keys of people are wrapped anew, under a new generation key, after this time.")
    ] = field(default_factory=lambda: Duration("7d"))
    destroy: Annotated[
        Duration,
        Meta(description="A generation key that nothing uses any more is destroyed this long after; with `rotate` at most 30d."),
    ] = field(default_factory=lambda: Duration("21d"))
    tombstone: Annotated[
        Duration,
        Meta(description="So long after an erasure late events of the person lose the sealed members, and no new key is made."),
    ] = field(default_factory=lambda: Duration("30d"))

    def __post_init__(self) -> None:
        if self.rotate.seconds < 1 or self.interval.seconds <= 0:
            raise ValueError(f"rotate = {self.rotate.text!r} or the interval is too short")
        if self.rotate.seconds + self.destroy.seconds > 30 * 86_400:
            raise ValueError(f"destroy = {self.destroy.text!r} is with `rotate` more than 30d")
