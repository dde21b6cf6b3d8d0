"""Small requests that arrive together share one commit.

Sixty senders of one event each cost, one by one, sixty times what surrounds an event: a draft, a transform's look, an id
prefix, a claim, a frame, a compression, a wake-up. So the requests that are read in one turn of the event loop and come with
the same key are decoded, stamped, encoded, hashed and committed as one batch. No timer: who comes alone goes alone, at once.

1. What is shared is the work, not the fate. A request that is no success (an invalid event, an id used before with other
   content, push-back) is declined, goes the ordinary way alone (`sources.doors`), and is refused there as if it had come
   alone. Nothing of it is stored before: the shared commit stores all it holds or nothing (one group of frames).
2. Each request has an answer of its own, after the shared fdatasync: its own ranges, the root over its own leaf hashes.
   ``received_at`` is that of the batch. What two requests of one batch have in common by id and content is stored once, and
   the second is told so.
3. Quotas are charged by request, so where there are some, everything goes the ordinary way.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tallystick.errors import OutcomeUnknownError, PushbackError
from tallystick.event.codec import split_lines
from tallystick.http.host import HostCheck
from tallystick.http.small import SmallRequest
from tallystick.journal.claimed import ranges_of
from tallystick.sources.answer import encode_answer
from tallystick.sources.doors import DoorParts, json_shape
from tallystick.sources.part import Shares, made_ids, outcome_of
from tallystick.sources.plan import EVENTS
from tallystick.sources.submission import (
    ConflictingLinesError,
    Draft,
    ForbiddenTenantError,
    InvalidBatchError,
    Outcome,
    Sender,
    TenantOutcome,
)

_TARGET = b"/v1/events"
_NDJSON = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})
_JSON = frozenset({b"application/json", b"application/json; charset=utf-8"})
_NOT_HERE = frozenset({b"idempotency-key", b"ce-specversion"})
_REQUESTS_MAX = 256
_SENDERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who sends, and whether the body is one JSON object (or an array) instead of lines."""

    sender: Sender
    is_json: bool


