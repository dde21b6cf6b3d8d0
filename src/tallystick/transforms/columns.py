"""Many records of one shape at once, member by member instead of record by record.

A log's records are mostly alike: the same few top-level members, all of them texts. For such a group each expression of a mapping is
one list comprehension over the group, and a record costs little more than making its event. An expression gives a text for each record
of the group (a *column*), or nothing for all of them; where it would give one for some records and nothing for others, or asks for
anything but a top-level text, the group goes record by record (`map_record`), which is the definition of what comes out.

Compiled here is what can be told from the shape alone: constants, members, what depends on a member's presence, and lists of these.
Targets, delegates, changes and sorting into categories are not; mappings that have them for the records at hand are not flat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from itertools import repeat
from operator import eq
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tallystick.event import Actor, Context, Event, Ingest, times
from tallystick.event.fields import ID
from tallystick.plugin import Carrier
from tallystick.transforms.expressions import TESTS, as_action, form_of
from tallystick.transforms.record_paths import Roots, split_path
from tallystick.transforms.record_time import MISSING, read_candidates

GROUP_MIN = 4
"""Smaller groups are not worth the trouble."""
REASON_MAX = 2_048

_ABSENT = repeat(UNSET)
_encode = msgspec.json.Encoder().encode

Texts = Iterable[Any]
Column = Callable[["Group"], Texts | None]
Check = Callable[["Group"], bool]


class NotFlatError(Exception):
    """Records of this shape need the way record by record."""


class MixedError(Exception):
    """This group needs the way record by record."""


@dataclass(slots=True)
class Group:
    """Records of one shape, as decoded values, with their texts and carriers.

    ``names_by_digest``: as in `MapOptions`, and False for lines of text. ``taken``: members that moved to the envelope.
    """

    values: list[dict[str, Any]]
    contents: Sequence[bytes]
    carriers: Sequence[Carrier]
    source_record: str
    names_by_digest: bool
    taken: list[str] = field(default_factory=list)


class Columns:
    """One mapping's rules for records of one shape. Raises NotFlatError when the rules or the shape are not flat."""

    def __init__(self, spec: MappingType[str, Any], roots: Roots) -> None:
        if any(name in spec for name in ("on_behalf_of", "targets", "changes", "dispatch", "match")) or "refuse" in spec.get(
            "parse", {}
        ):
            raise NotFlatError
        envelope = spec["envelope"]
        self._mapping: str = spec["name"]
        self._action = _compile(envelope["action"], roots)
        self._outcome = _compile(_with_default(envelope.get("outcome", []), roots), roots)
        self._reason = _compile(envelope.get("reason", []), roots)
        self._actor = {name: column for name, part in spec["actor"].items() if (column := _compile(part, roots)) is not None}
        self._context = {
            name: column for name, part in spec.get("context", {}).items() if (column := _compile(part, roots)) is not None
        }
        self._own_id = _compile(spec.get("dedupe", {}).get("key", []), roots)
        table = spec.get("time", {})
        self._is_time_required = table.get("required", False)
        candidates = read_candidates(table, roots)
        if any(one.made is not None or one.form is not None for one in candidates):
            raise NotFlatError
        self._times = [one.path for one in candidates]

    def map(self, group: Group) -> list[Event]:
        """The events of a group, in order; its values are used up. Raises MixedError, and then nothing has changed."""
        actions = _needed(self._action, group)
        if isinstance(actions, list) and not all(map(as_action, actions)):
            raise MixedError
        moments, flags = self._moments(group)
        outcomes = (self._outcome(group) if self._outcome is not None else None) or repeat("unknown")
        reasons = self._reasons(group)
        actors = _actors({name: column(group) for name, column in self._actor.items()}, group)
        contexts = _contexts({name: column(group) for name, column in self._context.items()}, group)
        ids = self._ids(group, has_time=moments is not None)
        metadata = _rest(group)
        return [
            Event(
                id=id_,
                action=action,
                actor=actor,
                outcome=outcome,
                occurred_at=moment,
                reason=reason,
                context=context,
                metadata=rest,
                ingest=Ingest(mapping=self._mapping, flags=UNSET if flags is None else list(flags)),
            )
            for id_, action, actor, outcome, moment, reason, context, rest in zip(
                ids, actions, actors, outcomes, moments or repeat(UNSET), reasons, contexts, metadata, strict=False
            )
        ]

    def _moments(self, group: Group) -> tuple[list[str] | None, tuple[str, ...] | None]:
        """A canonical time for each, or None for the time of receipt; flags that all have."""
        carried = [carrier.time for carrier in group.carriers]
        if carried.count(None) == len(carried):
            return self._own_moments(group)
        if self._is_time_required and self._times:
            raise MixedError
        moments = [moment.text for moment in carried if moment is not None and moment.text is not None and not moment.flags]
        if len(moments) != len(carried):
            raise MixedError
        return moments, None

    def _own_moments(self, group: Group) -> tuple[list[str] | None, tuple[str, ...] | None]:
        if not self._times:
            return None, (MISSING,) if self._is_time_required else None
        name = self._times[0][0]
        texts = [value[name] for value in group.values]
        if len(self._times[0]) > 1 or set(map(type, texts)) != {str}:
            raise MixedError
        moments = times.normalize(texts)
        if moments is None:
            raise MixedError
        group.taken.append(name)
        return moments, None

    def _reasons(self, group: Group) -> Texts:
        reasons = self._reason(group) if self._reason is not None else None
        if reasons is None:
            return repeat(UNSET)
        if isinstance(reasons, list) and max(map(len, reasons)) <= REASON_MAX:
            return reasons
        raise MixedError

    def _ids(self, group: Group, *, has_time: bool) -> Texts:
        own = self._own_id(group) if self._own_id is not None else None
        if own is None:
            if not (has_time and group.names_by_digest):
                return repeat(UNSET)
            return [f"{self._mapping}.{hashlib.sha256(content).hexdigest()[:32]}" for content in group.contents]
        made = [f"{name}.{hashlib.sha256(content).hexdigest()[:12]}" for name, content in zip(own, group.contents, strict=False)]
        if not all(map(ID.fullmatch, made)):
            raise MixedError
        return made


