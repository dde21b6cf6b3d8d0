"""Lines of text to members, by the steps that a mapping's `[parse] lines` lists, all on the same text:

    { format = "syslog" }        takes a header of RFC 5424 or 3164 off, when there is one and the message behind it can be read: its
                                 members are under `syslog`, its time is the record's unless the record has one of its own
    { format = "cef" }           and `leef`, `keyvalue`, `auditd`, `windows_event`: one of `PARSERS`
    { patterns = [{ pattern = '…', set = { event = "login" } }], rest = "message" }
                                 the first pattern (RE2) that fits all of the text: its named groups are members, and so is what `set`
                                 says. `rest`: where none fits, the text is this member

A line that a step cannot read does not map: `line_unknown`. RE2 knows no pattern that takes more than linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import re2

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event.times import ParsedTime
from tallystick.protocols import syslog
from tallystick.protocols.auditd import parse_audit
from tallystick.protocols.cef import parse_cef, parse_leef
from tallystick.protocols.keyvalue import parse_pairs, put
from tallystick.protocols.syslog_time import SyslogClock
from tallystick.protocols.windows_event import parse_windows_event

PARSERS: Mapping[str, Callable[[str], dict[str, Any] | None]] = {
    "auditd": parse_audit,
    "cef": parse_cef,
    "keyvalue": parse_pairs,
    "leef": parse_leef,
    "windows_event": parse_windows_event,
}
SYSLOG = "syslog"


class Line(NamedTuple):
    """A line's members, and the time that its header says."""

    members: dict[str, Any]
    time: ParsedTime | None


class _Pattern(NamedTuple):
    match: Callable[[str], Any]
    names: tuple[str, ...]
    constants: dict[str, str]


class _Patterns:
    """A step of patterns."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._patterns = [_compile_pattern(one) for one in spec["patterns"]]
        self._rest: str | None = spec.get("rest")

    def __call__(self, text: str) -> dict[str, Any] | None:
        for match, names, constants in self._patterns:
            found = match(text)
            if found is not None:
                groups = {name: value for name, value in zip(names, map(found.group, names), strict=True) if value}
                return {**groups, **constants}
        return None if self._rest is None else {self._rest: text}


class LineParser:
    """`[parse] lines`, compiled."""

    def __init__(self, title: str, steps: Sequence[Mapping[str, Any]]) -> None:
        self._title = title
        self.takes_header = any(step.get("format") == SYSLOG for step in steps)
        self._parsers = [_compile_step(step) for step in steps if step.get("format") != SYSLOG]
        if self.takes_header and steps[0].get("format") != SYSLOG:
            raise ConfigError("a step `syslog` comes first: it takes a header off")

    def parse(self, text: str, clock: SyslogClock) -> Line:
        """The members of one line. Raises EventInvalidError when a step cannot read it."""
        if self.takes_header:
            parsed = syslog.parse(text, clock)
            if syslog.UNPARSED not in parsed.flags:
                message, parsed.message.message = parsed.message.message, ""
                found = self._read(message, {SYSLOG: msgspec.to_builtins(parsed.message)})
                if found is not None:
                    flags = tuple(flag for flag in parsed.flags if flag != syslog.PRIORITY_MISSING)
                    return Line(found, ParsedTime(parsed.occurred_at, flags))
        found = self._read(text, {})
        if found is None:
            raise EventInvalidError(f"the line is none of {self._title}", code="line_unknown")
        return Line(found, None)

    def _read(self, text: str, members: dict[str, Any]) -> dict[str, Any] | None:
        """``members`` with those that the parsers find; None when one of them cannot read the text."""
        for parse in self._parsers:
            found = parse(text)
            if found is None:
                return None
            for name, value in found.items():
                put(members, name, value)
        return members


def _compile_step(spec: Mapping[str, Any]) -> Callable[[str], dict[str, Any] | None]:
    if "patterns" in spec and set(spec) <= {"patterns", "rest"}:
        return _Patterns(spec)
    if set(spec) == {"format"} and spec["format"] in PARSERS:
        return PARSERS[spec["format"]]
    raise ConfigError(f"{spec!r} is no step; there are `patterns`, and `format` with {SYSLOG}, {', '.join(PARSERS)}")


def _compile_pattern(spec: Mapping[str, Any]) -> _Pattern:
    try:
        pattern = re2.compile(spec["pattern"])
    except re2.error as error:
        raise ConfigError(f"the pattern {spec['pattern']!r} is none of RE2: {error}") from error
    return _Pattern(pattern.fullmatch, tuple(pattern.groupindex), dict(spec.get("set", {})))
