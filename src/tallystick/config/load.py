"""Reads the TOML file into `Config`, or says with file and line why not.

Plug-in tables (`[sources.x]`, `[transforms.x]`, `[destinations.x]`) are taken as they are here and checked with
``decode_table`` by whoever knows the plug-in's settings class.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tallystick.config.settings import Config, Settings
from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError

T = TypeVar("T", bound=Settings)
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PATH = re.compile(r"at `\$(.*)`")


def read_text(path: Path | None) -> bytes:
    """The bytes of the file; none without one. Raises ConfigError."""
    try:
        return b"" if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", place=str(path)) from error


def load_config(path: Path | None, overrides: dict[str, dict[str, Any]] | None = None, *, text: bytes | None = None) -> Config:
    """Read ``path`` (None: all defaults) and lay ``overrides`` (section → key → value) over it. Raises ConfigError.

    ``text``: what the file held when it was read before; it is not read again.
    """
    raw: dict[str, Any] = {}
    data = read_text(path) if text is None else text
    if path is not None:
        try:
            raw = tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            line = re.search(r"at line (\d+)", str(error))
            last = len(data.rstrip(b"\n").split(b"\n"))
            place = f"{path}:{line[1] if line else last if 'end of document' in str(error) else 1}"
            hint = "A key or table that is there already cannot be given again" if "overwrite" in str(error) else None
            raise ConfigError(f"the configuration is not valid TOML: {error}", place=place, hint=hint) from error
    for key in ("path", "hash"):
        if key in raw:
            raise ConfigError(f"unknown key `{key}`", place=_locate(path, data, key))
    for section, values in (overrides or {}).items():
        table = raw.setdefault(section, {})
        if isinstance(table, dict):  # else `_convert` says where it is not
            table.update(values)
    raw["path"] = str(path) if path else ""
    raw["hash"] = hashlib.sha256(data).hexdigest()
    config = _convert(raw, Config, path, data, prefix="")
    for section, names in (("tenants", config.tenants), ("privacy", config.privacy)):
        for name in names:
            if not _TENANT.fullmatch(name):
                hint = "It is made of a-z, 0-9, _ and -, begins with a letter or digit, and has at most 63 characters"
                raise ConfigError(f"`{name}` is no name of a tenant", place=_locate(path, data, f"{section}.{name}"), hint=hint)
    for name in config.tenants:
        try:
            config.retention.check(config.tenants[name].retention)
        except ValueError as error:
            place = _locate(path, data, f"tenants.{name}.retention")
            raise ConfigError(f"tenants.{name}.retention: {error}", place=place) from error
    return config


def decode_table(config: Config, section: str, name: str, table: dict[str, Any], kind: type[T]) -> T:
    """Check one plug-in table, for example ``destinations`` ``lake``, without its ``type``. Raises ConfigError."""
    path = Path(config.path) if config.path else None
    data = _text_of(path)
    values = {
        key: _resolve_secrets(config, path, value, f"{section}.{name}.{key}") for key, value in table.items() if key != "type"
    }
    return _convert(values, kind, path, data, prefix=f"{section}.{name}")


def place_of(config: Config, dotted: str) -> str:
    """``file:line`` of a dotted key of the configuration, for errors that are found later; its table's line when it is not there."""
    path = Path(config.path) if config.path else None
    return _locate(path, _text_of(path), dotted)


