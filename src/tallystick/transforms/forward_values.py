"""Values of msgpack as strict JSON (the forward protocol's records). Pure.

Bytes become base64. What else JSON has no form for is made into what has one, with the flag ``forward_converted``: ext types
into an object, NaN and infinities into their names, keys that are no texts into texts. NUL and what is not UTF-8 become U+FFFD, with the flag
``text_replaced``. Records that need none of it, nearly all, are encoded together by one call (`strict_texts`).
"""

from __future__ import annotations

import base64
import math
from itertools import chain
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from tallystick.transforms.map_record import DEPTH_MAX

CONVERTED = "forward_converted"
TEXT_REPLACED = "text_replaced"

_TEXT = {str}
_encode = msgspec.json.Encoder().encode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode


def strict_texts(records: list[dict[str, Any]]) -> list[bytes] | None:
    """Each record as strict JSON; None when one has something in it that needs `clean_record`."""
    if not _are_plain([value for record in records for value in record.values() if type(value) is dict or type(value) is list]):
        return None
    try:
        joined = _encode(records)
    except (TypeError, ValueError, OverflowError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
    return None if b"\\u0000" in joined else list(map(bytes, _decode_raws(joined)))


def _are_plain(values: list[Any]) -> bool:
    """Whether all keys inside maps and lists are texts, and so distinct in JSON, and the levels not too many. Level by level for all."""
    depth = 2
    while values:
        maps = [value for value in values if type(value) is dict]
        if depth >= DEPTH_MAX or not set(map(type, chain.from_iterable(maps))) <= _TEXT:
            return False
        members = chain(
            chain.from_iterable(map(dict.values, maps)), chain.from_iterable(value for value in values if type(value) is list)
        )
        values = [member for member in members if type(member) is dict or type(member) is list]
        depth += 1
    return True


def plain_texts(records: list[dict[str, Any]]) -> list[bytes]:
    """The same for records that `clean_record` has made."""
    return list(map(bytes, _decode_raws(_encode(records))))


class TooDeepError(ValueError):
    """More levels than an event may have."""


def clean_record(record: dict[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """A record of plain JSON, and what had to be done. Raises TooDeepError."""
    flags: list[str] = []
    cleaned: dict[str, Any] = _clean(record, 1, flags)
    return cleaned, flags


def _clean(value: Any, depth: int, flags: list[str]) -> Any:
    kind = type(value)
    if kind is str:
        return _clean_text(value, flags)
    if kind in (int, bool) or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else _converted(str(value), flags)
    if depth >= DEPTH_MAX and kind in (dict, list):
        raise TooDeepError
    if kind is dict:
        cleaned: dict[str, Any] = {}
        for key, member in value.items():
            name = _clean_text(key, flags) if type(key) is str else _converted(_key_text(key), flags)
            while name in cleaned:
                name = _converted("_" + name, flags)
            cleaned[name] = _clean(member, depth + 1, flags)
        return cleaned
    if kind in (list, tuple):
        return [_clean(member, depth + 1, flags) for member in value]
    if kind is Ext:
        return _converted({"ext": value.code, "data": base64.b64encode(value.data).decode()}, flags)
    if kind in (bytes, bytearray, memoryview):
        return base64.b64encode(value).decode()
    return _converted(str(value), flags)  # msgpack's own timestamps


def _key_text(key: Any) -> str:
    return base64.b64encode(key).decode() if isinstance(key, bytes) else "null" if key is None else str(key)


def _clean_text(text: str, flags: list[str]) -> str:
    if "\0" in text:
        flags.append(TEXT_REPLACED)
        return text.replace("\0", "\ufffd")
    return text


def _converted(value: Any, flags: list[str]) -> Any:
    flags.append(CONVERTED)
    return value
