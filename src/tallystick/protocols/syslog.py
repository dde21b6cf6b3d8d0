"""Syslog messages: RFC 5424, RFC 3164 as it is really sent, and everything else. Pure; never fails; linear time.

    <34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 [meta sequenceId="7"] BOM'su root' failed     RFC 5424
    <34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed                                                      RFC 3164
    <34>2003-10-11T22:14:15.003+02:00 mymachine su: 'su root' failed                                             rsyslog's mixture

1. What fits RFC 5424 is taken apart as that says; its structured data too, and where a sender did not escape as it must, what
   cannot be read stays in the message, with the flag ``syslog_data_invalid``.
2. Else what begins with a time is RFC 3164: host, then a tag that ends with ``:`` or ``[pid]``. Without such an end the text
   behind the host is all message: guessing would cut words out of it.
3. Else it is the message as a whole, with the flag ``syslog_unparsed``. A priority outside 0 to 191 makes it that too.

Every pattern is anchored and no part of it can match what its neighbour may match, so a match costs one pass over the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from tallystick.protocols.syslog_time import ISO, Moment, SyslogClock

UNPARSED = "syslog_unparsed"
PRIORITY_MISSING = "syslog_priority_missing"
DATA_INVALID = "syslog_data_invalid"

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "security", "console", "solaris-cron",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_OCSF = (6, 5, 5, 4, 3, 2, 1, 1)
PRIORITIES: dict[str, tuple[str, str, int | None]] = {
    str(number): (FACILITIES[number >> 3], SEVERITIES[number & 7], _OCSF[number & 7]) for number in range(len(FACILITIES) * 8)
}
_5424 = re.compile(
    rf"<(\d{{1,3}})>1 (?:{ISO}|(\S++)) (\S++) (\S++) (\S++) (\S++) (?:-(?: (.*)|\Z)|([\[-].*))", re.DOTALL | re.ASCII
)
_3164 = re.compile(
    rf"(?:<(\d{{1,3}})>)?(?:([A-Z][a-z]{{2}} [ \d]?\d \d\d:\d\d):(\d\d)(?:\.(\d{{1,9}}))?|{ISO}) "
    r"(?:([^\s\[]*[^\s\[:]) )?(?:([^\s:\[]{1,128})(?:\[([^\]\s]{1,128})\]:?|:) ?)?(.*)",
    re.DOTALL | re.ASCII,
)
SD_NAME = r'[^ =\]"]{1,128}'
_ELEMENT = re.compile(rf"\[({SD_NAME})")
_PARAM = re.compile(rf' ({SD_NAME})="([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_SIMPLE = re.compile(rf'\[({SD_NAME})((?: {SD_NAME}="[^"\\]*+")*+)\](?: |\Z)')
_SIMPLE_PARAM = re.compile(r" ([^ =]+)=\"([^\"]*)\"")
_ESCAPE = re.compile(r"\\([\"\\\]])")
BOM = "\ufeff"

StructuredData = dict[str, dict[str, str | list[str]]]


class SyslogMessage(msgspec.Struct, gc=False, omit_defaults=True):
    """What a message says, in the order of RFC 5424; empty where it says nothing. As JSON it is an event's ``metadata``."""

    facility: str = ""
    severity: str = ""
    hostname: str = ""
    app_name: str = ""
    procid: str = ""
    msgid: str = ""
    structured_data: StructuredData | None = None
    message: str = ""


class Parsed(NamedTuple):
    """A message, its time, its severity as OCSF counts (None: not said), and the flags of what was odd."""

    message: SyslogMessage
    occurred_at: str | None
    severity: int | None
    flags: tuple[str, ...]


def parse(text: str, clock: SyslogClock) -> Parsed:
    """Take one message apart. ``text`` is without the frame's trailer."""
    priority: tuple[str, str, int | None] | None
    found = _5424.match(text)
    if found is not None:
        priority = PRIORITIES.get(found[1])
        if priority is not None:
            return _from_5424(found, priority, clock)
    elif (found := _3164.match(text)) is not None:
        priority = PRIORITIES.get(found[1]) if found[1] else ("", "", None)
        if priority is not None:
            return _from_3164(found, priority, clock)
    return Parsed(SyslogMessage(message=text), None, None, (UNPARSED,))


def _from_5424(found: re.Match[str], priority: tuple[str, str, int | None], clock: SyslogClock) -> Parsed:
    _, minute, second, fraction, zone, other, host, app, procid, msgid, message, rest = found.groups()
    moment: Moment
    if minute is not None:
        moment = clock.rfc3339(minute, second, fraction, zone)
    else:
        moment = (None, ()) if other == "-" else clock.other(other)
    data: StructuredData | None = None
    flags = moment[1]
    if rest is not None:
        data, message, is_whole = parse_structured_data(rest)
        if not is_whole:
            flags = (*flags, DATA_INVALID)
    if message is None:
        message = ""
    elif message.startswith(BOM):
        message = message[1:]
    return Parsed(
        SyslogMessage(
            priority[0],
            priority[1],
            "" if host == "-" else host,
            "" if app == "-" else app,
            "" if procid == "-" else procid,
            "" if msgid == "-" else msgid,
            data,
            message,
        ),
        moment[0],
        priority[2],
        flags,
    )


def _from_3164(found: re.Match[str], priority: tuple[str, str, int | None], clock: SyslogClock) -> Parsed:
    mark, bsd, bsd_second, bsd_fraction, minute, second, fraction, zone, host, app, procid, message = found.groups()
    moment = clock.rfc3164(bsd, bsd_second, bsd_fraction) if bsd is not None else clock.rfc3339(minute, second, fraction, zone)
    flags = moment[1] if mark else (*moment[1], PRIORITY_MISSING)
    return Parsed(
        SyslogMessage(priority[0], priority[1], host or "", app or "", procid or "", message=message), moment[0], priority[2], flags
    )


def parse_structured_data(text: str) -> tuple[StructuredData | None, str, bool]:
    """Elements at the beginning of ``text``, the message behind them, and False when something in them cannot be read.

    Then the message begins at the first element that cannot. A parameter that is given more than once becomes a list.
    """
    found = _SIMPLE.match(text)
    if found is not None:  # one element without escapes, and no name in it twice: what most senders write
        pairs = _SIMPLE_PARAM.findall(found[2])
        simple: dict[str, str | list[str]] = dict(pairs)
        if len(simple) == len(pairs):
            return {found[1]: simple}, text[found.end() :], True
    data: StructuredData = {}
    at = 0
    while (element := _ELEMENT.match(text, at)) is not None:
        members: dict[str, str | list[str]] = {}
        end = element.end()
        while (param := _PARAM.match(text, end)) is not None:
            name, value = param[1], param[2]
            if "\\" in value:
                value = _ESCAPE.sub(r"\1", value)
            known = members.get(name)
            if known is None:
                members[name] = value
            elif isinstance(known, list):
                known.append(value)
            else:
                members[name] = [known, value]
            end = param.end()
        if not text.startswith("]", end) or element[1] in data:
            return data or None, text[at:], False
        data[element[1]] = members
        at = end + 1
    if at == len(text):
        return data, "", True
    if text[at] == " ":
        return data, text[at + 1 :], True
    return data or None, text[at:], False