def resolve_secret(value: Any, path: Path | None, place: str) -> Any:
    """``{env = "NAME"}`` and ``{file = "PATH"}`` become the text they name. Raises ConfigError at ``place`` when it is missing."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    if isinstance(value.get("env"), str):
        secret = os.environ.get(value["env"], "")
        if not secret:
            raise ConfigError(
                f"the environment variable {value['env']} is not set, or empty", place=place, hint="Set it before the start"
            )
        return secret
    if isinstance(value.get("file"), str):
        return _read_secret((path.resolve().parent if path else Path.cwd()) / value["file"], place)
    return value


def _resolve_secrets(config: Config, path: Path | None, value: Any, dotted: str) -> Any:
    """The same at any depth of tables within tables."""
    if not isinstance(value, dict):
        return value
    found = resolve_secret(value, path, place_of(config, dotted))
    if not isinstance(found, dict):
        return found
    return {key: _resolve_secrets(config, path, inner, f"{dotted}.{key}") for key, inner in found.items()}


def _read_secret(source: Path, place: str) -> str:
    try:
        if source.stat().st_mode & 0o004:
            raise ConfigError(f"the secret file {source} can be read by everyone", place=place, hint="chmod 600 it")
        secret = source.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"cannot read the secret file {source}: {error.strerror}", place=place) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the secret file {source} is not UTF-8 text", place=place) from error
    if not secret:
        raise ConfigError(f"the secret file {source} is empty", place=place)
    return secret


def _text_of(path: Path | None) -> bytes:
    """The file again, to find lines in; nothing when it is gone since it was read."""
    try:
        return path.read_bytes() if path else b""
    except OSError:
        return b""


def _convert(raw: dict[str, Any], kind: type[T], path: Path | None, data: bytes, *, prefix: str) -> T:
    try:
        return msgspec.convert(raw, kind, dec_hook=decode_unit)
    except msgspec.ValidationError as error:
        text = str(error)
        match = _PATH.search(text)
        dotted = _named(raw, kind, match[1].strip(".") if match else "")
        unknown = re.search(r"unknown field `([^`]+)`", text)
        if unknown:
            dotted = f"{dotted}.{unknown[1]}".strip(".")
            text = f"unknown key `{unknown[1]}`"
        else:
            text = text.split(" - at `")[0]
        dotted = f"{prefix}.{dotted}".strip(".") if prefix else dotted
        named = re.match(r"(\w+) = ", text)  # what a settings class says itself is about one of its keys
        place = _locate(path, data, f"{dotted}.{named[1]}" if named else dotted)
        raise ConfigError(f"{dotted}: {text}", place=place, hint="docs/configuration.md lists every setting") from error


def _named(raw: dict[str, Any], kind: type[T], dotted: str) -> str:
    """``dotted`` with the key in place of `[...]`, which is all that msgspec says of a table's key: the one that fails alone."""
    table, found, rest = dotted.partition("[...]")
    parts = table.split(".")
    inner: Any = raw
    for part in parts:
        inner = inner.get(part) if isinstance(inner, dict) else None
    for key, value in inner.items() if found and isinstance(inner, dict) else ():
        alone: Any = {key: value}
        for part in reversed(parts):
            alone = {part: alone}
        try:
            msgspec.convert(alone, kind, dec_hook=decode_unit)
        except msgspec.ValidationError:
            return _named(raw, kind, f"{table}.{key}{rest}")
    return table + rest


def decode_unit(kind: type, value: Any) -> Any:
    """``dec_hook`` of msgspec for settings: durations and sizes are text with a unit."""
    if kind in (Duration, Size):
        if not isinstance(value, str):
            raise ValueError(f"expected text with a unit, got {value!r}")
        return kind(value)
    raise NotImplementedError(f"no reader for {kind}")


def _locate(path: Path | None, data: bytes, dotted: str) -> str:
    """``file:line`` of a dotted key: the last table header that leads to it, then the key."""
    if path is None:
        return "the command line or the environment"
    parts = [part for part in re.sub(r"\[\d+\]", "", dotted).split(".") if part]
    line = 0
    section: list[str] = []
    for number, text in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", text)
        if header:
            section = [part.strip().strip("\"'") for part in header[1].split(".")]
            if section == parts[: len(section)]:
                line = number
            continue
        key = re.match(r"\s*([\w.\"'-]+)\s*=", text)
        if key:
            full = section + [part.strip("\"'") for part in key[1].split(".")]
            if full == parts[: len(full)]:
                return f"{path}:{number}"
    return f"{path}:{line or 1}"
