"""What a source, a transform and a destination must be. Everything hard stays with the caller.

- A **transform** is a function from one event to a list of events. An empty list means filtered, by that transform's name.
- A **destination** is one coroutine, ``send(cut)``, that says what became of a cut. Batching, retry, order, limits, metrics
  and dead letters live in the dispatcher.
- A **source** listens or reads, hands records to its `Intake`, and answers its sender only after that returned. Retry, tenants,
  quotas, quarantine, metrics and restarts lie behind the intake and in the runner. (Sources behind HTTP are doors of the intake
  and need no class of their own.)
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from tallystick.config.settings import DestinationSettings, IngestLimits
from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.times import ParsedTime


class BatchFacts(NamedTuple):
    """What is known of a batch of events as a whole: whose they are, and the events as JSON, where that is at hand of all."""

    tenant: str = ""
    said: Sequence[bytes] = ()


NOTHING_KNOWN = BatchFacts()


class Transform(Protocol):
    """Built once from its settings; ``apply`` is called for each event and does no IO."""

    name: str

    def apply(self, event: Event) -> list[Event]:
        """The events that go on; an empty list counts the event as filtered by ``name``. Raises EventInvalidError."""

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes], about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """The same for a batch: what goes on, each with its position; None leaves all as they are (`transforms.batch`).

        ``contents`` are the records as sent, compacted. An error in the place of an event: its record goes to the quarantine, or is refused where the sender asked for that.
        """


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


@runtime_checkable
class ReadsBack(Protocol):
    """A destination whose content can be read again, so that it can be reconciled with the log."""

    async def read_back(self, place: str, bytes_max: int) -> bytes | None:
        """What lies at ``place`` now, cut off behind ``bytes_max``; None when nothing is there. Raises DestinationUnavailableError."""

    async def proof_at(self, place: str, bytes_max: int) -> bytes | None:
        """The proof that goes with what lies at ``place``, in the same way."""

    async def list_places(self, tenant: str, after: str, limit: int) -> list[str]:
        """The next places with content of a tenant, in order, behind ``after``; no proofs. Raises DestinationUnavailableError."""

    def first_index_of(self, place: str) -> int | None:
        """The index that a place of ours begins with; None: no such name is ever given here."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Indexes of a cut's events that are not at the destination, and of those that are there with other content; ascending."""

    missing: Sequence[int]
    changed: Sequence[int]


@runtime_checkable
class ReadsEvents(Protocol):
    """A destination where each event lies under a name of its own, so that single ones can be compared and brought back."""

    async def compare(self, cut: Cut) -> Compared:
        """What is there of ``cut``, event by event. Raises DestinationUnavailableError."""

    async def restore(self, cut: Cut, indexes: Sequence[int]) -> Answer:
        """Write these events of ``cut`` where nothing lies under their names; never over something. May be repeated."""

    async def list_indexes(self, tenant: str, after: int, limit: int) -> list[int]:
        """The next indexes with an event of a tenant, behind ``after``; none where it keeps no index. Raises DestinationUnavailableError."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a source received, before it is an event. ``line`` counts from 1 within the sender's request.

    ``id`` names the record by its place where it came from (a stream's number, an offset), by the rules for ids. Its event gets it
    when the record has no id of its own, so that a record that is read again is stored once; further events of the same record
    get ``.2``, ``.3`` and so on behind it. ``more`` is that of its `Carrier`.
    """

    data: bytes
    line: int = 1
    peer: str = ""
    id: str = ""
    more: Mapping[str, Any] | None = None


