"""Filtering by query: what is dropped is counted under the filter's name, in the account of the tenant."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tallystick.config.settings import Settings
from tallystick.errors import ConfigError
from tallystick.event import Event
from tallystick.transforms.batch import CompileQuery, EachEvent, plain


class FilterSettings(Settings, frozen=True):
    """`[transforms.x]` with `type = "filter"`: one of the two."""

    drop: Annotated[str | None, Meta(description="Events that match this query do not go on.")] = None
    keep: Annotated[str | None, Meta(description="Only events that match this query go on.")] = None


class Filter(EachEvent):
    """The transform. ``compile_query`` makes a predicate over a decoded line from a query."""

    def __init__(self, name: str, settings: FilterSettings, compile_query: CompileQuery) -> None:
        if (settings.drop is None) == (settings.keep is None):
            raise ConfigError(f"filter `{name}` needs either `drop` or `keep`")
        self.name = name
        self._matches = compile_query(settings.drop or settings.keep or "")
        self._drops = settings.drop is not None

    def apply(self, event: Event) -> list[Event]:
        """The event, or nothing when it is filtered."""
        return [] if self._matches(plain(event)) is self._drops else [event]
