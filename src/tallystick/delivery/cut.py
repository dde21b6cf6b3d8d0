"""Cuts: where the borders of a destination's batches lie, and how the same bytes come back after a crash. Pure.

Rules

1. A cut covers a gapless range ``first..last`` of one tenant's sealed events. The ranges of a destination's cuts follow
   each other without hole or overlap, so each event is in exactly one of them (replays are apart: they name events).
2. Borders are decided once, from counts, bytes and waiting time, and stored (`CutRecord`) before the first byte is sent.
   The clock has a say in the decision only, never in the bytes.
3. The body is a function of the lines of the range, the stored ``where`` and the encoder; its SHA-256 is in the record. A
   retry or a restart builds it again and compares: equal digest, equal name.
4. When the digest differs (events expired or were lost meanwhile, an encoder or a library changed), the old name is looked
   up at the destination; the cut is settled if it is there, else voided, durably, before the range is cut again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from tallystick.plugin import Cut, Encoder

Predicate = Callable[[bytes], bool]
"""Whether a canonical line is let through (`query.evaluate.Matcher.matches_line`)."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The borders of a cut: events, bytes of canonical lines, seconds that an event may wait for company."""

    max_events: int
    max_bytes: int
    max_age_s: float


class CutRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a cut before it is sent (docs/formats/cuts.md).

    ``events`` are let through, as the bitmap ``kept`` says (empty: all but the gaps); ``gaps`` maps indexes without content to
    the reason. ``only`` is empty for a range; a replay names its indexes there. ``letters`` and ``reasons`` are those of the dead letters that
    a replay answers, parallel to ``only`` or empty. ``place`` is where the destination said it would put the bytes.
    """

    id: int
    handle: str
    tenant: str
    first: int
    last: int
    sha256: str
    encoding: str
    encoder_version: str
    config: str
    checkpoint: str
    events: int = 0
    kept: bytes = b""
    gaps: dict[int, str] = {}
    where: str = ""
    place: str = ""
    only: tuple[int, ...] = ()
    letters: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.first:020d}-{self.last:020d}-{self.sha256[:16]}"

    @property
    def count(self) -> int:
        """Events that the cut answers for: its whole range, or the named ones."""
        return len(self.only) or self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Selection:
    """The events of a range, sorted by what becomes of them. ``gaps`` maps an index without content to the reason."""

    first: int
    last: int
    indexes: Sequence[int]
    lines: Sequence[bytes]
    gaps: dict[int, str]

    @property
    def filtered(self) -> int:
        return self.last - self.first + 1 - len(self.indexes) - len(self.gaps)


def is_due(pending: int, pending_bytes: int, age_s: float, limits: BatchLimits) -> bool:
    """Whether a cut is made now of ``pending`` events, of about ``pending_bytes``, the oldest waiting for ``age_s``."""
    if pending <= 0:
        return False
    return pending >= limits.max_events or pending_bytes >= limits.max_bytes or age_s >= limits.max_age_s


def count_within(lines: Sequence[bytes], max_events: int, max_bytes: int) -> int:
    """How many of the first lines stay within both limits; at least one, since a single event cannot be made smaller."""
    head = lines[:max_events]
    return max(1, bisect_right(list(accumulate(map(len, head))), max_bytes)) if head else 0


def select_lines(first: int, lines: Sequence[bytes], gaps: dict[int, str], where: Predicate | None) -> Selection:
    """Sort the lines from index ``first`` on into let through, filtered and gone.

    Without filter and gaps nothing is done per event.
    """
    last = first + len(lines) - 1
    if where is None and not gaps:
        return Selection(first, last, range(first, last + 1), lines, gaps)
    numbered: Iterable[tuple[int, bytes]] = ((index, line) for index, line in enumerate(lines, first) if index not in gaps)
    if where is not None:
        numbered = (pair for pair in numbered if where(pair[1]))
    kept = list(numbered)
    return Selection(first, last, [index for index, _ in kept], [line for _, line in kept], gaps)


def pick_lines(selection: Selection, only: Sequence[int]) -> Selection:
    """The events that a replay names, of a selection made without filter."""
    wanted = set(only)
    pairs = [pair for pair in zip(selection.indexes, selection.lines, strict=True) if pair[0] in wanted]
    gaps = {index: reason for index, reason in selection.gaps.items() if index in wanted}
    return Selection(selection.first, selection.last, [index for index, _ in pairs], [line for _, line in pairs], gaps)


@dataclass(frozen=True, slots=True)
class CutContext:
    """What a cut says about itself besides its events. ``checkpoint`` is the signed note that covers the range."""

    destination: str
    tenant: str
    handle: str
    origin: str
    checkpoint: str
    config: str
    where: str = ""


def build_cut(context: CutContext, selection: Selection, encoder: Encoder) -> Cut:
    """Encode a selection that lets at least one event through."""
    body = encoder.encode(selection.lines, origin=context.origin, first_index=selection.first, last_index=selection.last)
    return Cut(
        destination=context.destination,
        tenant=context.tenant,
        handle=context.handle,
        origin=context.origin,
        first_index=selection.first,
        last_index=selection.last,
        indexes=selection.indexes,
        lines=selection.lines,
        body=body,
        content_type=encoder.content_type,
        suffix=encoder.suffix,
        sha256=hashlib.sha256(body).hexdigest(),
        checkpoint=context.checkpoint,
    )


def record_cut(cut: Cut, number: int, context: CutContext, encoder: Encoder, place: str) -> CutRecord:
    """The record to be stored before ``cut`` is sent."""
    return CutRecord(
        id=number,
        handle=cut.handle,
        tenant=cut.tenant,
        first=cut.first_index,
        last=cut.last_index,
        sha256=cut.sha256,
        encoding=encoder.name,
        encoder_version=encoder.version,
        config=context.config,
        checkpoint=context.checkpoint,
        where=context.where,
        place=place,
    )


def halve(cut: Cut) -> tuple[int, int, int, int]:
    """The two ranges ``(first, mid, mid + 1, last)`` with half of the events each. The cut has at least two events."""
    middle = cut.indexes[(len(cut.indexes) + 1) // 2] - 1
    return cut.first_index, middle, middle + 1, cut.last_index
