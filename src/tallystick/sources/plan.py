"""What each source does with its records, read from the configuration once.

Built-in: ``events`` (`POST /v1/events`). Declared: ``[sources.NAME]`` with ``type = "http"`` answers at ``/v1/in/NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from tallystick.config import Config
from tallystick.config.load import decode_table, place_of
from tallystick.config.settings import Settings
from tallystick.errors import ConfigError, QueryError
from tallystick.plugin import Transform
from tallystick.transforms import Mapping as RecordMapping
from tallystick.transforms import build_transform, load_mappings

EVENTS = "events"
INNER = "tallystick"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
OnInvalid = Literal["reject", "quarantine"]


class HttpSourceSettings(Settings, frozen=True):
    """`[sources.NAME]` with `type = "http"`."""

    mapping: Annotated[str, Meta(description="Mapping that turns records into events.")] = "generic"
    tenant: Annotated[
        Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")] | None,
        Meta(description="Tenant of every event; absent: the credential's."),
    ] = None
    transforms: Annotated[tuple[str, ...], Meta(description="Transforms of this source, in this order.")] = ()
    keep_raw: Annotated[bool, Meta(description="Keep the original record in `raw`.")] = True


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source, ready to run. ``mapping`` is None where records are events already."""

    name: str
    type: str
    tenant: str | None
    mapping: RecordMapping | None
    transforms: Sequence[Transform]
    on_invalid: OnInvalid
    keep_raw: bool = True


def build_plans(config: Config, compile_query: Callable[[str], Callable[..., bool]]) -> Mapping[str, SourcePlan]:
    """A plan for each source by name. Raises ConfigError for an unknown type, mapping or transform."""
    mappings = load_mappings()
    made: dict[str, Transform] = {}

    def chain(names: Sequence[str], owner: str) -> tuple[Transform, ...]:
        for name in names:
            if name not in made:
                made[name] = _transform(config, name, owner, compile_query)
        return tuple(made[name] for name in names)

    for name in config.transforms:
        chain((name,), f"transforms.{name}")  # one that no source uses (yet) must be right all the same
    first = config.pipeline.transforms
    plans = {
        EVENTS: SourcePlan(EVENTS, "http", None, None, chain(first, "pipeline.transforms"), "reject"),
        INNER: SourcePlan(INNER, "internal", None, None, (), "reject"),
    }
    for name, table in config.sources.items():
        place = place_of(config, f"sources.{name}")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"`{name}` is no name of a source", place=place, hint="It is made of a-z, 0-9, _ and -: part of a URL"
            )
        if name in plans:
            raise ConfigError(f"`{name}` is the name of a built-in source", place=place, hint="Choose another name")
        if table.get("type") != "http":
            raise ConfigError(
                f"unknown source type {table.get('type')!r}",
                place=place_of(config, f"sources.{name}.type"),
                hint='This version knows type = "http"',
            )
        settings = decode_table(config, "sources", name, table, HttpSourceSettings)
        if settings.mapping not in mappings:
            known = ", ".join(sorted(mappings))
            raise ConfigError(
                f"there is no mapping `{settings.mapping}`",
                place=place_of(config, f"sources.{name}.mapping"),
                hint=f"Known: {known}",
            )
        plans[name] = SourcePlan(
            name,
            "http",
            settings.tenant,
            mappings[settings.mapping],
            chain((*first, *settings.transforms), f"sources.{name}.transforms"),
            "quarantine",
            settings.keep_raw,
        )
    return plans


def _transform(config: Config, name: str, owner: str, compile_query: Callable[[str], Callable[..., bool]]) -> Transform:
    """One transform; whatever is wrong with it is a ConfigError with its line, or that of the ``owner`` that asks for it."""
    table = config.transforms.get(name)
    try:
        return build_transform(name, table, config, compile_query)
    except ConfigError as error:
        place = (
            error.place
            if error.place and ":" in error.place
            else place_of(config, owner if table is None else f"transforms.{name}")
        )
        raise ConfigError(error.message, place=place, hint=error.hint) from error
    except QueryError as error:
        place = place_of(config, f"transforms.{name}")
        raise ConfigError(f"transforms.{name}: {error}", place=place, hint="docs/query.md has the grammar") from error
