"""Splitting: one event for each element of an array in it.

The parts of an event with an id get ids made of it, ``<id>:1``, ``<id>:2`` …, so that a repeat of the delivery finds all of them again; and
what is compared by is, for all of them, the record as sent. Without an id the server makes one for each part, as for any event.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw

from tallystick.config.settings import Config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.plugin import NOTHING_KNOWN, BatchFacts
from tallystick.transforms.batch import ChosenEvents, CompileQuery
from tallystick.transforms.paths import FAILED, FREE_ROOTS
from tallystick.transforms.shape import ChosenSettings, compile_path

_ID_MAX = 128
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_event = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


class SplitSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "split"`."""

    path: Annotated[
        str, Meta(description="The array; each part has one of its elements there. No array there, or an empty one: no change.")
    ]
    parts: Annotated[int, Meta(description="Parts of one event; one that would have more is quarantined.", ge=1, le=10_000)] = 1_000


class Split(ChosenEvents):
    """The transform."""

    def __init__(self, name: str, settings: SplitSettings, config: Config, compile_query: CompileQuery) -> None:
        super().__init__(name, settings.where, compile_query)
        self._path = compile_path(config, name, "path", settings.path, "write")
        self._is_free = self._path.parts[0] in FREE_ROOTS
        if len(self._path.parts) == 1 and self._path.text not in ("targets", "on_behalf_of"):
            raise ConfigError(
                f"transforms.{name}: no event has an array at {settings.path!r}", hint="As in metadata.items or targets"
            )
        self._parts_max = settings.parts
        self._events_max = config.limits.events

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any event may have the array."""
        return self._path.may_be_in(events)

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes] = (), about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """As `EachEvent`; a batch does not become more events than one request may have."""
        if not self.may_apply(events):
            return None
        found: list[tuple[int, Event | EventInvalidError]] = []
        for position, event in enumerate(events):
            room = self._events_max - len(found) - (len(events) - position - 1)
            try:
                made = self.apply(event)
                if len(made) > max(room, 1):
                    raise self._path.fault(f"the request would become more than {self._events_max} events")
            except EventInvalidError as error:
                found.append((position, error))
            else:
                found += [(position, one) for one in made]
        return found

    def change(self, event: Event) -> list[Event]:
        """The parts, in the order of the elements."""
        value = self._path.read(event)
        elements = _decode_list(value) if value is not None and value[:1] == b"[" else []
        if not elements:
            return [event]
        if len(elements) > self._parts_max:
            message = f"{len(elements)} elements are more than the {self._parts_max} parts that are allowed"
            raise EventInvalidError(message, pointer=self._path.pointer, code=FAILED)
        text = _encode(event)
        made = []
        for number, element in enumerate(elements, 1):
            part: Event = _decode_event(text)
            self._path.write(part, bytes(element) if self._is_free else b"[%b]" % bytes(element))
            if event.id is not UNSET:
                part.id = part_id(event.id, number)
            if number > 1:
                part.producer = UNSET  # its number came once
            made.append(part)
        return made


def part_id(name: str, number: int) -> str:
    """The id of a part of the event of that id, numbered from 1."""
    made = f"{name}:{number}"
    return made if len(made) <= _ID_MAX else f"{sha256(name.encode()).hexdigest()}:{number}"
