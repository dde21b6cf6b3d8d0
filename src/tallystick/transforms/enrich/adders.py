"""From settings to what is asked about each event: a place in it, a set of data, and where the answer goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from tallystick.config.load import place_of
from tallystick.config.settings import Config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.transforms.enrich.dataset import Answers, Content, DataSet, WatchedFile
from tallystick.transforms.enrich.geo import IPTOCC, Database, Registries
from tallystick.transforms.enrich.lookup import COLUMN_DEPTH, Table, check_columns
from tallystick.transforms.enrich.settings import EnrichSettings
from tallystick.transforms.enrich.threats import ThreatList
from tallystick.transforms.enrich.user_agent import UserAgents
from tallystick.transforms.paths import EventPath
from tallystick.transforms.shape import check_depth, compile_path

_ROOT = "enrichment"
_RELOAD_MIN_S = 0.01


class Adder(NamedTuple):
    """One set of data: the place that it is asked about, and where its answer goes. ``is_list``: among other hits."""

    key: EventPath
    to: EventPath
    answers: Answers
    is_list: bool


def build_adders(name: str, settings: EnrichSettings, config: Config) -> list[Adder]:
    """One for each set and place. Raises ConfigError with the line of the setting."""
    if settings.reload_every.seconds < _RELOAD_MIN_S:
        place = place_of(config, f"transforms.{name}.reload_every")
        raise ConfigError(f"transforms.{name}.reload_every is at least 10ms", place=place)
    build = _Build(name, settings, config)
    found: list[Adder] = []
    for setting, make in (
        ("lookups", build.lookups),
        ("geo", build.geo),
        ("user_agents", build.user_agents),
        ("threats", build.threats),
    ):
        try:
            for one in make():
                _check_place(one, found, config)
                found.append(one)
        except (ConfigError, EventInvalidError) as error:
            words = error.message.removeprefix(f"transforms.{name}.{setting}: ").removeprefix(f"transforms.{name}: ")
            hint = error.hint if isinstance(error, ConfigError) else None
            place = place_of(config, f"transforms.{name}.{setting}")
            raise ConfigError(f"transforms.{name}.{setting}: {words}", place=place, hint=hint) from error
    if not found:
        place = place_of(config, f"transforms.{name}")
        raise ConfigError(f"transforms.{name} adds nothing", place=place, hint="It needs lookups, geo, user_agents or threats")
    return found


class _Build:
    """The four kinds."""

    def __init__(self, name: str, settings: EnrichSettings, config: Config) -> None:
        self._name = name
        self._settings = settings
        self._config = config

    def lookups(self) -> Iterator[Adder]:
        for one in self._settings.lookups:
            check_columns(one)
            yield self._adder(one.key, one.to, self._file(one.file, partial(Table, settings=one, limits=self._settings)))

    def geo(self) -> Iterator[Adder]:
        for one in self._settings.geo:
            answers = (
                Answers(Registries(), self._settings.memo)
                if one.database == IPTOCC
                else self._file(one.database, partial(Database, fields=one.fields))
            )
            yield self._adder(one.key, one.to, answers)

    def user_agents(self) -> Iterator[Adder]:
        for one in self._settings.user_agents:
            yield self._adder(one.key, one.to, Answers(UserAgents(), self._settings.memo))

    def threats(self) -> Iterator[Adder]:
        for one in self._settings.threats:
            if (one.note or one.expires) and not one.column:
                raise ConfigError("`note` and `expires` are columns of a CSV file; say which `column` has the indicators")
            file = self._file(one.file, partial(ThreatList, settings=one, limits=self._settings))
            for key in one.keys:
                yield self._adder(key, one.to, file, is_list=True)

    def _file(self, path: str, load: Callable[[Content], DataSet]) -> Answers:
        settings = self._settings
        return WatchedFile(self._name, self._config.base_dir / path, settings.file_max.bytes, settings.memo, load)

    def _adder(self, key: str, to: str, answers: Answers, *, is_list: bool = False) -> Adder:
        place = compile_path(self._config, self._name, "", to, "write")
        if place.parts[0] != _ROOT:
            raise ConfigError(f"{to!r} is not below {_ROOT}, where all that is added goes", hint=f"As in {_ROOT}.people")
        return Adder(compile_path(self._config, self._name, "", key, "read"), place, answers, is_list)


def _check_place(one: Adder, others: Sequence[Adder], config: Config) -> None:
    """Raises ConfigError when two additions would meet, EventInvalidError when one lies deeper than an event may be."""
    for other in others:
        short = min(len(one.to.parts), len(other.to.parts))
        is_shared = one.is_list and other.is_list and one.to.parts == other.to.parts
        if one.to.parts[:short] == other.to.parts[:short] and not is_shared:
            raise ConfigError(f"two additions meet, at {other.to.text} and {one.to.text}")
    event = msgspec.json.decode(b'{"action":"a","actor":{"type":"user","id":"u"}}', type=Event)
    one.to.write(event, b'{"a":' * COLUMN_DEPTH + b"{}" + b"}" * COLUMN_DEPTH)
    check_depth(event, one.to, config.limits.depth)
