"""Setting, renaming and removing members of events.

Nothing here can make an invalid event: what no event could take is refused with the configuration, what one event cannot
take is an error of that event. So only events that are touched cost anything, and a batch without the members costs one look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tallystick.config.load import place_of
from tallystick.config.settings import Config, Settings
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, strict
from tallystick.transforms.batch import ChosenEvents, CompileQuery
from tallystick.transforms.paths import FREE_ROOTS, EventPath, Use, event_path

_encode = msgspec.json.Encoder().encode


class ChosenSettings(Settings, frozen=True):
    """`[transforms.NAME]` of the types that change events."""

    where: Annotated[str | None, Meta(description="Query: only events that match are changed; absent: all.")] = None


class SetSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "set"`."""

    values: Annotated[
        dict[str, Any], Meta(description="Path in the event → value. Members on the way are made where they are missing.")
    ]
    overwrite: Annotated[bool, Meta(description="Also where there is a value already.")] = True


class RenameSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "rename"`."""

    paths: Annotated[dict[str, str], Meta(description="Path in the event → where its value goes. Nothing there: nothing is done.")]
    overwrite: Annotated[bool, Meta(description="Also where there is a value already; else both stay as they are.")] = True


class RemoveSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "remove"`."""

    paths: Annotated[tuple[str, ...], Meta(description="Paths in the event that are taken away.")]


class Set(ChosenEvents):
    """Puts constants into events."""

    def __init__(self, name: str, settings: SetSettings, config: Config, compile_query: CompileQuery) -> None:
        super().__init__(name, settings.where, compile_query)
        self._overwrite = settings.overwrite
        self._values = [
            (compile_path(config, name, "values", path, "write"), value_of(config, name, path, value))
            for path, value in settings.values.items()
        ]
        if not self._values:
            raise ConfigError(f"transforms.{name}: `values` is empty")
        probe = msgspec.json.Decoder(Event)
        for path, value in self._values:
            event = probe.decode(b'{"action":"a","actor":{"type":"user","id":"u"},"targets":[{"type":"t","id":"i"}]}')
            try:
                path.write(event, value)
                check_depth(event, path, config.limits.depth)
            except EventInvalidError as error:
                place = place_of(config, f"transforms.{name}.values")
                raise ConfigError(f"transforms.{name}: {error.message}", place=place) from None

    def change(self, event: Event) -> list[Event]:
        """The event with the values."""
        for path, value in self._values:
            if self._overwrite or path.read(event) is None:
                path.write(event, value)
        return [event]


class Rename(ChosenEvents):
    """Moves values from one place in the event to another."""

    def __init__(self, name: str, settings: RenameSettings, config: Config, compile_query: CompileQuery) -> None:
        super().__init__(name, settings.where, compile_query)
        self._overwrite = settings.overwrite
        self._depth_max = config.limits.depth
        self._moves = []
        for start, end in settings.paths.items():
            source = compile_path(config, name, "paths", start, "remove")
            target = compile_path(config, name, "paths", end, "write")
            if target.parts[: len(source.parts)] == source.parts:
                raise ConfigError(
                    f"transforms.{name}: {start} cannot go into itself", place=place_of(config, f"transforms.{name}.paths")
                )
            self._moves.append((source, target))
        if not self._moves:
            raise ConfigError(f"transforms.{name}: `paths` is empty")

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any event may have one of the members."""
        return any(source.may_be_in(events) for source, _ in self._moves)

    def change(self, event: Event) -> list[Event]:
        """The event with its members moved. Raises EventInvalidError when one cannot be where it should go."""
        for source, target in self._moves:
            value = source.read(event)
            if value is None or (not self._overwrite and target.read(event) is not None):
                continue
            source.remove(event)
            target.write(event, value)
            check_depth(event, target, self._depth_max)
        return [event]


class Remove(ChosenEvents):
    """Takes members away."""

    def __init__(self, name: str, settings: RemoveSettings, config: Config, compile_query: CompileQuery) -> None:
        super().__init__(name, settings.where, compile_query)
        self._paths = [compile_path(config, name, "paths", path, "remove") for path in settings.paths]
        if not self._paths:
            raise ConfigError(f"transforms.{name}: `paths` is empty")

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any event may have one of the members."""
        return any(path.may_be_in(events) for path in self._paths)

    def change(self, event: Event) -> list[Event]:
        """The event without the members."""
        for path in self._paths:
            path.remove(event)
        return [event]


def compile_path(config: Config, name: str, setting: str, text: str, use: Use) -> EventPath:
    """`event_path` for a setting of the transform ``name``. Raises ConfigError with its line."""
    try:
        return event_path(text, use)
    except ConfigError as error:
        place = place_of(config, f"transforms.{name}.{setting}")
        raise ConfigError(f"transforms.{name}: {error.message}", place=place, hint=error.hint) from None


def value_of(config: Config, name: str, path: str, value: Any) -> bytes:
    """A TOML value as strict JSON text. Times become text. Raises ConfigError: NaN, NUL and the like are no JSON."""
    try:
        text = _encode(value)
        if isinstance(value, float) and text == b"null":
            raise EventInvalidError("NaN and infinities are no JSON")
        strict.require_strict(text, config.limits.depth)
    except (TypeError, UnicodeError, OverflowError, EventInvalidError) as error:
        words = error.message if isinstance(error, EventInvalidError) else str(error)
        place = place_of(config, f"transforms.{name}.values")
        raise ConfigError(f"transforms.{name}: the value for {path} cannot be in an event: {words}", place=place) from None
    return text


def check_depth(event: Event, path: EventPath, depth_max: int) -> None:
    """Raises EventInvalidError when what was put at ``path`` is nested deeper than an event may be."""
    if path.parts[0] not in FREE_ROOTS:
        return
    text = bytes(getattr(event, path.parts[0]))
    if strict.openings(text) >= depth_max and strict.find_fault(text, depth_max - 1) is not None:
        raise path.fault(f"the value at {path.text} makes the event deeper than {depth_max} levels")
