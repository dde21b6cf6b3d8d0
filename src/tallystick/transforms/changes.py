"""What a record says was changed: `[changes]` of a mapping.

Two kinds of product tell of it. Some have a member of its own for an old value (`plan_was` beside `plan`): ``before`` lists patterns of
such names, whose groups joined by `_` name the member with the new value. Others have lists of what changed, or three members
for the name, the old and the new value: ``lists`` says where these are. Values keep the sender's own text.

    [changes]
    before = ['(.+)_was', 'old_(.+)']
    lists = [{ each = "ModifiedProperties", name = "Name", before = "OldValue", after = "NewValue" }]

Without ``each`` the record itself is the one element. Lists within lists are opened on the way to the elements; `[]` and
`[name=text]` in the other paths are those of expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.event import Change, strict
from tallystick.transforms.expressions import Expression, Scope, compile_expression
from tallystick.transforms.record_paths import Path, Pick, Roots, split_path

CHANGES_MAX = 256
"""Further elements stay in ``metadata`` alone."""

_NULL = b"null"
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class _List(NamedTuple):
    each: Path
    name: Expression
    before: Path
    after: Path


class ChangeRules:
    """`[changes]`, compiled. False when it says nothing."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._before = [re.compile(pattern) for pattern in table.get("before", [])]
        roots = Roots()
        self._lists = [
            _List(
                split_path(spec.get("each", "")),
                compile_expression(spec["name"], roots),
                split_path(spec["before"]),
                split_path(spec["after"]),
            )
            for spec in table.get("lists", [])
        ]
        self._roots = roots.asked | {path[0] for rule in self._lists for path in (rule.each, rule.before, rule.after) if path}

    def __bool__(self) -> bool:
        return bool(self._before or self._lists)

    def may_ask(self, name: str) -> bool:
        """Whether the member of this name says anything here."""
        return bool(self._before) or name in self._roots

    def find(self, members: Mapping[str, Raw], taken: list[str]) -> list[Change] | UnsetType:
        """All changes that a record with these members tells of. Members of both values alone are noted in ``taken``."""
        changes = list(_by_names(self._before, members, taken))
        for rule in self._lists:
            for element in _elements(members, rule.each):
                change = _in_element(rule, element)
                if change is not None and len(changes) < CHANGES_MAX:
                    changes.append(change)
        return changes or UNSET


def _by_names(patterns: Sequence[re.Pattern[str]], members: Mapping[str, Raw], taken: list[str]) -> Iterator[Change]:
    for key, before in members.items():
        for pattern in patterns:
            match = pattern.fullmatch(key)
            if match is None:
                continue
            name = "_".join(part for part in match.groups() if part)
            after = members.get(name)
            yield Change(path="/" + strict.escape(name), op="replace", before=before, after=UNSET if after is None else after)
            taken += [key, name]
            break


def _in_element(rule: _List, element: Mapping[str, Raw]) -> Change | None:
    """What one element says; None when it names nothing, or no value."""
    before, after = _raw_at(element, rule.before), _raw_at(element, rule.after)
    if before is None and after is None:
        return None
    name = rule.name(Scope({key: _decode(value) for key, value in element.items()}, {}))
    if name is None:
        return None
    path = "/" + strict.escape(name)
    if before is None:
        return Change(path=path, op="add", after=after or UNSET)
    return Change(path=path, op="remove" if after is None else "replace", before=before, after=UNSET if after is None else after)


def _elements(members: Mapping[str, Raw], path: Path) -> Iterator[Mapping[str, Raw]]:
    """The objects at ``path``, with every list on the way opened."""
    if not path:
        yield members
        return
    value = members.get(path[0])
    if value is None:
        return
    text = bytes(value)
    if text.startswith(b"["):
        for element in map(bytes, _decode_list(text)):
            if element.startswith(b"{"):
                yield from _elements(_decode_members(element), path[1:])
    elif text.startswith(b"{"):
        yield from _elements(_decode_members(text), path[1:])


def _raw_at(members: Mapping[str, Raw], path: Path) -> Raw | None:
    """The value's own text; None when it is not there, or null. A list is opened where the path picks an element."""
    value = members.get(path[0])
    if value is None or bytes(value) == _NULL:
        return None
    if len(path) == 1:
        return value
    text = bytes(value)
    if text.startswith(b"{"):
        return _raw_at(_decode_members(text), path[1:])
    if not (text.startswith(b"[") and len(path) > 2 and (path[1] == "[]" or type(path[1]) is Pick)):
        return None
    elements = (_decode_members(element) for element in map(bytes, _decode_list(text)) if element.startswith(b"{"))
    fits = (one for one in elements if type(path[1]) is not Pick or _decode(one.get(path[1].name, _NULL)) == path[1].wanted)
    return next((found for one in fits if (found := _raw_at(one, path[2:])) is not None), None)
