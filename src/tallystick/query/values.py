"""How a text in a query compares with a value in an event: as number, as instant, as address, as pattern.

Both forms of a query, streaming and SQL, take their comparisons from here, so that they cannot drift apart.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import re2

from tallystick.query.nodes import Cidr, Equal, Gap, Pieces, Present, Range, Test, Wildcard

Predicate: TypeAlias = Callable[[Any], bool]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,63})(?:\.[0-9]{1,63})?(?:[eE][+-]?[0-9]{1,3})?")
_ESCAPED = re.compile(r'["\\/\x00-\x1f\x7f]+')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BOOLEANS = {"true": True, "false": False}


def to_number(text: str) -> int | float | None:
    """The number that a text spells in JSON's grammar, or None. Integers are exact at any size."""
    if _NUMBER.fullmatch(text) is None:
        return None
    if text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if abs(number) != float("inf") else None


def micros_of(moment: datetime | None) -> int | None:
    """Microseconds since 1970 of an aware time."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def to_datetime(micros: int) -> datetime:
    """The time, in UTC, of microseconds since 1970. Raises OverflowError outside the years 1 to 9999."""
    return _EPOCH + micros * _MICROSECOND


def to_micros(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time or a date (midnight UTC); no zone means UTC. None: no such time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return micros_of(moment)


def to_network(text: str) -> Network | None:
    """The network that a text names; host bits may be set (``10.1.2.3/8`` is ``10.0.0.0/8``)."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@lru_cache(maxsize=65_536)
def to_address(text: str) -> Address | None:
    """The address that a text spells, IPv4-mapped IPv6 as IPv4, or None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def to_regex(pieces: Pieces, *, one: str = ".", many: str = ".*") -> str:
    """An RE2 expression for a pattern; RE2 works in linear time, whatever the pattern."""
    gaps = {Gap.ONE: one, Gap.MANY: many}
    return "".join(gaps[piece] if isinstance(piece, Gap) else re2.escape(piece) for piece in pieces)


def literal_run(pieces: Pieces) -> str:
    """The longest run of a pattern that JSON writes without escapes; empty when there is none."""
    runs = [run for piece in pieces if isinstance(piece, str) for run in _ESCAPED.split(piece)]
    return max(runs, key=len, default="")


def predicate(test: Test) -> Predicate:
    """The test as a function of one value from a decoded event: a string, number, boolean, dict or list item."""
    match test:
        case Equal(text):
            return _equal(text)
        case Wildcard(pieces):
            shape = re2.compile(f"(?s){to_regex(pieces)}")
            return lambda value: isinstance(value, str) and shape.fullmatch(value) is not None
        case Range():
            return _range(test)
        case Cidr(network):
            return _cidr(network)
        case Present():
            return lambda value: value is not None


def _equal(text: str) -> Predicate:
    number = to_number(text)
    if number is not None:
        return lambda value: value == text or (value == number and not isinstance(value, bool))
    if text in _BOOLEANS:
        boolean = _BOOLEANS[text]
        return lambda value: value == text or value is boolean
    return lambda value: value == text


def _cidr(text: str) -> Predicate:
    network = to_network(text)

    def inside(value: Any) -> bool:
        address = to_address(value) if isinstance(value, str) else None
        return address is not None and network is not None and address in network

    return inside


def _range(test: Range) -> Predicate:
    convert, bound = _MEASURES[test.kind]
    low = None if test.low is None else bound(test.low)
    high = None if test.high is None else bound(test.high)
    low_open, high_open = not test.low_inclusive, not test.high_inclusive

    def between(value: Any) -> bool:
        measure = convert(value)
        if measure is None:
            return False
        if low is not None and (measure < low or (low_open and measure == low)):
            return False
        return not (high is not None and (measure > high or (high_open and measure == high)))

    return between


def _as_number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _as_micros(value: Any) -> Any:
    return to_micros(value) if isinstance(value, str) else None


def _as_text(value: Any) -> Any:
    return value if isinstance(value, str) else None


_MEASURES: dict[str, tuple[Callable[[Any], Any], Callable[[str], Any]]] = {
    "number": (_as_number, to_number),
    "time": (_as_micros, to_micros),
    "text": (_as_text, str),
}
