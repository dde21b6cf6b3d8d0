"""Pure functions from an event to a list of events, and the mappings that make events of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystick.config.load import decode_table, place_of
from tallystick.config.settings import Config, Settings
from tallystick.errors import ConfigError, KeysMissingError
from tallystick.plugin import Transform
from tallystick.transforms.batch import CompileQuery
from tallystick.transforms.enrich.settings import EnrichSettings
from tallystick.transforms.filter import Filter, FilterSettings
from tallystick.transforms.function import Function, FunctionSettings
from tallystick.transforms.library import find_mapping, load_mappings, redact_tables
from tallystick.transforms.mapping import MapOptions, Mapping, MapResult, Problem, RecordMapping
from tallystick.transforms.redact import Redact, RedactSettings
from tallystick.transforms.sample import Sample, SampleSettings
from tallystick.transforms.shape import Remove, RemoveSettings, Rename, RenameSettings, Set, SetSettings
from tallystick.transforms.split import Split, SplitSettings

__all__ = ["MapOptions", "MapResult", "Mapping", "Problem", "RecordMapping", "build_transform", "find_mapping", "load_mappings"]

SECRETS = "secrets"
"""The transform that is there without a table of its own."""


TRANSFORMS: dict[str, type[Settings]] = {
    "redact": RedactSettings,
    "filter": FilterSettings,
    "set": SetSettings,
    "rename": RenameSettings,
    "remove": RemoveSettings,
    "split": SplitSettings,
    "sample": SampleSettings,
    "enrich": EnrichSettings,
    "python": FunctionSettings,
}
"""The types of transforms, each with the settings of its table."""

_MAKERS: dict[type[Settings], Any] = {
    SetSettings: Set,
    RenameSettings: Rename,
    RemoveSettings: Remove,
    SplitSettings: Split,
    SampleSettings: Sample,
    FunctionSettings: Function,
}
"""Those that are made of name, settings, configuration and query language."""


def build_transform(
    name: str,
    table: dict[str, Any] | None,
    config: Config,
    compile_query: CompileQuery,
    derive: Callable[[str], bytes] | None = None,
) -> Transform:
    """The transform that ``[transforms.<name>]`` describes; without a table only `secrets` is known. Raises ConfigError.

    ``derive`` is `KeyStore.derive`; without it the transform can be checked, but not make a keyed hash.
    """
    if table is None:
        if name != SECRETS:
            raise ConfigError(f"there is no transform `{name}`", hint=f"Declare [transforms.{name}]")
        table = {"type": "redact"}
    kind = table.get("type")
    if kind not in TRANSFORMS:
        known = ", ".join(f"`{one}`" for one in TRANSFORMS)
        place = place_of(config, f"transforms.{name}.type")
        raise ConfigError(f"transform `{name}` has no known type", place=place, hint=f"There are {known}")
    settings = decode_table(config, "transforms", name, table, TRANSFORMS[kind])
    match settings:
        case RedactSettings():
            return Redact(name, settings, redact_tables(config), derive or _no_keys)
        case FilterSettings():
            return Filter(name, settings, compile_query)
        case EnrichSettings():
            from tallystick.transforms.enrich.transform import Enrich  # its kinds of data load much, and few ask for any

            return Enrich(name, settings, config, compile_query)
    make: Callable[[str, Any, Config, CompileQuery], Transform] = _MAKERS[type(settings)]
    return make(name, settings, config, compile_query)


def _no_keys(purpose: str) -> bytes:
    raise KeysMissingError(f"no key store is open for {purpose}")
