"""Where mapping files are found: those that ship with Tallystick, and those that a user wrote.

A source names a mapping of ours by its name, and one of its own by its file: ``mapping = "acme.toml"``, beside the configuration.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tallystick.config.settings import Config
from tallystick.errors import ConfigError
from tallystick.transforms.log_mapping import make_mapping
from tallystick.transforms.mapping import Mapping

SUFFIX = ".toml"


def load_mappings() -> dict[str, Mapping]:
    """All mappings that ship with Tallystick, by name, which is that of their file."""
    return {name: _our_mapping(name) for name in mapping_texts()}


@cache
def _our_mapping(name: str) -> Mapping:
    """One of them; a server makes those that its sources name, and no other."""
    return make_mapping(_our_table(name))


@cache
def _our_table(name: str) -> dict[str, Any]:
    return tomllib.loads(mapping_texts()[name])


@cache
def mapping_texts() -> dict[str, str]:
    """The files of those mappings, as they are, by name."""
    folder = resources.files("tallystick.transforms") / "mappings"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(SUFFIX)), key=lambda file: file.name)
    return {file.name.removesuffix(SUFFIX): file.read_text("utf-8") for file in files}


def read_mapping(path: Path) -> Mapping:
    """The mapping in a user's file. Raises ConfigError with file and, where one can be told, line."""
    try:
        text = path.read_text("utf-8")
        spec = tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError("there is no such mapping file", place=str(path), hint="Paths start at the configuration file") from error
    except OSError as error:
        raise ConfigError(f"the mapping cannot be read: {error.strerror}", place=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else str(path)
        raise ConfigError(f"the mapping is not valid TOML: {error}", place=place) from error
    spec.setdefault("name", path.stem)
    if missing := [table for table in ("envelope", "actor") if table not in spec]:
        raise ConfigError(f"the mapping has no [{missing[0]}]", place=f"{path}:1", hint="docs/mappings.md describes the tables")
    try:
        return make_mapping(spec)
    except ConfigError as error:
        place = f"{path}:{_line_of(text, error)}"
        raise ConfigError(error.message, place=place, hint=error.hint or "docs/mappings.md describes the tables") from error
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        words = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"the mapping cannot be understood: {words}", place=f"{path}:1", hint="docs/mappings.md") from error


def _line_of(text: str, error: ConfigError) -> int:
    """The line that an error is about: the first one with all that its message quotes, else the head of the table that it names."""
    words = re.findall(r"'([^']+)'", error.message) or re.findall(r"`([^`]+)`", error.message)
    lines = text.splitlines()
    head = 1
    if error.place is not None:
        found = re.compile(rf"\s*\[+\s*{re.escape(error.place)}\s*\]+")
        head = next((number for number, line in enumerate(lines, 1) if found.match(line)), 1)
    for number, line in enumerate(lines[head - 1 :], head):
        if words and all(word in line for word in words):
            return number
    return head


def find_mapping(name: str, base_dir: Path, more: Iterable[str] = ()) -> Mapping:
    """The mapping of that name or file. Raises ConfigError; ``more`` are names that its hint tells besides ours."""
    if name.endswith(SUFFIX):
        return read_mapping(base_dir / name)
    ours = mapping_texts()
    if name not in ours:
        known = ", ".join(sorted({*ours, *more}))
        raise ConfigError(
            f"there is no mapping `{name}`", hint=f"Known: {known}; one of your own is named by its file, as in acme.toml"
        )
    return _our_mapping(name)


def redact_tables(config: Config) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """What the mappings say of secrets, by name, as (allow, keys): ours, and those that a source of this configuration names by
    its file. One that says nothing is not there. Raises ConfigError."""
    tables = {name: _redact_of(_our_table(name).get("redact", {})) for name, text in mapping_texts().items() if "[redact]" in text}
    named = {str(table.get("mapping", "")) for table in config.sources.values()}
    for mapping in (read_mapping(config.base_dir / name) for name in sorted(named) if name.endswith(SUFFIX)):
        tables[mapping.name] = mapping.redact_allow, mapping.redact_keys
    return tables


def _redact_of(table: dict[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(table.get("allow", ())), frozenset(table.get("keys", ()))