def _needed(column: Column | None, group: Group) -> Texts:
    found = None if column is None else column(group)
    if found is None:
        raise MixedError
    return found


def _actors(columns: MappingType[str, Texts | None], group: Group) -> list[Actor]:
    """An actor for each record. Raises MixedError without a column for type and id."""
    found = [columns.get(name) or _ABSENT for name in ("type", "id", "name", "email", "credential")]
    if _ABSENT in found[:2]:
        raise MixedError
    rows = zip(*found, group.values, strict=False)  # constants have no end: the records say how many there are
    return [
        Actor(type=kind, id=id_, name=name, email=email, credential=credential) for kind, id_, name, email, credential, _ in rows
    ]


def _contexts(columns: MappingType[str, Texts | None], group: Group) -> Texts:
    """A context for each record; UNSET for all when there is nothing for any."""
    if not any(column is not None for column in columns.values()):
        return _ABSENT
    names = ("ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location")
    rows = zip(*(columns.get(name) or _ABSENT for name in names), group.values, strict=False)
    return [
        Context(ip=ip, user_agent=agent, session_id=session, request_id=request, trace_id=trace, span_id=span, location=location)
        for ip, agent, session, request, trace, span, location, _ in rows
    ]


def _rest(group: Group) -> list[Raw | msgspec.UnsetType]:
    """The metadata of each: its members that were not taken, and what its carrier adds."""
    taken = set(group.taken)
    for value, carrier in zip(group.values, group.carriers, strict=True):
        for name in taken:
            del value[name]
        for name, more in carrier.more.items():
            while name in value:
                name += "_"
            value[name] = more
    return [Raw(_encode(value)) if value else UNSET for value in group.values]


def _with_default(spec: Any, roots: Roots) -> Any:
    """An outcome that is looked up in one member alone is `unknown` where the table has nothing."""
    parts = [part for part in (spec if isinstance(spec, list) else [spec]) if _compile(part, roots) is not None]
    if len(parts) == 1 and isinstance(parts[0], dict) and "lookup" in parts[0]:
        return {"default": "unknown", **parts[0]}
    return spec


