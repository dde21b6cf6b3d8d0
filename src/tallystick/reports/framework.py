"""Frameworks: what an auditor asks for, control by control, each with the query whose events answer it.

A framework is one TOML file. Those that ship with Tallystick are in `frameworks/`; `[reports] frameworks` names files of the user's, and one with the id
of a built-in takes its place. The words of a control are ours: they say what it is about, not what the standard's text is.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tallystick.config import Config
from tallystick.config.load import place_of
from tallystick.errors import ConfigError, QueryError
from tallystick.query.evaluate import compile_query

Section = Literal["deliveries", "retention", "holds", "drills", "access", "reviews", "gaps", "log"]
"""Parts of a report that a control can point at, besides its own events."""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``asks``: what the control is about. ``query``: the events that answer it. ``see``: other parts of the report that belong to it."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    asks: Annotated[str, Meta(min_length=1, max_length=2_000)]
    query: Annotated[str, Meta(min_length=1, max_length=8_192)]
    see: tuple[Section, ...] = ()


class Framework(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``keep_days``: how long the framework, as we read it, wants logs kept; 0: it names no time. ``keep_why`` says where."""

    id: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    version: str
    about: str
    controls: Annotated[tuple[Control, ...], Meta(min_length=1, max_length=200)]
    keep_days: int = 0
    keep_why: str = ""


def read_framework(text: bytes, place: str) -> Framework:
    """One file. Raises ConfigError: TOML, shape, a query that cannot be read, a control named twice."""
    try:
        found = msgspec.convert(tomllib.loads(text.decode("utf-8")), Framework)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"this is no framework: {error}", place=place, hint="docs/reports.md says what one holds") from error
    seen = set()
    for control in found.controls:
        if control.id in seen:
            raise ConfigError(f"the control {control.id} is there twice", place=place)
        seen.add(control.id)
        try:
            compile_query(control.query)
        except QueryError as error:
            raise ConfigError(f"control {control.id}: {error.message} ({error.place})", place=place, hint=error.hint) from error
    return found


@cache
def built_in() -> dict[str, Framework]:
    """Those that ship with Tallystick, by id."""
    directory = files("tallystick.reports").joinpath("frameworks")
    found = (read_framework(one.read_bytes(), one.name) for one in directory.iterdir() if one.name.endswith(".toml"))
    return {one.id: one for one in sorted(found, key=lambda one: one.id)}


def load_frameworks(config: Config) -> dict[str, Framework]:
    """All, the user's own in place of built-in ones. Raises ConfigError."""
    found = dict(built_in())
    for name in config.reports.frameworks:
        path = Path(config.base_dir / name)
        try:
            own = read_framework(path.read_bytes(), str(path))
        except OSError as error:
            place = place_of(config, "reports.frameworks")
            raise ConfigError(f"cannot read {path}: {error.strerror}", place=place) from error
        found[own.id] = own
    return found
