"""Pure functions from an event to a list of events, and the mappings that make events of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystick.config.load import decode_table
from tallystick.config.settings import Config
from tallystick.errors import ConfigError
from tallystick.plugin import Transform
from tallystick.transforms.filter import Filter, FilterSettings, Predicate
from tallystick.transforms.library import find_mapping, load_mappings, mappings_of
from tallystick.transforms.mapping import MapOptions, Mapping, MapResult, Problem, RecordMapping
from tallystick.transforms.redact import Redact, RedactSettings

__all__ = ["MapOptions", "MapResult", "Mapping", "Problem", "RecordMapping", "build_transform", "find_mapping", "load_mappings"]

SECRETS = "secrets"
"""The transform that is there without a table of its own."""


def build_transform(
    name: str, table: dict[str, Any] | None, config: Config, compile_query: Callable[[str], Predicate]
) -> Transform:
    """The transform that ``[transforms.<name>]`` describes; without a table only `secrets` is known. Raises ConfigError."""
    if table is None:
        if name != SECRETS:
            raise ConfigError(f"there is no transform `{name}`", hint=f"Declare [transforms.{name}]")
        table = {"type": "redact"}
    kind = table.get("type")
    if kind == "redact":
        mappings = {one.name: (one.redact_allow, one.redact_keys) for one in mappings_of(config)}
        return Redact(name, decode_table(config, "transforms", name, table, RedactSettings), mappings)
    if kind == "filter":
        return Filter(name, decode_table(config, "transforms", name, table, FilterSettings), compile_query)
    raise ConfigError(
        f"transform `{name}` has no known type", place=f"transforms.{name}.type", hint="There are `redact` and `filter`"
    )
