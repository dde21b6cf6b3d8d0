"""What encodings that sort events look at: the event, the words of its action, and the product that it is of."""

from __future__ import annotations

from typing import NamedTuple

from tallystick.destinations.encodings.products import Product, product_of
from tallystick.destinations.encodings.words import CODES, Words, words_of
from tallystick.event import Event, Target


class Facts(NamedTuple):
    """``targets`` is never unset."""

    event: Event
    targets: list[Target]
    words: Words
    product: Product


def facts_of(event: Event) -> Facts:
    """Gathered once for an event."""
    ingest, source = event.ingest, event.source
    product = product_of((ingest and ingest.mapping) or "", (source and source.name) or "")
    code = CODES.get(product.name, {}).get(event.action, "").split()
    words = words_of(event.action)
    return Facts(event, event.targets or [], Words(words.all.union(code), code[-1]) if code else words, product)
