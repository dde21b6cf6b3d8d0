"""What each source does with its records, read from the configuration once.

Built-in: ``events`` (`POST /v1/events`), and one for each type that needs no table (`kind`). Declared: ``[sources.NAME]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tallystick.config import Config
from tallystick.config.load import decode_table, place_of
from tallystick.errors import ConfigError, QueryError
from tallystick.plugin import Transform
from tallystick.sources.kind import KINDS, MappedSettings, SourceKind, SourceSettings, built_in_kinds, load_kind
from tallystick.transforms import RecordMapping, build_transform, find_mapping
from tallystick.transforms.contract import Contracts, build_contracts

EVENTS = "events"
INNER = "tallystick"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
OnInvalid = Literal["reject", "quarantine"]


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source, ready to run. ``mapping`` is None where records are events already, or the source makes events of them itself.

    ``settings`` are those of its type; None for the two sources that have no type of their own.
    """

    name: str
    type: str
    tenant: str | None
    mapping: RecordMapping | None
    transforms: Sequence[Transform]
    on_invalid: OnInvalid
    keep_raw: bool = True
    settings: SourceSettings | None = None
    contracts: Contracts = field(default_factory=Contracts)


def build_plans(
    config: Config, compile_query: Callable[[str], Callable[..., bool]], derive: Callable[[str], bytes] | None = None
) -> Mapping[str, SourcePlan]:
    """A plan for each source by name. Raises ConfigError for an unknown type, mapping or transform, and for a contract's bad schema.

    ``derive`` is `KeyStore.derive`, for transforms that make keyed hashes; plans that are only checked go without.
    """
    made: dict[str, Transform] = {}

    def chain(names: Sequence[str], owner: str) -> tuple[Transform, ...]:
        for name in names:
            if name not in made:
                made[name] = _transform(config, name, owner, compile_query, derive)
        return tuple(made[name] for name in names)

    for name in config.transforms:
        chain((name,), f"transforms.{name}")  # one that no source uses (yet) must be right all the same
    first = config.pipeline.transforms
    plans = {
        EVENTS: SourcePlan(EVENTS, "http", None, None, chain(first, "pipeline.transforms"), "reject"),
        INNER: SourcePlan(INNER, "internal", None, None, (), "reject"),
    }
    kinds = built_in_kinds()
    for name in kinds:
        if name not in config.sources:
            mapping = _mapping(config, name, kinds[name].settings())
            plans[name] = _plan(name, name, kinds[name].settings(), mapping, chain(first, "pipeline.transforms"))
    for name in config.sources:
        kind, settings = _declared(config, name, kinds)
        mapping = _mapping(config, kind, settings, name)
        transforms = chain((*first, *settings.transforms), f"sources.{name}.transforms")
        plans[name] = _plan(name, kind, settings, mapping, transforms)
    contracts = build_contracts(config)
    return {name: plan if name == INNER else replace(plan, contracts=contracts) for name, plan in plans.items()}


def _declared(config: Config, name: str, built_in: Mapping[str, SourceKind]) -> tuple[str, SourceSettings]:
    """Type and settings of one table. Raises ConfigError."""
    table, place = config.sources[name], place_of(config, f"sources.{name}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"`{name}` is no name of a source", place=place, hint="It is made of a-z, 0-9, _ and -: part of a URL")
    kind = table.get("type")
    if name in (EVENTS, INNER) or (name in built_in and kind != name):
        hint = f'A table of this name has type = "{name}"' if name in built_in else "Choose another name"
        raise ConfigError(f"`{name}` is the name of a built-in source", place=place, hint=hint)
    if kind is None:
        raise ConfigError(f"sources.{name} has no `type`", place=place, hint="Known are " + ", ".join(sorted(KINDS)))
    try:
        found = load_kind(str(kind))
    except ConfigError as error:
        raise ConfigError(error.message, place=place_of(config, f"sources.{name}.type"), hint=error.hint) from None
    settings = decode_table(config, "sources", name, table, found.settings)
    try:
        settings.check(config.base_dir)
    except ConfigError as error:
        key = f"sources.{name}.{error.place}" if error.place else f"sources.{name}"
        raise ConfigError(f"{key}: {error.message}", place=place_of(config, key), hint=error.hint) from error
    return str(kind), settings


def _mapping(config: Config, type_name: str, settings: SourceSettings, name: str = "") -> RecordMapping | None:
    """The mapping of a source's type, or the one that its settings name; None: it makes events itself. Raises ConfigError."""
    kind = load_kind(type_name)
    own = kind.own_mapping(config, settings) if kind.own_mapping is not None else None
    if not isinstance(settings, MappedSettings) or (own is not None and settings.mapping == own.name):
        return own
    chosen = settings.mapping_name(config.base_dir)
    if chosen in kind.mappings:
        return None
    try:
        return find_mapping(chosen, config.base_dir, [*kind.mappings, *([own.name] if own is not None else [])])
    except ConfigError as error:
        place = error.place or place_of(config, f"sources.{name}.mapping")
        raise ConfigError(error.message, place=place, hint=error.hint) from error


def _plan(
    name: str, kind: str, settings: SourceSettings, mapping: RecordMapping | None, transforms: Sequence[Transform]
) -> SourcePlan:
    keep_raw = not isinstance(settings, MappedSettings) or settings.keep_raw
    return SourcePlan(name, kind, settings.tenant, mapping, transforms, "quarantine", keep_raw, settings)


def _transform(
    config: Config,
    name: str,
    owner: str,
    compile_query: Callable[[str], Callable[..., bool]],
    derive: Callable[[str], bytes] | None,
) -> Transform:
    """One transform; whatever is wrong with it is a ConfigError with its line, or that of the ``owner`` that asks for it."""
    table = config.transforms.get(name)
    try:
        return build_transform(name, table, config, compile_query, derive)
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
