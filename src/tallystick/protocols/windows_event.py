"""Events of the Windows event log as XML, in the shape that their JSON forms have. Pure.

    <Event><System><EventID>4625</EventID><TimeCreated SystemTime="…"/>…</System><EventData><Data Name="IpAddress">…</Data></EventData></Event>

    {"System": {"EventID": "4625", "TimeCreated": {"SystemTime": "…"}, …}, "EventData": {"IpAddress": "…", …}}

An element with a text and no attributes is that text; attributes are members, a text beside them is ``value``. ``Data`` without a name
is numbered. What Windows writes as ``-`` says nothing and is left out. The hyphens that a browser shows before elements that can be
folded, and that come along with copied text, are skipped. A document type is refused, and with it every entity of its own.
"""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat

from tallystick.protocols.keyvalue import put

_START = re.compile(r"\A[\s\ufeff-]*(?=<(?:\?xml|Event[\s>]))")
_FOLDED = re.compile(r"(?<=>)\s*-\s*(?=<)")
_DEPTH_MAX = 16


class _TooDeepError(Exception):
    """Or a document type: no event of Windows has either."""


class _Builder:
    """Elements to members. ``root`` is what the outermost one holds."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        self._stack: list[tuple[str, dict[str, Any], list[str]]] = [("", self.root, [])]

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._stack) > _DEPTH_MAX:
            raise _TooDeepError
        self._stack.append((name, {key: value for key, value in attributes.items() if not key.startswith("xmlns")}, []))

    def text(self, text: str) -> None:
        self._stack[-1][2].append(text)

    def end(self, name: str) -> None:
        _, members, texts = self._stack.pop()
        text = "".join(texts).strip()
        parent = self._stack[-1][1]
        if name == "Data":
            key = members.get("Name") or "Data"
            if text and text != "-":
                put(parent, key, text)
        elif members:
            if text:
                put(members, "value", text)
            put(parent, name, members)
        elif text:
            put(parent, name, text)

    def refuse(self, *_: object) -> None:
        raise _TooDeepError


def parse_windows_event(text: str) -> dict[str, Any] | None:
    """The members of one event; None when the text is none."""
    start = _START.match(text)
    if start is None:
        return None
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    try:
        parser.Parse(_FOLDED.sub("", text[start.end() :]), True)
    except (expat.ExpatError, _TooDeepError):
        return None
    event = builder.root.get("Event")
    return event if isinstance(event, dict) and isinstance(event.get("System"), dict) else None