class Together:
    """The `http.small.SmallDoor` of `POST /v1/events`."""

    def __init__(self, parts: DoorParts, hosts: HostCheck) -> None:
        self._service = parts.service
        self._keys = parts.keys
        self._bodies = parts.bodies
        self._signer = parts.signer
        self.hosts = hosts
        self._waiting: dict[Sender, list[SmallRequest]] = {}
        self._senders: dict[str, tuple[object, Sender]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ticket(self, url: bytes, headers: Mapping[bytes, bytes]) -> Ticket | None:
        """None for whatever needs a second look: another path or type, a key not seen lately, a parameter, a quota."""
        if url != _TARGET or self._service.quotas.is_limited or not _NOT_HERE.isdisjoint(headers):
            return None
        media = headers.get(b"content-type", b"")
        is_json = media in _JSON
        if not is_json and media not in _NDJSON:
            return None
        value = headers.get(b"authorization")
        key = self._keys.verify_again(value) if value else None
        if key is None or not key.may("ingest") or not self.hosts.is_listed(headers[b"host"]):
            return None
        known = self._senders.get(key.id)
        if known is None or known[0] is not key:
            if len(self._senders) >= _SENDERS_MAX:
                self._senders.clear()
            known = self._senders[key.id] = (key, Sender(key.id, key.tenants))
        return Ticket(known[1], is_json)

    def take(self, request: SmallRequest) -> None:
        """Commit it with what else arrives in this turn of the loop."""
        ticket: Ticket = request.ticket
        if ticket.is_json and json_shape(request.body) == "array":
            request.decline()
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._start)
        self._waiting.setdefault(ticket.sender, []).append(request)

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for sender, requests in waiting.items():
            for first in range(0, len(requests), _REQUESTS_MAX):
                task = asyncio.get_running_loop().create_task(self._commit(sender, requests[first : first + _REQUESTS_MAX]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _commit(self, sender: Sender, requests: list[SmallRequest]) -> None:
        """Answer those that can be committed together, decline the others."""
        try:
            while requests:
                batch = _Batch.of(requests)
                aside: Collection[int]
                try:
                    outcomes = await self._store(sender, batch)
                except InvalidBatchError as error:
                    aside = batch.owners(item.line for item in error.bad)
                except ConflictingLinesError as error:
                    aside = batch.owners(error.lines)
                else:
                    for request, outcome in zip(requests, outcomes, strict=True):
                        request.answer(encode_answer(outcome, self._signer, is_signed=False))
                    return
                _decline(requests[place] for place in aside)
                requests = [request for place, request in enumerate(requests) if place not in aside]
        except (ForbiddenTenantError, PushbackError):
            _decline(requests)
        except OutcomeUnknownError:
            for request in requests:
                request.hang_up()
        except BaseException:
            # A fault of ours: alone, each gets its own answer, and the fault its place in the log.
            _decline(requests)
            raise

    async def _store(self, sender: Sender, batch: _Batch) -> list[Outcome]:
        """One outcome for each request. Raises what `IntakeService.commit` raises, and then nothing is stored."""
        service = self._service
        with self._bodies.hold(sender.lane) as hold:
            hold.grow_to(batch.size)
            draft = service.draft(service.plan(EVENTS), sender)
            service.read_records(draft, batch.records)
            shares = await service.store(await service.prepare(draft))
        service.tallies.count(draft.plan.name, outcome_of(draft, shares))
        return share_out(draft, shares, batch.ends)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The records of several requests; those of the first end before ``ends[0]``, and so on. ``size``: bytes of all bodies."""

    records: list[bytes]
    ends: list[int]
    size: int

    @classmethod
    def of(cls, requests: Sequence[SmallRequest]) -> _Batch:
        records: list[bytes] = []
        ends: list[int] = []
        for request in requests:
            # A body without any line gives an empty record, which is invalid: the request goes the ordinary way.
            records += (request.body,) if request.ticket.is_json else split_lines(request.body)[0] or (b"",)
            ends.append(len(records))
        return cls(records, ends, sum(len(request.body) for request in requests))

    def owners(self, lines: Iterable[int]) -> set[int]:
        """The requests, by place, to which these records (counted from 1) belong."""
        return {bisect_right(self.ends, line - 1) for line in lines}


def share_out(draft: Draft, shares: Shares, ends: Sequence[int]) -> list[Outcome]:
    """What became of each request of a draft: of the records before ``ends[0]``, of those from there to ``ends[1]``, and so on."""
    starts = [0, *ends[:-1]]
    outcomes = [
        Outcome(draft.received_at, 0, 0, 0, [], made_ids(shares.stored, start, end), [])
        for start, end in zip(starts, ends, strict=True)
    ]
    for part, done in zip(shares.stored, shares.committed.tenants, strict=True):
        indexes = [first + n for first, count in done.ranges for n in range(count)]
        repeated = frozenset(done.repeated)
        start = 0
        while start < len(part.positions):
            owner = bisect_right(ends, part.positions[start])
            stop = bisect_left(part.positions, ends[owner], start)
            outcome = outcomes[owner]
            duplicates = sum(place in repeated for place in range(start, stop)) if repeated else 0
            outcome.accepted += stop - start - duplicates
            outcome.duplicates += duplicates
            where = TenantOutcome(done.handle, ranges_of(indexes[start:stop]), done.leaf_hashes[start:stop], list)
            outcome.tenants.append(where)
            start = stop
    for part in shares.parts:
        for position in [position for gone in part.filtered.values() for position in gone]:
            outcomes[bisect_right(ends, position)].filtered += 1
    return outcomes


def _decline(requests: Iterable[SmallRequest]) -> None:
    for request in requests:
        request.decline()
