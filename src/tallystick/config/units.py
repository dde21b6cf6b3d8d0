"""Values with units: ``"250ms"`` and ``"16MiB"``. In code they are a float of seconds and an int of bytes."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)")
_SIZE_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


class Duration:
    """A length of time as written in a configuration; ``seconds`` is a float."""

    __slots__ = ("seconds", "text")

    def __init__(self, text: str) -> None:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f'{text!r} is no duration; write a number and a unit, as in "250ms", "10s", "1h", "400d"')
        self.text = text
        self.seconds = float(match[1]) * _DURATION_S[match[2]]

    def __repr__(self) -> str:
        return f"Duration({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.seconds == other.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)


class Size:
    """A number of bytes as written in a configuration; ``bytes`` is an int."""

    __slots__ = ("bytes", "text")

    def __init__(self, text: str) -> None:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(f'{text!r} is no size; write a number and a unit, as in "512KiB", "16MiB", "200GiB"')
        self.text = text
        self.bytes = int(float(match[1]) * _SIZE_BYTES[match[2]])

    def __repr__(self) -> str:
        return f"Size({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.bytes == other.bytes

    def __hash__(self) -> int:
        return hash(self.bytes)
