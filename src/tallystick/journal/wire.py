"""What an intake worker and the one writer say to each other over `run/journal.sock`.

On the stream: ``u32 length, big-endian | MessagePack``; each message is an array that begins with its tag. A call carries a number
of the worker's choice, and its answer the same one; answers come in any order.

    worker → writer    AppendCall     one request, ready to be numbered (`journal.packed`)
                       TenantCall     the tenant of that name, to be made when it is new
    writer → worker    AppendAnswer   durable, and where it is
                       TenantAnswer
                       Refusal        of either call; nothing of it was stored
                       News           why the writer would refuse at the moment; sent at once, at every change, and every second

Both ends are of one version and one installation, and the socket is as private as the journal's files. A message that cannot be read
is a fault: whoever meets it closes the connection. This file does no IO.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from tallystick.errors import (
    ConflictError,
    DiskFullError,
    IntegrityError,
    NotAcceptingError,
    OverloadedError,
    PushbackError,
    TallystickError,
)
from tallystick.journal.entries import AccountEntry, FilterCount, QuarantinedRecord
from tallystick.journal.packed import PackedBatch
from tallystick.journal.tenants import Tenant

MESSAGE_BYTES_MAX: Final = 256 * 2**20
"""A request of the largest size has room in one message: its lines are compressed, its refused records are not."""

_LENGTH = struct.Struct(">I")
_PUSHBACK: dict[str, type[PushbackError]] = {kind.code: kind for kind in (OverloadedError, DiskFullError, NotAcceptingError)}
INTERNAL: Final = "internal"
"""The code of a Refusal for a fault of the writer's own."""


class ConflictRecord(msgspec.Struct, array_like=True):
    """What is kept when the event at ``position`` of batch ``batch`` (both from 0) proves to use another's id."""

    batch: int
    position: int
    record: QuarantinedRecord


class AppendCall(msgspec.Struct, array_like=True, tag="append", gc=False):
    """`entries.Append`, its batches packed. A conflict without its record in ``conflicts`` refuses the call with all positions."""

    number: int
    source: str
    received_at: str
    is_own: bool
    batches: list[PackedBatch]
    quarantined: list[QuarantinedRecord]
    filtered: list[FilterCount]
    account: list[AccountEntry]
    conflicts: list[ConflictRecord]


class TenantCall(msgspec.Struct, array_like=True, tag="tenant"):
    """Asks for a tenant by name."""

    number: int
    name: str


class CommittedBatch(msgspec.Struct, array_like=True, gc=False):
    """`entries.TenantCommitted`; ``leaf_hashes`` are joined, and None when they are those of the batch as it was sent."""

    ranges: list[list[int]]
    accepted: int
    duplicates: int
    repeated: list[int]
    leaf_hashes: bytes | None


class AppendAnswer(msgspec.Struct, array_like=True, tag="appended", gc=False):
    """`entries.Committed`; ``batches`` is parallel to the call's."""

    number: int
    batches: list[CommittedBatch]
    conflicts: list[tuple[int, int]]
    seq: int


class TenantAnswer(msgspec.Struct, array_like=True, tag="tenant_is"):
    """The tenant that was asked for; it is durable."""

    number: int
    tenant: Tenant


class Refusal(msgspec.Struct, array_like=True, tag="refused"):
    """An error of the writer: its code, and all that a sender is told. ``positions`` as in ConflictError."""

    number: int
    code: str
    message: str
    hint: str | None = None
    retry_after_s: float = 0.0
    positions: list[tuple[int, int]] = []

    @classmethod
    def of(cls, number: int, error: BaseException) -> Refusal:
        """What to tell of ``error``; of one that nobody foresaw, only that it was."""
        if isinstance(error, ConflictError):
            return cls(number, error.code, error.message, error.hint, positions=list(error.positions))
        if isinstance(error, PushbackError) and error.code in _PUSHBACK:
            return cls(number, error.code, error.message, error.hint, error.retry_after_s)
        return cls(number, INTERNAL, f"the writer failed: {error!r}")

    def error(self) -> TallystickError:
        """The error again, to be raised in the worker."""
        if self.code == ConflictError.code:
            return ConflictError(self.message, positions=self.positions)
        if self.code in _PUSHBACK:
            return _PUSHBACK[self.code](self.message, retry_after_s=self.retry_after_s, hint=self.hint)
        return TallystickError(self.message)


class News(msgspec.Struct, array_like=True, tag="news"):
    """Why the writer would refuse now; empty when it would not."""

    reasons: list[str]


Call: TypeAlias = AppendCall | TenantCall
Answer: TypeAlias = AppendAnswer | TenantAnswer | Refusal | News

_encode = msgspec.msgpack.Encoder().encode
_call_decoder: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_message(message: Call | Answer) -> tuple[bytes, bytes]:
    """Length and body, to be written one after the other. Raises OverloadedError past `MESSAGE_BYTES_MAX`."""
    body = _encode(message)
    if len(body) > MESSAGE_BYTES_MAX:
        raise OverloadedError(f"one request makes a message of {len(body)} bytes; {MESSAGE_BYTES_MAX} is the bound")
    return _LENGTH.pack(len(body)), body


def decode_call(body: bytes) -> Call:
    """Raises IntegrityError for what is no call."""
    try:
        return _call_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError(f"a worker's message cannot be read: {error}") from error


def decode_answer(body: bytes) -> Answer:
    """Raises IntegrityError for what is no answer."""
    try:
        return _answer_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the writer's message cannot be read: {error}") from error


class MessageSplitter:
    """Cuts a stream into bodies of messages. Holds one unfinished message, at most `MESSAGE_BYTES_MAX` and what one read brings."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The bodies that are whole now. Raises IntegrityError for a length over the bound."""
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return ()
        buffer = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        found, at = [], 0
        while True:
            start = at + _LENGTH.size
            if start > len(buffer):
                self._wanted = _LENGTH.size
                break
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > MESSAGE_BYTES_MAX:
                raise IntegrityError(f"a message of {length} bytes is over the bound of {MESSAGE_BYTES_MAX}")
            if start + length > len(buffer):
                self._wanted = _LENGTH.size + length
                break
            at = start + length
            found.append(buffer[start:at])
        rest = buffer[at:]
        self._pieces = [rest] if rest else []
        self._held = len(rest)
        return found
