"""The Fluentd forward protocol, version 1: messages and entries. Pure: bytes in, records out; the handshake is in `forward_hello`.

A connection is a row of msgpack values. Each message is an array that begins with the tag; what stands second tells its mode:

    Message                 [tag, time, record, option?]
    Forward                 [tag, [[time, record], …], option?]
    PackedForward           [tag, bin of [time, record] …, option?]
    CompressedPackedForward the same, the bin compressed, option {"compressed": "gzip"} (or "zstd")

A time is an integer (seconds), an EventTime (ext type 0: seconds and nanoseconds, u32 each, big-endian) or a float; Fluent Bit may
put metadata beside it: [time, metadata]. ``option`` may hold ``chunk``, the name under which the sender wants to hear that all
of the message is safe.

1. `ForwardSplitter` cuts the stream into messages without making anything of them: the msgpack library skips over values, keeps
   its place when a value is not whole yet, and bounds nesting. So many bytes as a message has are held, no more.
2. `read_message` looks at a message's outer array only. `EntryCutter` cuts entries into slices of a bounded number, also from a
   compressed stream as it is decompressed: nothing is ever there as a whole but the compressed bytes.
3. `decode_entries` makes records of a slice in one call; only where that fails each entry is looked at by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

import msgpack
import msgspec
from msgspec import Raw

ARRAY_32 = b"\xdd"
_NIL = b"\xc0"
_ARRAY_OF_2, _ARRAY_OF_3, _FIXEXT_8 = 0x92, 0x93, 0xD7
_U32 = struct.Struct(">I")
_BINS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bin and str: bytes of their length

_decode_parts = msgspec.msgpack.Decoder(list[Raw]).decode
_decode_text = msgspec.msgpack.Decoder(str).decode
_decode_option = msgspec.msgpack.Decoder(dict[str, Any]).decode
_decode_entries = msgspec.msgpack.Decoder(list[tuple[Any, dict[str, Any]]]).decode
_decode_messages = msgspec.msgpack.Decoder(list[tuple[Any, Any, dict[str, Any]]]).decode
_encode = msgspec.msgpack.Encoder().encode

Entry = tuple[Any, dict[str, Any]]
"""Time as it came, and record."""


class ForwardInvalidError(ValueError):
    """A message that is whole msgpack but no message of the protocol."""


class Mode(Enum):
    """How a message carries its entries."""

    MESSAGE = "message"
    FORWARD = "forward"
    PACKED = "packed"


class ForwardMessage(NamedTuple):
    """A message's outer array. ``entries``: what holds them, as it came; ``chunk`` empty: no acknowledgement is asked for."""

    tag: str
    mode: Mode
    entries: bytes
    chunk: str
    compressed: str


class EntrySlice(NamedTuple):
    """Some entries of one message, msgpack values behind each other. ``first`` is the place of the first one, from 0."""

    data: bytes
    length: int
    first: int


class ForwardSplitter:
    """One connection's messages. ``message_max``: bytes of one."""

    def __init__(self, message_max: int) -> None:
        self.failure = ""
        self._message_max = message_max
        # What is fed is skipped before more is fed, so at most one unfinished message and one read are inside.
        self._unpacker = msgpack.Unpacker(max_buffer_size=2 * message_max + 2**20)
        self._tail = bytearray()
        self._at = 0  # where in the stream the tail begins

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the unfinished message."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes. After a ``failure`` nothing more comes."""
        found: list[bytes] = []
        if self.failure:
            return found
        self._tail += data
        start = 0
        try:
            self._unpacker.feed(data)
            while True:
                self._unpacker.skip()
                end = self._unpacker.tell() - self._at
                if end - start > self._message_max:
                    self.failure = "message_too_large"
                    break
                found.append(bytes(self._tail[start:end]))
                start = end
        except msgpack.OutOfData:
            pass
        except (msgpack.UnpackException, ValueError):
            self.failure = "not_msgpack"
        del self._tail[:start]
        self._at += start
        if len(self._tail) > self._message_max:
            self.failure = self.failure or "message_too_large"
        if self.failure:
            self._tail.clear()
        return found


