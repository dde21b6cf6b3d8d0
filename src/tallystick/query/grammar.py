"""From the text of a query to its tree (`nodes`).

The grammar is Lucene's classic one, read by luqum, with these rules of our own:

- Terms side by side mean AND, and bind exactly as AND does: ``a b OR c`` is ``(a AND b) OR c``. (Lucene and luqum give
  adjacency a precedence of its own, so the two spellings of one query would differ.)
- Values are exact and case-sensitive. ``*`` stands for any characters, ``?`` for one; inside quotes both are themselves.
  ``field:*`` asks for presence. A number equals by value.
- Ranges ``[a TO b]``, ``{a TO b}`` and mixed, ``*`` for an open end, and ``>``, ``>=``, ``<``, ``<=``.
- On ``ip``, a value with ``/`` is a network.
- What Lucene has and we do not (regexes, fuzzy, boosts, proximity, ``+``) is refused, with the quoted form as hint, because
  a query that silently means something else is worse than none. So are ``&&``, ``||``, ``!`` and lower-case operators.

Limits: bytes of text, `DEPTH_MAX` levels of nesting, `TERMS_MAX` leaves, `GAPS_MAX` wildcards in one term. luqum's parser
is a table-driven stack machine and does not recurse, so the limits can be checked after it.
"""

from __future__ import annotations

import re
from typing import Any

from luqum import tree
from luqum.exceptions import ParseError
from luqum.thread import parse as parse_lucene

from tallystick.errors import QueryError
from tallystick.query.fields import EVENT_SHAPE, IP_PATH, SHORT_NAMES, TIME_PATHS, Path, resolve_path, shape_of
from tallystick.query.nodes import (
    EVERYTHING,
    And,
    Cidr,
    Equal,
    Field,
    Gap,
    Node,
    Not,
    Or,
    Pieces,
    Present,
    Range,
    Test,
    Text,
    Wildcard,
    leaves,
)
from tallystick.query.values import to_micros, to_network, to_number

BYTES_MAX = 8 * 1024
DEPTH_MAX = 32
TERMS_MAX = 256
GAPS_MAX = 16

_POSITION = re.compile(r"at position (\d+)")
_WORD = re.compile(r'[^\s()"]+')
_OPERATORS = {"and": "AND", "or": "OR", "not": "NOT", "&&": "AND", "||": "OR"}
_REFUSED: dict[type, str] = {
    tree.Regex: "regular expressions are not supported",
    tree.Fuzzy: "fuzzy terms (~) are not supported",
    tree.Proximity: "proximity (~) is not supported",
    tree.Boost: "boosts (^) are not supported",
    tree.Plus: "+ is not supported, every term is required already",
}


def parse(text: str, *, bytes_max: int = BYTES_MAX) -> Node:
    """The tree of a query; an empty text, or ``*``, is every event.

    Raises QueryError with ``place`` as ``column N`` (from 1) and, where there is one, a hint with a form that works.
    """
    _check_text(text, bytes_max)
    if not text.strip():
        return EVERYTHING
    try:
        lucene = parse_lucene(text)
    except ParseError as error:
        raise _syntax_error(text, str(error)) from None
    node = _Builder(text).build(lucene, None, 0)
    count = sum(1 for _ in leaves(node))
    if count > TERMS_MAX:
        raise QueryError(f"the query has {count} terms; {TERMS_MAX} are allowed")
    return node


