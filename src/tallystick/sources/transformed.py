"""Step 3 of the way in: one tenant's share of a request is held to contracts and goes through the transforms of its source.

An event that goes on keeps its position, so that what became of each record can be told: changed or made into several, taken away
(counted under the transform's name), or, with an error, bad like a record that could not be read.
"""

from __future__ import annotations

from msgspec import UNSET
from prometheus_client import Counter

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.stamp import add_flag, texts_of
from tallystick.plugin import BatchFacts, Transform
from tallystick.sources.part import Part
from tallystick.sources.submission import Draft

_FILTERED = Counter("tallystick_transform_filtered", "Events that a transform took away, by its name.", ["transform"])
_FAILED = Counter(
    "tallystick_transform_failed", "Events of which a transform could make nothing valid, by its name.", ["transform"]
)


def hold_to_contracts(draft: Draft, part: Part) -> None:
    """Make events bad that break their schema contract, or flag them where the contract is a shadow."""
    if not draft.plan.contracts:
        return
    errors: dict[int, EventInvalidError] = {}
    for breach in draft.plan.contracts.breaches(part.events):
        if breach.is_shadow:
            add_flag(part.events[breach.place], f"contract:{breach.name}")
            part.said = ()
        else:
            errors[breach.place] = breach.error
    if errors:
        part.refuse(errors, draft)


def transform_part(draft: Draft, part: Part) -> None:
    """All transforms of the draft's source, in order, on ``part``.

    The events are encoded once for all: a transform searches the text, and if none changed anything it becomes the line's.
    """
    if draft.plan.transforms and not part.said:
        part.said = texts_of(part.events)
    for transform in draft.plan.transforms:
        kept = transform.apply_batch(part.events, part.contents, BatchFacts(part.tenant.name, part.said))
        if kept is not None:
            _take(draft, part, transform, kept)


def _take(draft: Draft, part: Part, transform: Transform, kept: list[tuple[int, Event | EventInvalidError]]) -> None:
    failed = {place: _named(made, transform.name) for place, made in kept if isinstance(made, EventInvalidError)}
    stays = {place for place, _ in kept}
    if len(stays) < len(part.events):
        gone = [position for place, position in enumerate(part.positions) if place not in stays]
        part.filtered[transform.name] = part.filtered.get(transform.name, []) + gone
        numbers = [event.producer for at, event in enumerate(part.events) if at not in stays and event.producer is not UNSET]
        if numbers:
            part.filtered_numbers[transform.name] = part.filtered_numbers.get(transform.name, []) + numbers
        _FILTERED.labels(transform.name).inc(len(gone))
    if failed:
        part.blame(failed, draft)
        _FAILED.labels(transform.name).inc(len(failed))
    part.keep([(place, made) for place, made in kept if isinstance(made, Event) and place not in failed])


def _named(error: EventInvalidError, name: str) -> EventInvalidError:
    return EventInvalidError(f"transform {name}: {error.message}", pointer=error.pointer, code=error.code)