def read_message(message: bytes) -> ForwardMessage | None:
    """The outer array of a message; None for a heartbeat (nil). Raises ForwardInvalidError."""
    if message == _NIL:
        return None
    try:
        parts = list(map(bytes, _decode_parts(message)))
        tag = _decode_text(parts[0])
        mode = _mode_of(parts[1])
        option = _option_of(parts[3 if mode is Mode.MESSAGE else 2 :])
        entries = _inside_bin(parts[1]) if mode is Mode.PACKED else parts[1] if mode is Mode.FORWARD else message
    except (msgspec.MsgspecError, IndexError, RecursionError, UnicodeDecodeError):
        raise ForwardInvalidError("a message is an array of tag, entries and option") from None
    if mode is Mode.MESSAGE and len(parts) < 3:
        raise ForwardInvalidError("a message of one event is an array of tag, time, record and option")
    chunk, compressed = option.get("chunk", ""), option.get("compressed", "")
    if not isinstance(chunk, str) or not isinstance(compressed, str):
        raise ForwardInvalidError("`chunk` and `compressed` are texts")
    return ForwardMessage(tag, mode, entries, chunk, "" if compressed == "text" else compressed)


def chunk_of(message: bytes) -> str:
    """The chunk that a message names even though it is no good otherwise; empty when none can be told."""
    try:
        option = _decode_option(bytes(_decode_parts(message)[-1]))
    except (msgspec.MsgspecError, IndexError, RecursionError, UnicodeDecodeError):
        return ""
    chunk = option.get("chunk", "")
    return chunk if isinstance(chunk, str) else ""


def acknowledge(chunk: str) -> bytes:
    """What the sender waits for."""
    return _encode({"ack": chunk})


def is_plain_message(message: bytes) -> bool:
    """True in Message mode without option, when the tag is short: nothing but tag, time and record, so that many of them can be
    decoded together."""
    if message[0] != _ARRAY_OF_3 or not 0xA0 <= message[1] <= 0xBF:
        return False
    second = message[2 + (message[1] & 0x1F)]
    return second == _FIXEXT_8 or second <= 0x7F or 0xCA <= second <= 0xD3


def without_tag(message: bytes) -> tuple[str, bytes]:
    """The tag of a message in Message mode, and its time and record as an entry. Raises ForwardInvalidError."""
    try:
        tag, *rest = map(bytes, _decode_parts(message))
        return _decode_text(tag), b"\x92" + b"".join(rest[:2])
    except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
        raise ForwardInvalidError("a message is an array of tag, time and record") from None


def _mode_of(second: bytes) -> Mode:
    first = second[0]
    if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
        # Fluent Bit's [time, metadata] stands where an array of entries could stand; an entry is an array, a time is none.
        if first != _ARRAY_OF_2:
            return Mode.FORWARD
        inner = list(map(bytes, _decode_parts(second)))
        return Mode.MESSAGE if _is_map(inner[1]) and not _is_array(inner[0]) else Mode.FORWARD
    return Mode.PACKED if first in _BINS or 0xA0 <= first <= 0xBF else Mode.MESSAGE


def _is_array(value: bytes) -> bool:
    return 0x90 <= value[0] <= 0x9F or value[0] in (0xDC, 0xDD)


def _is_map(value: bytes) -> bool:
    return 0x80 <= value[0] <= 0x8F or value[0] in (0xDE, 0xDF)


def _option_of(rest: list[bytes]) -> dict[str, Any]:
    if not rest or rest[0] == _NIL:
        return {}
    option: dict[str, Any] = _decode_option(rest[0])
    return option


def _inside_bin(value: bytes) -> bytes:
    """The bytes of a msgpack bin; old senders write a str, whatever is in it."""
    first = value[0]
    return value[1 + _BINS[first] :] if first in _BINS else value[1:]


