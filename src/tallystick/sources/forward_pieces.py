"""From a message of the forward protocol to pieces for the feed, and from pieces to events.

A message may hold half a million records once it is decompressed. So it is cut while it is decompressed, slice by slice, and only
as fast as the feed takes the slices; each slice is a piece of its own, and the last one brings the acknowledgement.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tallystick.config import IngestLimits
from tallystick.http.limits import plain_pieces
from tallystick.http.problem import Problem
from tallystick.plugin import Decoded, Fault
from tallystick.protocols import forward
from tallystick.protocols.forward import EntryCutter, EntrySlice, ForwardInvalidError, ForwardMessage, Mode
from tallystick.sources.feed import RECORD_COST, Piece
from tallystick.transforms.forward import INVALID, ForwardMapping

TOO_LARGE = "record_too_large"
_SLICE_RECORDS = 2_000
_PLAIN_RECORDS = 1_000
_COMPRESSIONS = ("gzip", "zstd")


class Plain(NamedTuple):
    """A piece of messages in Message mode without option."""


class Entries(NamedTuple):
    """A piece of one slice: its entries, their tag, and the beginning of their ids when the message has a chunk."""

    part: EntrySlice
    tag: str
    id_prefix: str


class Invalid(NamedTuple):
    """A piece whose record is no good: why."""

    code: str
    message: str


@dataclass(slots=True)
class MessageCutter:
    """Cuts the messages of one connection. ``acknowledge(chunk)`` is called when all of a chunk is durable."""

    source: str
    limits: IngestLimits
    message_max: int
    batch: int
    peer: str
    acknowledge: Callable[[str], None]

    def pieces(self, messages: deque[bytes]) -> Iterator[Piece]:
        """The pieces of the next message, or of many small ones without an option; takes them off ``messages``."""
        plain: list[bytes] = []
        while messages and len(plain) < _PLAIN_RECORDS and forward.is_plain_message(messages[0]):
            plain.append(messages.popleft())
        if plain:
            size = sum(map(len, plain)) + RECORD_COST * len(plain)
            yield Piece(plain, size, self.peer, self.peer, Plain())
            return
        message = messages.popleft()
        try:
            head = forward.read_message(message)
        except ForwardInvalidError as error:
            yield self._bad_piece(message, INVALID, str(error), forward.chunk_of(message))
            return
        if head is not None:
            yield from self._cut(message, head)

    def _cut(self, message: bytes, head: ForwardMessage) -> Iterator[Piece]:
        """The slices of one message; the last one brings the acknowledgement."""
        prefix = id_prefix(self.source, head.chunk) if head.chunk else ""
        last: Piece | None = None
        problem: Invalid | None = None
        try:
            for part in self._slices(head):
                if last is not None:
                    yield last
                origin = Entries(part, head.tag, prefix)
                size = len(part.data) + RECORD_COST * part.length
                last = Piece([part.data], size, self.peer, self.peer, origin)
        except ForwardInvalidError as error:
            problem = Invalid(INVALID, str(error))
        except Problem as error:
            problem = Invalid(TOO_LARGE if error.status == 413 else INVALID, error.detail)
        if problem is not None:
            if last is not None:
                yield last
            yield self._bad_piece(message, problem.code, problem.message, head.chunk)
        elif last is not None:
            if head.chunk:
                last.done = partial(self.acknowledge, head.chunk)
            yield last
        elif head.chunk:
            self.acknowledge(head.chunk)  # a chunk of nothing: there is nothing to wait for

    def _slices(self, head: ForwardMessage) -> Iterator[EntrySlice]:
        cutter = EntryCutter(self.message_max, _SLICE_RECORDS, self.batch)
        if head.mode is Mode.MESSAGE:
            _, entry = forward.without_tag(head.entries)
            yield EntrySlice(entry, 1, 0)
            return
        if head.mode is Mode.FORWARD:
            yield from cutter.feed(forward.unpacked_entries(head.entries))
        elif not head.compressed:
            yield from cutter.feed(head.entries)
        elif head.compressed in _COMPRESSIONS:
            for piece in plain_pieces(head.entries, head.compressed, self.limits):
                yield from cutter.feed(piece)
        else:
            raise ForwardInvalidError(f"entries compressed with {head.compressed[:32]!r} cannot be read; gzip and zstd can")
        cutter.end()

    def _bad_piece(self, message: bytes, code: str, why: str, chunk: str) -> Piece:
        done = partial(self.acknowledge, chunk) if chunk else None
        size = len(message) + RECORD_COST
        return Piece([message], size, self.peer, self.peer, Invalid(code, why), done)


def id_prefix(source: str, chunk: str) -> str:
    """How the ids of a chunk's entries begin."""
    digest = hashlib.blake2b(chunk.encode(), key=source.encode()[:64], digest_size=15).hexdigest()
    return f"chunk-{digest}."


def decode_pieces(mapping: ForwardMapping, pieces: list[Piece]) -> Decoded:
    """The events of a batch."""
    decoded = Decoded()
    line = 0
    for piece in pieces:
        origin = piece.origin
        if isinstance(origin, Invalid):
            line += 1
            decoded.faults.append(Fault(line, origin.code, origin.message, piece.records[0]))
            continue
        if isinstance(origin, Entries):
            result, length = mapping.map_slice(origin.part, origin.tag, origin.id_prefix, piece.peer), origin.part.length
        else:
            result, length = mapping.map_messages(piece.records, piece.peer), len(piece.records)
        decoded.events += result.events
        decoded.contents += result.contents
        decoded.lines += [line + position + 1 for position in result.positions]
        for problem in result.problems:
            decoded.faults.append(Fault(line + problem.position + 1, problem.code, problem.message, problem.record))
        line += length
    return decoded