class Carrier(NamedTuple):
    """What the protocol says of a record that it carried.

    ``peer``: the host or address that it came from. ``more``: members that join the record's own in ``metadata``, under names of
    the protocol; a record's own member of the same name stays, and the other gets `_` behind its name.
    """

    peer: str = ""
    time: ParsedTime | None = None
    more: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: a credential's id (empty where a source has none) and the tenants it is bound to; none means any.

    ``is_own``: the installation itself, which has no quota and may write to the server's own tenant.
    """

    credential: str
    tenants: Collection[str]
    is_own: bool = False

    def may_write(self, tenant: str) -> bool:
        """True when events of that tenant are taken from this sender."""
        return not self.tenants or tenant in self.tenants

    @property
    def only_tenant(self) -> str | None:
        """The tenant of all that this sender sends, when there is but one."""
        return next(iter(self.tenants)) if len(self.tenants) == 1 else None

    @property
    def lane(self) -> str:
        """Whose turn this sender's requests wait for: its tenant's, or its own when it may write to several."""
        return self.only_tenant or f"key:{self.credential}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that could not become an event, for the quarantine. ``line`` is its place in what was handed over, from 1."""

    line: int
    code: str
    message: str
    record: bytes


@dataclass(slots=True)
class Decoded:
    """What a source's own decoder made of what it received.

    ``events``, ``contents`` and ``lines`` are parallel: ``contents`` are the records as sent (what repeats are compared by),
    ``lines`` their places, from 1. Events have no tenant. ``said``: as in `event.codec.ReadBatch`, where it is known.
    """

    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)

    @property
    def records(self) -> Sequence[bytes]:
        """What the quarantine keeps of a record whose event is no good after all; parallel to ``events``."""
        return self.contents


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of records once they are durable, as numbers of events (``quarantined``: of records)."""

    accepted: int
    duplicates: int
    filtered: int
    quarantined: int
    received_at: str


class Intake(Protocol):
    """A source's way in. Each commit is one: when it returns, everything in it is on disk and may be acknowledged.

    While the server cannot take more (a full disk, a quota, a slow journal) a commit waits and tries again, as long as it takes;
    a source that waits for it reads no further, and so pushes back. Commits that are made one after the other keep their order.
    A record that can never be stored as it is goes to the quarantine, durable too: it holds nobody up. What is raised
    (NotAcceptingError when the server stops meanwhile, or the task's cancellation) means that nothing is known to be stored.
    """

    async def commit_records(self, records: Sequence[Record], sender: Sender | None = None) -> Taken:
        """Map records with the mapping that the source's settings name, and commit them. ``sender``: None for the source itself."""

    async def commit_decoded(self, decode: Callable[[], Decoded], size: int, sender: Sender | None = None, peer: str = "") -> Taken:
        """Commit what ``decode`` makes. It is called once, perhaps in a thread, and does no IO; ``size``: bytes it works on."""

    async def record_gap(self, gap_id: str, facts: Mapping[str, Any], sender: Sender | None = None) -> None:
        """Write to the tenant's account that records are known to be missing; stored once per ``gap_id`` (1 to 100 characters).

        ``facts`` are names, ranges, counts and times only, never content.
        """

    async def record_own(self, event: Mapping[str, Any]) -> None:
        """Append one event of the server about itself (a failed login, say) to the server's own log."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is made with. ``state_dir``: its own directory in the data directory, not made yet, for its `StateFile`s."""

    name: str
    base_dir: Path
    state_dir: Path
    limits: IngestLimits


class Source(Protocol):
    """One small class per kind of source, made anew for each run.

    ``guarantee`` says what its tests prove: `at least once` where an acknowledgement or a cursor follows the commit, `best effort`
    where the protocol has none. ``acknowledges`` says in words how the other side learns what is durable.
    """

    guarantee: ClassVar[str]
    acknowledges: ClassVar[str]

    def __init__(self, settings: Any, context: SourceContext) -> None: ...

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """Work until ``stop``; then take nothing new, commit what is held, answer it and return, within seconds.

        Whatever is raised ends this run: the runner logs it, shows it in status, waits, and runs a new instance.
        """

    def status(self) -> Mapping[str, Any]:
        """Facts for `/v1/status`, quick to give. ``reason``: what is wrong though it runs, in words, or empty."""
