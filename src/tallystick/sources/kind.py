"""Types of sources: what `type = "…"` in a `[sources.NAME]` table may name, and what each type brings with it.

A type is one file of this package with a constant ``KIND``: its settings class, its HTTP doors or the class that runs by itself, and
how `tallystick check` describes the way in. A built-in type is there without a table: a source of the type's own name, at the paths that clients of
that protocol expect. A table of that name sets it; a table of another name makes a further source of the type, below `/v1/in/NAME`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from msgspec import Meta

from tallystick.config import Duration
from tallystick.config.settings import Config, Settings
from tallystick.errors import ConfigError
from tallystick.plugin import Source, SourceContext
from tallystick.transforms import RecordMapping

if TYPE_CHECKING:
    from tallystick.sources.doors import DoorParts
    from tallystick.sources.intake import IntakeService
    from tallystick.sources.plan import SourcePlan
    from tallystick.sources.routes import Route
    from tallystick.sources.submission import Draft

KINDS: dict[str, str] = {
    "forward": "tallystick.sources.forward",
    "hec": "tallystick.sources.hec",
    "audit": "tallystick.sources.audit",
    "file": "tallystick.sources.file",
    "http": "tallystick.sources.http",
    "kubernetes": "tallystick.sources.kubernetes",
    "kafka": "tallystick.sources.kafka[kafka]",
    "nats": "tallystick.sources.nats[nats]",
    "pull": "tallystick.sources.pull",
    "otlp": "tallystick.sources.otlp",
    "postgresql": "tallystick.sources.postgresql[postgresql]",
    "s3": "tallystick.sources.s3[s3]",
    "syslog": "tallystick.sources.syslog",
}
"""Type → the module whose ``KIND`` it is, and behind it in brackets the extra that brings its packages, when it needs one.

A module is imported when a configuration names its type, or when the type is built in.
"""

BUILT_IN = frozenset({"audit", "hec", "kubernetes", "otlp"})
"""The types that need no table (`SourceKind` says what that is)."""

NATIVE = "native"
"""Mapping of records that are events as `/v1/events` takes them."""


class SourceSettings(Settings, frozen=True):
    """`[sources.NAME]`: what every source understands, besides `type` and its own keys."""

    tenant: Annotated[
        Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")] | None,
        Meta(description="Tenant of every event; absent: the credential's."),
    ] = None
    transforms: Annotated[tuple[str, ...], Meta(description="Transforms of this source, in this order.")] = ()
    expect_every: Annotated[
        Duration | None, Meta(description="Longest time without anything from it; past it status says since when it is silent.")
    ] = None

    def __post_init__(self) -> None:
        if self.expect_every is not None and self.expect_every.seconds < 1:
            raise ValueError(f"expect_every = {self.expect_every.text!r} is shorter than a second")

    def check(self, base_dir: Path) -> None:
        """What types alone cannot say of a value; opens no connection and makes no file. Raises ConfigError, whose ``place`` may
        be the name of the setting at fault."""


class MappedSettings(SourceSettings, frozen=True):
    """What a source with a mapping understands."""

    mapping: Annotated[
        str, Meta(description="Mapping that turns records into events; one of your own by its file, as in `acme.toml`.")
    ] = "generic"
    keep_raw: Annotated[bool, Meta(description="Keep the original record in `raw`.")] = True

    def mapping_name(self, base_dir: Path) -> str:
        """The mapping that is meant: the setting, unless a type knows better."""
        return self.mapping


@dataclass(frozen=True, slots=True)
class SourceKind:
    """One type of source. ``doors`` are the HTTP doors of one source of it; ``way`` names its way in for people.

    ``source`` makes a source that runs by itself (`plugin.Source`), anew for each run. ``own_mapping`` makes the type's own
    mapping, for records that no mapping file describes; its setting ``mapping``, if it has one, has that mapping's name as default.
    ``mappings`` are further names that the setting may have besides the mapping files, for what the source does itself (`NATIVE`).
    ``listener`` makes a source that serves beside the HTTP listener with what the doors have, or None where the settings ask for none.
    ``reread`` fills a draft with records that come out of the quarantine, when they are more than records for the mapping.
    """

    settings: type[SourceSettings]
    way: Callable[[SourcePlan], str]
    doors: Callable[[DoorParts, SourcePlan], Iterable[Route]] = lambda _parts, _plan: ()
    source: Callable[[Any, SourceContext], Source] | None = None
    listener: Callable[[DoorParts, SourcePlan, SourceContext], Source | None] | None = None
    mappings: tuple[str, ...] = ()
    own_mapping: Callable[[Config, Any], RecordMapping] | None = None
    reread: Callable[[IntakeService, Draft, list[bytes]], None] | None = None


def load_kind(name: str) -> SourceKind:
    """The type of that name. Raises ConfigError for an unknown one, and for one whose packages are not installed."""
    try:
        module, _, extra = KINDS[name].rstrip("]").partition("[")
    except KeyError:
        known = ", ".join(sorted(KINDS))
        raise ConfigError(f"unknown source type {name!r}", hint=f"Known are {known}") from None
    try:
        return cast("SourceKind", importlib.import_module(module).KIND)
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("tallystick"):
            raise
        hint = f"pip install 'tallystick[{extra}]'"
        raise ConfigError(f"a source of type {name!r} needs the package {error.name}", hint=hint) from error


def built_in_kinds() -> dict[str, SourceKind]:
    """The types that need no table."""
    return {name: load_kind(name) for name in KINDS if name in BUILT_IN}
