"""Settings about what is expected of events: contracts, tests of the configuration, producers' numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration


class ContractSettings(Settings, frozen=True):
    """`[catalog.contracts.NAME]`: what the events of an action promise."""

    action: Annotated[
        str,
        Meta(description="The action, or a family of them: `invoice.*`. The one that names it wins, then the longest family."),
    ]
    schema: Annotated[str, Meta(description="A file with the JSON Schema (draft 4 to 2020-12); its path starts at this file.")]
    version: Annotated[
        str | None,
        Meta(
            description="The version of the action it is for, as events state it at `version_at`. Absent: those without another contract."
        ),
    ] = None
    shadow: Annotated[
        bool, Meta(description="Take what breaks it all the same, marked with the flag `contract:NAME` in `ingest.flags`.")
    ] = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}\*?", self.action):
            raise ValueError(f"action = {self.action!r} is no action, and no family of them such as invoice.*")


class CatalogSettings(Settings, frozen=True):
    """`[catalog]`"""

    version_at: Annotated[str, Meta(description="Where events state the version of their action: a JSON Pointer (RFC 6901).")] = (
        "/metadata/schema_version"
    )
    contracts: Annotated[dict[str, dict[str, Any]], Meta(description="Schema contracts by name: `[catalog.contracts.NAME]`.")] = (
        field(default_factory=dict)
    )

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/([^~/]|~[01])*)+", self.version_at):
            raise ValueError(f"version_at = {self.version_at!r} is no JSON Pointer, as /metadata/version is one")


class CaseSettings(Settings, frozen=True):
    """`[[tests]]`: what `tallystick test` runs."""

    name: Annotated[str, Meta(description="What the test shows.", min_length=1)]
    source: Annotated[str, Meta(description="The source that the records come to.")]
    input: Annotated[
        str | dict[str, Any] | tuple[str | dict[str, Any], ...],
        Meta(description="One record, as text or as a table that becomes JSON; or a list of records."),
    ]
    expect: Annotated[
        dict[str, Any] | tuple[dict[str, Any], ...] | None,
        Meta(description="Members that the event has, others allowed; a list for several events, in order."),
    ] = None
    absent: Annotated[tuple[str, ...], Meta(description="Dotted paths that no event has.")] = ()
    filtered: Annotated[str | None, Meta(description="Instead of `expect`: the filter that takes all of it away.")] = None
    quarantined: Annotated[
        str | None, Meta(description="Instead of `expect`: the code under which all of it is quarantined or refused.")
    ] = None
    destinations: Annotated[
        tuple[str, ...] | None, Meta(description="The destinations that would get the events: these and no others.")
    ] = None


class CompletenessSettings(Settings, frozen=True):
    """`[completeness]`: the numbers that producers put on their events (`producer` of an event)."""

    producers: Annotated[
        int,
        Meta(
            description="How many producers, each epoch for itself, are remembered; the one that was silent longest is forgotten first.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    patience: Annotated[
        Duration,
        Meta(description="How long a missing number may be late before it is put on record; repeats are gathered as long."),
    ] = field(default_factory=lambda: Duration("5s"))
