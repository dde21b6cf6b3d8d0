"""What a source, a transform and a destination must be. Everything hard stays with the caller.

- A **transform** is a function from one event to a list of events. An empty list means filtered, by that transform's name.
- A **destination** is one coroutine, ``send(cut)``, that says what became of a cut. Batching, retry, order, limits, metrics
  and dead letters live in the dispatcher.
- A **source** listens or reads, hands records to the intake, and answers its sender only after the intake returned.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from tallystick.config.settings import DestinationSettings
from tallystick.event import Event


class Transform(Protocol):
    """Built once from its settings; ``apply`` is called for each event and does no IO."""

    name: str

    def apply(self, event: Event) -> list[Event]:
        """The events that go on; an empty list counts the event as filtered by ``name``."""

    def apply_batch(self, events: Sequence[Event], contents: Sequence[bytes]) -> list[tuple[int, Event]] | None:
        """The same for a batch: what goes on, each with its position; None leaves all as they are (`transforms.batch`)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One destination's batch of one tenant's sealed events, with bytes fixed before the first attempt.

    ``body`` is the encoded form, identical for every attempt; ``sha256`` its hexadecimal digest; ``name`` a
    deterministic name made of range and digest. ``indexes`` and ``lines`` are parallel and in order: the events of
    ``first_index..last_index`` that the destination's filter let through. ``after`` is the ``where`` of this destination's
    answer settled last before this cut, or empty: an append-only destination learns from it how much of its tail counts.
    """

    destination: str
    tenant: str
    handle: str
    origin: str
    first_index: int
    last_index: int
    indexes: Sequence[int]
    lines: Sequence[bytes]
    body: bytes
    content_type: str
    suffix: str
    sha256: str
    checkpoint: str
    after: str = ""

    @property
    def name(self) -> str:
        """``<first>-<last>-<16 hex of the digest>``, zero-padded so that names sort by index."""
        return f"{self.first_index:020d}-{self.last_index:020d}-{self.sha256[:16]}"


class AnswerKind(enum.Enum):
    """What a destination said, sorted by what the dispatcher does next. Nothing means "drop"."""

    DELIVERED = "delivered"
    RETRY = "retry"
    THROTTLE = "throttle"
    SPLIT = "split"
    REFUSED = "refused"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one attempt.

    ``where`` names what holds the events now (object, offset, path). ``refused`` maps positions in the cut to the reply
    for each event refused for good while the rest arrived; kind REFUSED with an empty map refuses the whole cut.
    ``reply`` is at most 64 KiB of what the other side said.
    """

    kind: AnswerKind
    reason: str = ""
    where: str = ""
    reply: str = ""
    retry_after_s: float | None = None
    refused: Mapping[int, str] = field(default_factory=dict)


class Encoder(Protocol):
    """Turns lines into one body. Pure, and the same bytes for the same input as long as ``version`` stays the same."""

    name: str
    version: str
    content_type: str
    suffix: str

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        """The body of one cut."""


@dataclass(frozen=True, slots=True)
class BatchDefaults:
    """What a destination takes at once when its `batch` setting is silent. ``max_age_s`` is in seconds."""

    max_events: int
    max_bytes: int
    max_age_s: float


class Destination(Protocol):
    """One small class per kind of destination. ``settings`` is its settings class, ``guarantee`` what its tests prove.

    ``window`` is how many cuts may be under way at once; ``is_ordered`` allows only one of them per tenant. ``answers`` is
    the published table: what the other side may say, and what is done then.
    """

    settings: ClassVar[type[DestinationSettings]]
    guarantee: ClassVar[str]
    answers: ClassVar[Mapping[str, str]]
    window: ClassVar[int]
    is_ordered: ClassVar[bool]
    batch: ClassVar[BatchDefaults]
    encoder: Encoder

    def __init__(self, name: str, settings: Any) -> None: ...

    def place(self, cut: Cut) -> str:
        """Where ``cut`` will be, when that is known before sending and can be looked up with ``find``; else empty."""

    async def find(self, place: str, sha256: str) -> bool | None:
        """Whether ``place`` holds exactly the bytes of that digest; None when it cannot be told."""

    async def send(self, cut: Cut) -> Answer:
        """Try once. Errors that it does not turn into an answer are a RETRY with the error's text."""

    async def probe(self) -> Answer:
        """Talk to the other side without leaving an event there; DELIVERED means it would accept one."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """What a source received, before it is an event. ``line`` counts from 1 within the sender's request."""

    data: bytes
    line: int = 1
    peer: str = ""
