"""A function of the user's own: a decoded event in, an event, several, or none out. What it gives is checked as any event is.

The function is called in the intake process, perhaps from several threads, and must give the same for the same event: a repeat of a delivery
goes through it again. Whatever it raises makes the record bad, with the exception's name and text.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from tallystick.config.load import place_of
from tallystick.config.settings import Config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, strict
from tallystick.event.fields import check_fields, explain
from tallystick.transforms.batch import ChosenEvents, CompileQuery, plain
from tallystick.transforms.paths import FAILED
from tallystick.transforms.shape import ChosenSettings
from tallystick.transforms.split import part_id

_SERVERS = ("v", "id", "tenant", "received_at", "producer", "source", "ingest", "sealed")
_FREE = ("metadata", "enrichment")
_TEXT_MAX = 200
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


class FunctionSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "python"`."""

    function: Annotated[str, Meta(description="Import path, as in `acme.audit:shape`.", pattern=r"\A[\w.]+:\w+\Z")]
    path: Annotated[str | None, Meta(description="A directory that is searched for it too; its path starts at this file.")] = None


class Function(ChosenEvents):
    """The transform."""

    def __init__(self, name: str, settings: FunctionSettings, config: Config, compile_query: CompileQuery) -> None:
        super().__init__(name, settings.where, compile_query)
        self._depth_max = config.limits.depth
        if settings.path is not None and (folder := str(config.base_dir / settings.path)) not in sys.path:
            sys.path.append(folder)
        module, _, attribute = settings.function.partition(":")
        try:
            self._call: Callable[[dict[str, Any]], Any] = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            place = place_of(config, f"transforms.{name}.function")
            raise ConfigError(f"transforms.{name}: {settings.function} cannot be imported: {_told(error)}", place=place) from error

    def change(self, event: Event) -> list[Event]:
        """What the function gives. Raises EventInvalidError for what it raises, and for what is no event."""
        try:
            result = self._call(plain(event))
        except Exception as error:
            raise EventInvalidError(_told(error), code=FAILED) from error
        if result is None:
            return []
        if isinstance(result, dict):
            return [self._checked(event, result)]
        if not isinstance(result, list):
            raise EventInvalidError(f"the function gave {type(result).__name__}, no event, list or None", code=FAILED)
        made = [self._checked(event, one) for one in result]
        for number, one in enumerate(made, 1):
            if event.id is not UNSET:
                one.id = part_id(event.id, number)
        return made

    def _checked(self, before: Event, fields: Any) -> Event:
        """The event in ``fields``. Where a free member has the value it had, it has the sender's own text."""
        try:
            text = _encode(fields)
            made = _decode(text)
        except (msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError) as error:
            told = explain(error)
            raise EventInvalidError(
                f"the function's result is no event: {told.message}", pointer=told.pointer, code=FAILED
            ) from error
        for name in _SERVERS:
            if _encode([getattr(made, name)] if getattr(made, name) is not UNSET else []) != _encode(
                [getattr(before, name)] if getattr(before, name) is not UNSET else []
            ):
                raise EventInvalidError(f"the function may not change `{name}`", pointer=f"/{name}", code=FAILED)
        had = plain(before)
        for name in _FREE:
            if name in had and name in fields and _encode(had[name]) == _encode(fields[name]):
                setattr(made, name, getattr(before, name))
        try:
            strict.require_strict(_encode(made), self._depth_max)
            check_fields(made)  # type: ignore[arg-type]
            if made.enrichment is not UNSET and not bytes(made.enrichment).startswith(b"{"):
                raise EventInvalidError("`enrichment` must be a JSON object", pointer="/enrichment")
        except EventInvalidError as error:
            raise EventInvalidError(error.message, pointer=error.pointer, code=FAILED) from None
        return made


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_TEXT_MAX]
