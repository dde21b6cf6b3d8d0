"""Sampling: one event in so many goes on. What is left out is counted as filtered by the transform's name.

An audit log with holes in it is seldom what anybody wants, so the table has to say its own name: ``force = "NAME"``. Which events go on is told from
the id, or without one from the record as sent: a repeat of a delivery ends as the first one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated

from msgspec import UNSET, Meta

from tallystick.config.load import place_of
from tallystick.config.settings import Config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.plugin import NOTHING_KNOWN, BatchFacts
from tallystick.transforms.batch import CompileQuery, plain
from tallystick.transforms.shape import ChosenSettings


class SampleSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "sample"`."""

    one_in: Annotated[int, Meta(description="One event in so many goes on.", ge=2, le=2**32)]
    force: Annotated[str, Meta(description="The transform's own name, again: without it the configuration is refused.")] = ""


class Sample:
    """The transform."""

    def __init__(self, name: str, settings: SampleSettings, config: Config, compile_query: CompileQuery) -> None:
        if settings.force != name:
            place = place_of(config, f"transforms.{name}.type")
            hint = f'If events are to be left out for good, say so: force = "{name}"'
            raise ConfigError(f"transforms.{name} would leave events out of the log", place=place, hint=hint)
        self.name = name
        self._one_in = settings.one_in
        self._chooses = compile_query(settings.where) if settings.where is not None else None

    def apply(self, event: Event) -> list[Event]:
        """The event, or nothing; by its id."""
        return [event] if self._goes_on(event, b"") else []

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes], about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """Those that go on; None when all do."""
        pairs = enumerate(zip(events, contents, strict=True))
        found: list[tuple[int, Event | EventInvalidError]] = [
            (position, event) for position, (event, content) in pairs if self._goes_on(event, content)
        ]
        return found if len(found) < len(events) else None

    def _goes_on(self, event: Event, content: bytes) -> bool:
        if self._chooses is not None and not self._chooses(plain(event)):
            return True
        said = content if event.id is UNSET else event.id.encode()
        return int.from_bytes(blake2b(said, digest_size=8).digest(), "big") % self._one_in == 0
