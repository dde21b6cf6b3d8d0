"""ArcSight Common Event Format and IBM Log Event Extended Format. Pure; linear time; None for what is neither.

    CEF:0|Vendor|Product|Version|Class ID|Name|Severity|src=192.0.2.1 msg=two words \\= one value
    LEEF:1.0|Vendor|Product|Version|EventID|src=192.0.2.1<tab>usrName=ann
    LEEF:2.0|Vendor|Product|Version|EventID|^|src=192.0.2.1^usrName=ann

Text before the header (a syslog header, say) is skipped. Appliances also write ``CEF: 0|`` and leave ``CEF:`` out, and do not
escape all that they must: a value of CEF runs to the next blank with ``key=`` behind it. Header members are under ``cef`` or ``leef``,
extension members stand beside it under their own names.
"""

from __future__ import annotations

import re
from typing import Any

from tallystick.protocols.keyvalue import put, unescape

_CEF = re.compile(r"(?:\A|.*?[\s\ufeff>:])CEF: ?(\d{1,2})\||\A\s*+(\d)\|", re.DOTALL)
_LEEF = re.compile(r"(?:\A|.*?[\s\ufeff>:])LEEF: ?([12](?:\.0)?)\|", re.DOTALL)
_FIELD = re.compile(r"([^|\\]*+(?:\\.[^|\\]*+)*+)\|", re.DOTALL)
_KEY = re.compile(r"(?:\A|\s)([A-Za-z0-9_.\[\]-]{1,128})=")
_CEF_NAMES = ("vendor", "product", "product_version", "class_id", "name", "severity")
_LEEF_NAMES = ("vendor", "product", "product_version", "event_id")
_DELIMITER = re.compile(r"(?:0?x)([0-9A-Fa-f]{1,4})")
_PREFIX_MAX = 1_024


def parse_cef(text: str) -> dict[str, Any] | None:
    """The members of one CEF record; None when it is none."""
    found = _CEF.match(text[:_PREFIX_MAX])
    if found is None:
        return None
    header = {"version": found[1] or found[2]}
    end = _read_header(text, found.end(), _CEF_NAMES, header)
    if end is None:
        return None
    members: dict[str, Any] = {"cef": header}
    extension = text[end:].rstrip("\r\n")
    keys = list(_KEY.finditer(extension))
    for place, key in enumerate(keys):
        stop = keys[place + 1].start() if place + 1 < len(keys) else len(extension)
        value = extension[key.end() : stop].rstrip(" ")
        put(members, key[1], unescape(value) if "\\" in value else value)
    return members


def parse_leef(text: str) -> dict[str, Any] | None:
    """The members of one LEEF record of version 1 or 2; None when it is none."""
    found = _LEEF.match(text[:_PREFIX_MAX])
    if found is None:
        return None
    header = {"version": found[1]}
    end = _read_header(text, found.end(), _LEEF_NAMES, header)
    if end is None:
        return None
    delimiter = "\t"
    if found[1].startswith("2"):
        said, bar, _ = text[end : end + 8].partition("|")
        if bar and (len(said) <= 1 or _DELIMITER.fullmatch(said)):
            delimiter = _delimiter(said)
            end += len(said) + 1
    members: dict[str, Any] = {"leef": header}
    for part in text[end:].rstrip("\r\n").split(delimiter):
        key, equals, value = part.partition("=")
        if equals and key.strip():
            put(members, key.strip(), value)
    return members


def _read_header(text: str, start: int, names: tuple[str, ...], header: dict[str, str]) -> int | None:
    """Fill the header's members from ``start``; where what follows it begins, or None when it is not whole.

    The last member may be the text's end too.
    """
    for name in names:
        field = _FIELD.match(text, start)
        if field is None:
            if name is not names[-1]:
                return None
            header[name] = unescape(text[start:].strip())
            return len(text)
        header[name] = unescape(field[1])
        start = field.end()
    return start


def _delimiter(said: str) -> str:
    code = _DELIMITER.fullmatch(said)
    if code is None:
        return said or "\t"
    number = int(code[1], 16)
    return chr(number) if number and not 0xD800 <= number <= 0xDFFF else "\t"
