"""The exact check of one JSON text: slow, plain, and the last word.

Refused, each with a JSON Pointer (RFC 6901) to the place:

    json_invalid      not JSON (RFC 8259): syntax, NaN, Infinity, a control character, bytes that are not UTF-8
    key_duplicate     an object with one key twice, at any level, compared after unescaping
    number_invalid    a number outside double range (1e400, 1e-400), or of more than 64 digits
    string_invalid    a lone surrogate escape, or NUL, in a value or a key
    depth_exceeded    more levels of arrays and objects than allowed; the outermost counts 1

Two functions give the same verdict. `find_fault` says only which code, with C code: what msgspec decodes and encodes to the
very same bytes has none of these faults, because no encoder writes them; where only escapes or number texts differ, the
standard library's parser with hooks finds repeated keys and bad numbers, and msgspec has refused the rest by then.
`check_strict` says where, token by token with a stack of its own, so depth costs no recursion; it takes about a microsecond
a token, so only refused texts are walked, and callers bound how much of that they do. Every pattern takes linear time.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from math import isinf
from typing import Any

import msgspec

from tallystick.errors import EventInvalidError

DIGITS_MAX = 64

_TOKEN = re.compile(
    r'[ \t\n\r]*+(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+)(?![0-9A-Za-z.+-])"
    r"|(?P<word>true|false|null)(?![0-9A-Za-z])"
    r"|(?P<mark>[{}\[\]:,]))"
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS_MAX + 1))
_SAMPLE_STEP = 16
_SAMPLED_NUMBER = re.compile(rb"[0-9]{%d}" % ((DIGITS_MAX + 1) // _SAMPLE_STEP))
_ALL_DIGITS_ALIKE = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_RUN = b"0" * (DIGITS_MAX + 1)
_ODD_NUMBER = re.compile(rb"[eE][+-]?[0-9]{3}|[0-9]{32}")
"""Without it, and with no run of more than 64 digits, no number can be out of range or have more than 64 digits."""
_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")
_TO_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_MESSAGES = {
    "json_invalid": "the text is not UTF-8",
    "key_duplicate": "an object has one key twice",
    "number_invalid": "a number is out of range or too long",
    "string_invalid": "a string holds NUL or half of a surrogate pair",
    "depth_exceeded": "the record is nested too deep",
}
_DIGIT = re.compile(r"[0-9]")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def compact(text: bytes) -> bytes:
    """``text`` without insignificant whitespace; numbers, escapes and order of keys stay. Raises msgspec.MsgspecError."""
    return msgspec.json.format(text, indent=-1)


def unescape(text: bytes) -> bytes:
    """``text`` with each escape in its shortest form; the same value. Lone surrogates stay as they are."""
    return _ESCAPE.sub(lambda match: _shortest(match[0]), text) if b"\\" in text else text


@lru_cache(maxsize=4096)
def _shortest(escape: bytes) -> bytes:
    try:
        return _encode(_decode(b'"' + escape + b'"'))[1:-1]
    except msgspec.MsgspecError:
        return escape


def find_fault(text: bytes, depth_max: int) -> str | None:
    """The code of a fault in ``text``, which `compact` gave; None when it is strict."""
    if openings(text) > depth_max or LONG_NUMBER.search(text):
        bare = _STRING.sub(b"", text)
        if LONG_NUMBER.search(bare):
            return "number_invalid"
        if not is_shallow(bare, depth_max):
            return "depth_exceeded"
    if has_nul(text):
        return "string_invalid"
    try:
        if _encode(_decode(text)) != text:
            json.loads(text, object_pairs_hook=_unique, parse_float=_check_number if _ODD_NUMBER.search(text) else None)
    except EventInvalidError as error:
        return error.code
    except UnicodeDecodeError:
        return "json_invalid"
    except msgspec.ValidationError:
        return "number_invalid"
    except msgspec.DecodeError:
        return "string_invalid"
    return None


def require_strict(text: bytes, depth_max: int, *, locate: bool = True) -> None:
    """Raise EventInvalidError when ``text``, which `compact` gave, has a fault; with its place when it may be looked for."""
    code = find_fault(text, depth_max)
    if code is None:
        return
    if locate:
        check_strict(text, depth_max)
    raise EventInvalidError(_MESSAGES[code], code=code)


def has_nul(text: bytes) -> bool:
    """Whether a string in JSON ``text`` holds NUL (written as an escape, the one way there is)."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def has_long_run(text: bytes) -> bool:
    """Whether `LONG_NUMBER` is somewhere in ``text``, be it in a string. So long a run of digits leaves its trace in every sixteenth
    byte, which is where to look first; only where there is one are all bytes looked at."""
    return _SAMPLED_NUMBER.search(text[::_SAMPLE_STEP]) is not None and _LONG_RUN in text.translate(_ALL_DIGITS_ALIKE)