def _compile(spec: Any, roots: Roots) -> Column | None:
    """The column of an expression; None when it gives nothing for records of this shape. Raises NotFlatError."""
    if isinstance(spec, str):
        return _member(spec, roots)
    if isinstance(spec, list):
        return _first_of([column for one in spec if (column := _compile(one, roots)) is not None])
    if "const" in spec:
        return lambda group: repeat(spec["const"])
    if "var" in spec:
        return _variable(spec["var"])
    if "use" in spec:
        return _conditional(_compile(spec["use"], roots), _compile_check(spec["when"], roots))
    if "path" in spec:
        if "lookup" in spec:
            return _lookup(spec, roots)
        return _member(spec["path"], roots, form_of(spec["as"]) if "as" in spec else None)
    raise NotFlatError


def _text_name(path: str, roots: Roots) -> str | None:
    """The member at ``path``; None when the records do not have it. Raises NotFlatError unless it is a top-level text."""
    parts = split_path(path)
    if not roots.may_have(parts):
        return None
    if len(parts) > 1 or not roots.is_text(parts[0]):
        raise NotFlatError
    return parts[0]


def _member(path: str, roots: Roots, form: Callable[[str], str | None] | None = None) -> Column | None:
    name = _text_name(path, roots)
    if name is None:
        return None

    def take(group: Group) -> Texts | None:
        found: list[Any] = [value[name] for value in group.values]
        own = found
        if form is not None:
            found = list(map(form, own))
        if not _is_full(found):
            return None
        if _is_unchanged(found, own):
            group.taken.append(name)
        return found

    return take


def _is_full(found: list[Any]) -> bool:
    """True when there is something for each of them, False when there is for none. Raises MixedError."""
    if all(found):
        return True
    if any(found):
        raise MixedError
    return False


def _is_unchanged(found: list[Any], own: list[Any]) -> bool:
    """True when none was cut, so that the member moves; False when all were, so that it stays. Raises MixedError."""
    if found == own:
        return True
    if any(map(eq, found, own)):
        raise MixedError
    return False


def _variable(name: str) -> Column:
    if name == "peer":
        return lambda group: [carrier.peer or "unknown" for carrier in group.carriers]
    if name == "source_record":
        return lambda group: repeat(group.source_record)
    raise NotFlatError


def _first_of(columns: list[Column]) -> Column | None:
    if len(columns) < 2:
        return columns[0] if columns else None

    def first(group: Group) -> Texts | None:
        for column in columns:
            found = column(group)
            if found is not None:
                return found
        return None

    return first


def _lookup(spec: MappingType[str, Any], roots: Roots) -> Column | None:
    name, table, default = _text_name(spec["path"], roots), spec["lookup"], spec.get("default")
    if name is None:
        return None if default is None else lambda group: repeat(default)

    def look(group: Group) -> Texts | None:
        found = [table.get(value[name], default) if value[name] else default for value in group.values]
        return found if _is_full(found) else None

    return look


def _conditional(use: Column | None, check: Check | None) -> Column | None:
    if use is None or check is None:
        return None
    return lambda group: use(group) if check(group) else None


def _compile_check(spec: Any, roots: Roots) -> Check | None:
    """Whether a condition holds for all records of a group; None when it holds for none of this shape. Raises NotFlatError."""
    if isinstance(spec, list):
        checks = [_compile_check(one, roots) for one in spec]
        if None in checks:
            return None
        return lambda group: all(check(group) for check in checks if check is not None)
    (test,) = set(spec) - {"path"}
    name, wanted = _text_name(spec["path"], roots), spec[test]
    if name is None:
        return (lambda group: True) if test == "present" and not wanted else None

    def check(group: Group) -> bool:
        texts = [value[name] for value in group.values]
        if test == "present":
            return _is_full(texts) is wanted
        return _is_full([bool(text) and TESTS[test](text, wanted) for text in texts])

    return check
