"""AnyValue and attributes of OTLP in Protobuf: as the JSON values they stand for, and in OTLP's own JSON form.

AnyValue becomes the JSON value it stands for: bytes become base64, the doubles that JSON lacks become the texts `NaN`,
`Infinity` and `-Infinity`, and a value with nothing set becomes null.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tallystick.errors import EventInvalidError
from tallystick.protocols.otlp_wire import OtlpInvalidError

_KNOWN_MAX = 8_192
_KNOWN_BYTES_MAX = 128
_VALUES_MAX = 256
_KEY, _VALUE, _STRING, _DOUBLE = 0x0A, 0x12, 0x0A, 0x21
"""Tags: of KeyValue's `key` and `value`, and of AnyValue's `string_value` and `double_value`."""
_SHORTEST, _LENGTH_MAX = 6, 127
_unpack_double = struct.Struct("<d").unpack_from

_known: dict[bytes, tuple[str, Any]] = {}
_values: dict[str, int] = {}


class AttributeReader:
    """Reads attributes out of the bytes of their KeyValue. ``depth_max`` bounds the nesting of one value.

    ``known`` holds what short attributes with plain values say, by their bytes, for the whole process: methods, routes, status
    codes and the like come again and again. Of each key it takes the first `_VALUES_MAX` values; a key with more is one of
    those that are always new. It is emptied when it is full.
    """

    __slots__ = ("depth_max", "known")

    def __init__(self, depth_max: int) -> None:
        self.depth_max = depth_max
        self.known = _known

    def read(self, pair: bytes) -> tuple[str, Any]:
        """Key and value of a KeyValue that is not known. Raises OtlpInvalidError, EventInvalidError."""
        found = _short(pair) or self._parse(pair)
        if len(pair) > _KNOWN_BYTES_MAX:
            return found
        count = _values.get(found[0], 0)
        if count < _VALUES_MAX and not isinstance(found[1], dict | list):
            self._keep(pair, found, count)
        return found

    def _keep(self, pair: bytes, found: tuple[str, Any], count: int) -> None:
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
            _values.clear()
        _known[pair] = found
        _values[found[0]] = count + 1

    def _parse(self, pair: bytes) -> tuple[str, Any]:
        try:
            message = KeyValue.FromString(pair)
        except DecodeError:
            raise OtlpInvalidError("an attribute in the body is no KeyValue in protobuf") from None
        if len(UnknownFieldSet(message)):
            check_wire(message)
        return message.key, plain(message.value, self.depth_max)


def _short(pair: bytes) -> tuple[str, str | float] | None:
    """Key and value where both have less than 128 bytes and the value is a text or a double; None for all others.

    `0A` length key `12` length (`0A` length text | `21` double). Most attributes are so, and this takes a third of the time that
    the library takes; a test holds it to what the library reads.
    """
    size = len(pair)
    if size < _SHORTEST or pair[0] != _KEY:
        return None
    at = 2 + pair[1]  # of the tag of `value`; a length of two bytes would have its first one over 127
    if at + 4 > size or pair[1] > _LENGTH_MAX or pair[at] != _VALUE or pair[at + 1] != size - at - 2:
        return None
    try:
        if pair[at + 2] == _STRING:
            return (pair[2:at].decode(), pair[at + 4 :].decode()) if pair[at + 3] == size - at - 4 else None
        if pair[at + 2] == _DOUBLE and size == at + 11:
            return pair[2:at].decode(), plain_double(_unpack_double(pair, at + 3)[0])
    except UnicodeDecodeError:
        return None  # the library will say the same
    return None


def plain(value: AnyValue, depth: int) -> Any:
    """The JSON value that ``value`` stands for, ``depth`` levels deep at most. Raises EventInvalidError."""
    kind = value.WhichOneof("value")
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return plain_double(value.double_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "string_value":
        return value.string_value
    if kind is None:
        check_wire(value)
        return None
    if depth <= 0:
        raise too_deep()
    if kind == "array_value":
        return [plain(element, depth - 1) for element in value.array_value.values]
    if kind == "kvlist_value":
        return members_of(value.kvlist_value.values, depth)
    return None


def plain_double(value: float) -> float | str:
    """A double as JSON can write it."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def members_of(pairs: Iterable[KeyValue], depth: int) -> dict[str, Any]:
    """An object from key-value pairs. Raises EventInvalidError when a key is there twice."""
    members: dict[str, Any] = {}
    for pair in pairs:
        if pair.key in members:
            raise repeated(pair.key for pair in pairs)
        check_wire(pair)
        members[pair.key] = plain(pair.value, depth - 1)
    return members


def too_deep() -> EventInvalidError:
    """The fault of a record that is nested deeper than an event may be."""
    return EventInvalidError("the record is nested too deep", code="depth_exceeded")


def repeated(keys: Iterable[str]) -> EventInvalidError:
    """The fault of a key that is there twice: whoever reads the last of them knows something else than who reads the first."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return EventInvalidError(f"the key {key[:80]!r} is there twice", code="key_duplicate")
        seen.add(key)
    raise AssertionError("no key is there twice")


def check_wire(message: Message) -> None:
    """Raise OtlpInvalidError when ``message`` has a field whose number we know, with a wire type that is not its own."""
    known = message.DESCRIPTOR.fields_by_number
    for field in UnknownFieldSet(message):
        if field.field_number in known:
            name = known[field.field_number].name
            raise OtlpInvalidError(f"the field {name} has the wire type {field.wire_type}, which is not its own")


def tagged(value: AnyValue) -> dict[str, Any]:
    """An AnyValue in OTLP's JSON form: one member that is named by its type; integers as decimal text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "double_value":
        return {"doubleValue": plain_double(value.double_value)}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return {"arrayValue": {"values": [tagged(element) for element in value.array_value.values]}}
    if kind == "kvlist_value":
        return {"kvlistValue": {"values": tagged_pairs(value.kvlist_value.values)}}
    return {}


def tagged_pairs(pairs: Iterable[KeyValue]) -> list[dict[str, Any]]:
    """Attributes in OTLP's JSON form."""
    return [{"key": pair.key, "value": tagged(pair.value)} for pair in pairs]