def openings(text: bytes) -> int:
    """How many arrays and objects ``text`` opens at most: brackets in strings count too."""
    return text.count(b"{") + text.count(b"[")


def is_shallow(text: bytes, levels: int) -> bool:
    """Whether JSON ``text``, without brackets in strings, has at most ``levels`` levels: so many peelings leave nothing."""
    braces = text.translate(_TO_BRACES, _NO_BRACKETS)
    for _ in range(levels):
        braces = braces.replace(b"{}", b"")
        if not braces:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise EventInvalidError(_MESSAGES["key_duplicate"], code="key_duplicate")


def _check_number(text: str) -> None:
    """Raise EventInvalidError for a number that is out of range or too long."""
    if len(_DIGIT.findall(text)) > DIGITS_MAX:
        raise EventInvalidError(f"a number has more than {DIGITS_MAX} digits", code="number_invalid")
    value = float(text)
    if isinf(value) or (value == 0.0 and text.lower().partition("e")[0].strip("-0.")):
        raise EventInvalidError(f"the number {text} is outside the range of a double", code="number_invalid")


def check_strict(text: bytes, depth_max: int) -> None:
    """Raise EventInvalidError, with code and pointer, unless ``text`` is one strict JSON value."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EventInvalidError(f"byte {error.start} is not UTF-8", code="json_invalid") from error
    _Walk(decoded, depth_max).run()


def escape(key: str) -> str:
    """One reference token of a JSON Pointer."""
    return key.replace("~", "~0").replace("/", "~1")


class _Walk:
    """One pass over the tokens.

    ``keys`` holds, per open container, the keys seen, or None in an array; ``path`` the place in it: empty before the
    first member, then ``k`` and the key, or the element's number.
    """

    def __init__(self, text: str, depth_max: int) -> None:
        self.text = text
        self.depth_max = depth_max
        self.at = 0
        self.keys: list[set[str] | None] = []
        self.path: list[str] = []

    def run(self) -> None:
        """Walk the whole text: a value, then nothing but blanks."""
        self._value(self._next())
        while self.keys:
            self._step()
        if self._skip_blank() != len(self.text):
            raise self._fault("json_invalid", "more follows after the end of the value")

    def _next(self) -> re.Match[str]:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            where = self._skip_blank()
            what = "ends too early" if where == len(self.text) else f"is not JSON at character {where}"
            raise self._fault("json_invalid", f"the text {what}")
        self.at = match.end()
        return match

    def _skip_blank(self) -> int:
        at = self.at
        while at < len(self.text) and self.text[at] in " \t\n\r":
            at += 1
        return at

    def _step(self) -> None:
        """One member or element of the innermost container, or its end."""
        seen = self.keys[-1]
        token = self._next()
        first = self.path[-1] == ""
        if token["mark"] == ("]" if seen is None else "}"):
            self.keys.pop()
            self.path.pop()
            return
        if not first:
            if token["mark"] != ",":
                raise self._unexpected(token)
            token = self._next()
        if seen is None:
            self.path[-1] = str(int(self.path[-1]) + 1) if not first else "0"
        else:
            self._key(token, seen)
            token = self._next()
        self._value(token)

    def _key(self, token: re.Match[str], seen: set[str]) -> None:
        if token["string"] is None:
            raise self._unexpected(token)
        key = self._string(token["string"])
        self.path[-1] = "k" + key
        if key in seen:
            raise self._fault("key_duplicate", f"the key {key!r} is there twice")
        seen.add(key)
        colon = self._next()
        if colon["mark"] != ":":
            raise self._unexpected(colon)

    def _value(self, token: re.Match[str]) -> None:
        mark = token["mark"]
        if mark in ("{", "["):
            if len(self.keys) == self.depth_max:
                raise self._fault("depth_exceeded", f"nested deeper than {self.depth_max} levels")
            self.keys.append(set() if mark == "{" else None)
            self.path.append("")
        elif mark is not None:
            raise self._unexpected(token)
        elif token["string"] is not None:
            self._string(token["string"])
        elif token["number"] is not None:
            self._number(token["number"])

    def _string(self, quoted: str) -> str:
        value: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
        if "\x00" in value:
            raise self._fault("string_invalid", "a string holds NUL (U+0000)")
        if _LONE_SURROGATE.search(value):
            raise self._fault("string_invalid", "a string holds half of a surrogate pair")
        return value

    def _number(self, text: str) -> None:
        try:
            _check_number(text)
        except EventInvalidError as error:
            raise self._fault(error.code, error.message) from None

    def _unexpected(self, token: re.Match[str]) -> EventInvalidError:
        start = self.at - len(token[0].lstrip(" \t\n\r"))
        return self._fault("json_invalid", f"the text is not JSON at character {start}")

    def _fault(self, code: str, message: str) -> EventInvalidError:
        names = (part[1:] if part.startswith("k") else part for part in self.path if part)
        return EventInvalidError(message, pointer="".join("/" + escape(name) for name in names), code=code)