class _Builder:
    """Turns luqum's tree into ours; ``path`` is the field that the surrounding ``field:(…)`` names, if any."""

    def __init__(self, text: str) -> None:
        self.text = text

    def build(self, item: Any, path: Path | None, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise self.error(item, f"the query is nested deeper than {DEPTH_MAX} levels")
        match item:
            case tree.Group() | tree.FieldGroup():
                return self.build(item.expr, path, depth + 1)
            case tree.Not() | tree.Prohibit():
                return Not(self.build(item.a, path, depth + 1))
            case tree.AndOperation():
                return And(tuple(self.build(child, path, depth + 1) for child in item.children))
            case tree.OrOperation():
                return Or(tuple(self.build(child, path, depth + 1) for child in item.children))
            case tree.UnknownOperation():
                return self.adjacent(item, path, depth)
            case tree.SearchField():
                return self.field(item, path, depth)
        if path is None:
            return self.text_leaf(item)
        return Field(path, self.test(item, path))

    def adjacent(self, item: Any, path: Path | None, depth: int) -> Node:
        """AND by adjacency, with the precedence of AND: OR operands of the row are joined to their neighbours."""
        alternatives: list[list[Node]] = [[]]
        for child in item.children:
            if isinstance(child, tree.OrOperation):
                first, *others = (self.build(part, path, depth + 1) for part in child.children)
                alternatives[-1].append(first)
                alternatives.extend([other] for other in others)
            else:
                alternatives[-1].append(self.build(child, path, depth + 1))
        rows = [row[0] if len(row) == 1 else And(tuple(row)) for row in alternatives]
        return rows[0] if len(rows) == 1 else Or(tuple(rows))

    def field(self, item: Any, outer: Path | None, depth: int) -> Node:
        place = self.place(item)
        quoted = _quoted_form(self.text, item.pos or 0)
        as_text = f'"{_escape(_word_around(self.text, item.pos or 0))}"'
        if outer is not None:
            raise QueryError("a field inside another field's value", place=place, hint=f"Quote a value with a colon: {as_text}")
        if isinstance(item.expr, tree.SearchField):
            raise QueryError("a value with a colon must be quoted", place=place, hint=f"Write {quoted}")
        if isinstance(item.expr, tree.Prohibit):
            hint = f"Write {quoted} for a value that starts with -, and NOT before the field to exclude"
            raise QueryError("- is not expected here", place=place, hint=hint)
        path = resolve_path(_unescape(item.name), place, as_text)
        return self.build(item.expr, path, depth + 1)

    def text_leaf(self, item: Any) -> Node:
        match item:
            case tree.Phrase():
                text = _unquote(item.value)
                return Text((text,)) if text else EVERYTHING
            case tree.Word():
                operator = _OPERATORS.get(item.value.lower())
                if operator or (item.value.startswith("!") and len(item.value) > 1):
                    hint = f'Write {operator or "NOT"} as operator, or "{item.value}" to search for the text'
                    raise self.error(item, f"{item.value!r} is no operator here", hint)
                pieces = self.pieces(item)
                return Text(pieces) if any(isinstance(piece, str) for piece in pieces) else EVERYTHING
            case tree.Range() | tree.From() | tree.To():
                raise self.error(item, "a range needs a field", "As in severity:[3 TO 6]")
        raise self.refused(item)

    def test(self, item: Any, path: Path) -> Test:
        match item:
            case tree.Phrase():
                return self.exact(item, path, _unquote(item.value))
            case tree.Word():
                return self.word(item, path)
            case tree.Range():
                return self.between(item, path, item.low, item.high, bool(item.include_low), bool(item.include_high))
            case tree.From():
                return self.between(item, path, item.a, None, bool(item.include), False)
            case tree.To():
                return self.between(item, path, None, item.a, False, bool(item.include))
        raise self.refused(item)

    def word(self, item: Any, path: Path) -> Test:
        pieces = self.pieces(item)
        if pieces == (Gap.MANY,):
            return Present()
        if any(isinstance(piece, Gap) for piece in pieces):
            self.refuse_object(item, path)
            return Wildcard(pieces)
        return self.exact(item, path, "".join(str(piece) for piece in pieces))

    def exact(self, item: Any, path: Path, text: str) -> Test:
        self.refuse_object(item, path)
        if path == IP_PATH and "/" in text:
            if to_network(text) is None:
                raise self.error(item, f"{text!r} is no network", 'As in ip:10.0.0.0/8 or ip:"2001:db8::/32"')
            return Cidr(text)
        if path in TIME_PATHS:
            self.require_time(item, text)
            return Range("time", text, text, low_inclusive=True, high_inclusive=True)
        return Equal(text)

    def between(self, item: Any, path: Path, low: Any, high: Any, low_inclusive: bool, high_inclusive: bool) -> Test:
        self.refuse_object(item, path)
        if path == IP_PATH:
            raise self.error(item, "addresses have no ranges", "Name a network, as in ip:10.0.0.0/8")
        bounds = [self.bound(item, end) for end in (low, high)]
        given = [(text, quoted) for text, quoted in bounds if text is not None]
        if path in TIME_PATHS:
            for text, _ in given:
                self.require_time(item, text)
            kind = "time"
        elif given and all(not quoted and to_number(text) is not None for text, quoted in given):
            kind = "number"
        else:
            kind = "text"
        if not given:
            return Present()
        return Range(kind, bounds[0][0], bounds[1][0], low_inclusive, high_inclusive)

    def bound(self, item: Any, end: Any) -> tuple[str | None, bool]:
        """The text of one end of a range and whether it was quoted; None for an open end."""
        match end:
            case None:
                return None, False
            case tree.Phrase():
                return _unquote(end.value), True
            case tree.Prohibit() if isinstance(end.a, tree.Word):
                return "-" + _unescape(end.a.value), False
            case tree.Word() if end.value == "*":
                return None, False
            case tree.Word():
                return _unescape(end.value), False
        raise self.error(item, "an end of a range must be one value", 'As in [3 TO 6] or ["a" TO "b"}')

    def require_time(self, item: Any, text: str) -> None:
        if to_micros(text) is None:
            raise self.error(item, f"{text!r} is no time", "As in 2026-03-01 or 2026-03-01T09:30:00Z")

    def refuse_object(self, item: Any, path: Path) -> None:
        shape = shape_of(path)
        if isinstance(shape, dict):
            name = ".".join(path)
            members = ", ".join(f"{name}.{member}" for member in shape)
            raise self.error(item, f"{name} is an object, not a value", f"Name a member ({members}), or {name}:* for its presence")

    def pieces(self, item: Any) -> Pieces:
        pieces = _split_wildcards(item.value)
        if sum(isinstance(piece, Gap) for piece in pieces) > GAPS_MAX:
            raise self.error(item, f"more than {GAPS_MAX} wildcards in one term")
        return pieces

    def refused(self, item: Any) -> QueryError:
        reason = _REFUSED.get(type(item), "this form is not supported")
        if isinstance(item, (tree.Proximity, tree.Boost)) and not isinstance(getattr(item, "expr", None), tree.Word):
            return self.error(item, reason, "Leave it out")
        return self.error(item, reason, f"To search for the text itself, quote it: {_quoted_form(self.text, item.pos or 0)}")

    def error(self, item: Any, message: str, hint: str | None = None) -> QueryError:
        return QueryError(message, place=self.place(item), hint=hint)

    def place(self, item: Any) -> str:
        return f"column {(item.pos or 0) + 1}"


def _check_text(text: str, bytes_max: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise QueryError("a lone surrogate, which no event contains", place=f"column {error.start + 1}") from None
    if size > bytes_max:
        raise QueryError(f"the query has {size:,} bytes; {bytes_max:,} are allowed")
    if "\0" in text:
        raise QueryError("a NUL character, which no event contains", place=f"column {text.index(chr(0)) + 1}")


def _word_around(text: str, position: int) -> str:
    """The word, up to white space or a parenthesis, that a position lies in."""
    start = max(text.rfind(mark, 0, position) for mark in " \t\r\n(") + 1
    found = _WORD.match(text, start)
    return found[0] if found else text[position : position + 40]


def _quoted_form(text: str, position: int) -> str:
    """The word at a position as it must be written when it is meant as a text: ``field:"value"`` or ``"value"``."""
    word = _word_around(text, position)
    name, colon, value = word.partition(":")
    if colon and value and (name in SHORT_NAMES or name.partition(".")[0] in EVENT_SHAPE):
        return f'{name}:"{_escape(value)}"'
    return f'"{_escape(word)}"'


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _syntax_error(text: str, message: str) -> QueryError:
    found = _POSITION.search(message)
    if found is None:
        place = f"column {len(text) + 1}"
        return QueryError("the query ends too early", place=place, hint="A parenthesis, bracket, value or term is missing")
    position = int(found[1])
    place = f"column {position + 1}"
    if text[position] == '"':
        return QueryError("a quote is not closed", place=place, hint='Inside quotes, write a quote as \\"')
    word = _word_around(text, position)
    if word in {"AND", "OR", "NOT", "TO"}:
        hint = f'An operator stands between terms. To search for the word, quote it: "{word}"'
        return QueryError(f"{word} is not expected here", place=place, hint=hint)
    hint = f"If it belongs to a value, quote the value: {_quoted_form(text, position)}"
    return QueryError(f"{text[position]!r} is not expected here", place=place, hint=hint)


def _split_wildcards(word: str) -> Pieces:
    """A word as literal runs and gaps; a backslash makes the next character literal; runs of ``*`` are one."""
    pieces: list[str | Gap] = []
    position = 0
    while position < len(word):
        character = word[position]
        if character in "*?":
            gap = Gap(character)
            if not (gap is Gap.MANY and pieces and pieces[-1] is Gap.MANY):
                pieces.append(gap)
            position += 1
            continue
        if character == "\\":
            position += 1
            character = word[position]
        if pieces and isinstance(pieces[-1], str):
            pieces[-1] += character
        else:
            pieces.append(character)
        position += 1
    return tuple(pieces)


def _unescape(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)


def _unquote(phrase: str) -> str:
    r"""The text between quotes; ``\"`` and ``\\`` are escapes, any other backslash stands for itself."""
    return re.sub(r'\\(["\\])', r"\1", phrase[1:-1])