class EntryCutter:
    """Cuts packed entries into slices of at most ``count_max`` entries, or about ``bytes_max`` bytes. Fed piece by piece."""

    def __init__(self, entry_max: int, count_max: int, bytes_max: int) -> None:
        self._entry_max = entry_max
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._unpacker = msgpack.Unpacker(max_buffer_size=2 * entry_max + 2**20)
        self._tail = bytearray()
        self._at = 0
        self._first = 0

    def feed(self, data: bytes) -> Iterator[EntrySlice]:
        """The slices that ``data`` completes. Raises ForwardInvalidError for what is no msgpack, and for an entry that is too large."""
        self._tail += data
        start = end = count = 0
        try:
            self._unpacker.feed(data)
            while True:
                self._unpacker.skip()
                end = self._unpacker.tell() - self._at
                count += 1
                if count == self._count_max or end - start >= self._bytes_max:
                    yield self._slice(start, end, count)
                    start, count = end, 0
        except msgpack.OutOfData:
            pass
        except (msgpack.UnpackException, ValueError):
            raise ForwardInvalidError("the entries are not msgpack") from None
        if count:
            yield self._slice(start, end, count)
        del self._tail[:end]
        self._at += end
        if len(self._tail) > self._entry_max:
            raise ForwardInvalidError(f"an entry is larger than {self._entry_max} bytes")

    def end(self) -> None:
        """Raises ForwardInvalidError when the last entry is not whole."""
        if self._tail:
            raise ForwardInvalidError("the last entry is not whole")

    def _slice(self, start: int, end: int, count: int) -> EntrySlice:
        made = EntrySlice(bytes(self._tail[start:end]), count, self._first)
        self._first += count
        return made


def unpacked_entries(entries: bytes) -> bytes:
    """The entries of Forward mode, behind each other as in PackedForward: what an array holds without its head."""
    first = entries[0]
    return entries[1:] if first <= 0x9F else entries[3:] if first == 0xDC else entries[5:]


def decode_entries(slice_: EntrySlice) -> list[Entry] | None:
    """All entries of a slice in one call; None when one of them is not a time and a map with texts as keys, or not UTF-8."""
    try:
        found: list[Entry] = _decode_entries(ARRAY_32 + _U32.pack(slice_.length) + slice_.data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return found


def decode_messages(messages: list[bytes]) -> list[tuple[Any, Any, dict[str, Any]]] | None:
    """The same for whole messages in Message mode without option: tag, time and record of each."""
    try:
        found: list[tuple[Any, Any, dict[str, Any]]] = _decode_messages(b"".join((ARRAY_32, _U32.pack(len(messages)), *messages)))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return found


def split_entries(slice_: EntrySlice) -> list[bytes]:
    """The entries of a slice one by one, each as it came."""
    return list(map(bytes, _decode_parts(ARRAY_32 + _U32.pack(slice_.length) + slice_.data)))


def decode_entry(entry: bytes) -> tuple[Entry, bool]:
    """One entry, leniently, and whether texts had to be replaced. Raises ForwardInvalidError when it is no time and no map."""
    try:
        value, was_replaced = msgspec.msgpack.decode(entry), False
    except (msgspec.MsgspecError, UnicodeDecodeError):
        value, was_replaced = _decode_leniently(entry), True
    except RecursionError:
        raise ForwardInvalidError("the record is nested too deep") from None
    if not isinstance(value, list) or len(value) < 2 or not isinstance(value[1], dict):
        raise ForwardInvalidError("an entry is an array of a time and a map")
    return (value[0], value[1]), was_replaced


def _decode_leniently(entry: bytes) -> Any:
    try:
        return msgpack.unpackb(entry, raw=False, strict_map_key=False, unicode_errors="replace", ext_hook=msgspec.msgpack.Ext)
    except (ValueError, msgpack.UnpackException, TypeError, RecursionError):
        raise ForwardInvalidError("the entry cannot be read") from None
