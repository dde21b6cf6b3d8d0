"""Mappings: from a product's record to an event, by one TOML data file a product (`mappings/*.toml`).

A file says how records are found in what arrives (`parse`, `match`), which member names a record (`dedupe`), where its
time is (`time`), what fills the envelope (`envelope`, `actor`, `on_behalf_of`, `targets`, `context`, `changes`), how
actions sort into categories (`dispatch`), which keys are no secrets though they sound so (`redact`), and which names
detection rules use for our fields (`aliases`). `docs/mappings.md` describes each table. A file is compiled once (`rules`);
mapping a record runs closures only and does no IO.

Nothing is lost on the way: members that did not move to the envelope stay in ``metadata`` with order and number texts,
and the record's own text goes to ``raw``. A record that does not map gives a problem with code, reason and its bytes.

The id of an event is the product's own, with 12 digits of the digest of the record behind it: a repeated delivery has the
same id and is stored once, while a second record under a used id is an event of its own and not a conflict. Without an
id of its own a record that has a time is named by its digest alone; one that has neither is named by the server.

Most records take the short way: what an encoder makes of the decoded record is the record again (blanks and escapes aside), so it
is strict and its members can be moved as values without any number text changing. All others are taken apart member by member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from itertools import repeat
from typing import Any, Protocol

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event.plain import Plain
from tallystick.plugin import Carrier
from tallystick.transforms.changes import ChangeRules
from tallystick.transforms.columns import GROUP_MIN
from tallystick.transforms.lines import LineParser
from tallystick.transforms.map_batch import BatchRun
from tallystick.transforms.map_record import RecordRun
from tallystick.transforms.map_result import MapOptions, MapResult, Problem
from tallystick.transforms.mapping_check import check_tables
from tallystick.transforms.rules import RuleBook

__all__ = ["MapOptions", "MapResult", "Mapping", "Problem", "RecordMapping"]

_TABLES = {"name", "title", "documentation", "parse", "match", "dedupe", "time", "envelope", "actor", "on_behalf_of", "targets",
           "context", "changes", "dispatch", "redact", "aliases"}  # fmt: skip

_ASKING = ("parse", "match", "dedupe", "time", "envelope", "actor", "on_behalf_of", "targets", "context", "dispatch")

_PATH = re.compile(r"[\w@$-]+(?:[.][\w@$-]+)*")


class RecordMapping(Protocol):
    """What a source makes events with: a mapping file, or code of its own where one file a product is not the way."""

    name: str

    def map_batch(
        self, records: Sequence[bytes], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """All events in ``records``, which may be containers, and a problem for each record in them that does not map."""


class Mapping:
    """One compiled mapping file."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        unknown = set(spec) - _TABLES
        if unknown:
            raise ConfigError(f"a mapping has no table {sorted(unknown)[0]!r}", place=sorted(unknown)[0])
        check_tables(spec)
        self.name: str = spec["name"]
        self.title: str = spec.get("title", self.name)
        self.has_own_time: bool = spec.get("time", {}).get("required", False)
        parse = spec.get("parse", {})
        self._steps = parse.get("unwrap", [])
        self._step_keys = {step[kind] for step in self._steps for kind in ("list", "object", "text") if kind in step}
        self._splits = [step["split"] for step in self._steps if "split" in step]
        self._reads_carrier = parse.get("carrier", False)
        self._refusals = parse.get("refuse", [])
        self._is_container_possible = bool(self._steps)
        self._takes_text = parse.get("text", False)
        self._lines = LineParser(self.title, parse["lines"]) if "lines" in parse else None
        self.takes_syslog_header = self._lines is not None and self._lines.takes_header
        self._keys: list[str] = spec.get("match", {}).get("all", [])
        self._key_set = frozenset(self._keys)
        self._rules = RuleBook(spec)
        self._is_particular = bool(self._keys or self._refusals)
        self._goes_in_groups = not (self._is_particular or self._reads_carrier or self._lines)
        self._changes = ChangeRules(spec.get("changes", {}))
        redact = spec.get("redact", {})
        self.redact_allow = frozenset(redact.get("allow", ()))
        self.redact_keys = frozenset(redact.get("keys", ()))
        self.aliases: dict[str, str] = spec.get("aliases", {})
        self.asked = frozenset(path for text in _strings([spec.get(one) for one in _ASKING]) for path in _PATH.findall(text))

    @property
    def particularity(self) -> int:
        """By how many members it tells its records from others; 0 takes anything."""
        return len(self._keys)

    def asks_for(self, path: str) -> bool:
        """Whether the file names this member (``a``, ``a.b``), the object it is in, or something within it."""
        outer = path.rpartition(".")[0]
        return path in self.asked or outer in self.asked or any(text.startswith(path + ".") for text in self.asked)

    def map(self, record: bytes, *, source_type: str = "", peer: str = "", keep_raw: bool = True) -> MapResult:
        """All events in ``record``, which may be a container, and a problem for each record in it that does not map."""
        return self.map_batch([record], [Carrier(peer)], MapOptions(source_type, keep_raw))

    def map_batch(
        self, records: Sequence[bytes | Plain], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """The same for many records, each with its carrier. Those that have been read already come as `Plain`, which is used up."""
        options = options or MapOptions()
        if len(records) >= GROUP_MIN and self._goes_in_groups:
            return BatchRun(self, options).map(records, carriers or [Carrier()] * len(records))
        result = MapResult()
        run = RecordRun(self, options, result)
        for position, (record, carrier) in enumerate(zip(records, carriers or repeat(Carrier()), strict=False)):
            run.take(record, position, carrier)
        return result

    def _is_record(self, members: MappingType[str, Any]) -> bool:
        """Whether an object with these members is a record for sure, and no container of records."""
        if self._splits and any(type(several := members.get(key)) is list and len(several) > 1 for key in self._splits):
            return False
        return (bool(self._keys) and self._key_set <= members.keys()) or self._step_keys.isdisjoint(members)

    def _check(self, members: MappingType[str, Any]) -> None:
        """Raises EventInvalidError for what is no record of this product. ``members`` are values, or their bytes."""
        for refusal in self._refusals:
            if refusal["has"] in members:
                raise EventInvalidError(refusal["message"], code=refusal["code"])
        for key in self._keys:
            value = members.get(key)
            if value is None or value == b"null":
                raise EventInvalidError(f"no `{key}`: not a record of {self.title}", pointer="/" + key, code="record_unknown")


def _strings(spec: Any) -> Iterator[str]:
    """Every text in a table, the paths that it asks for among them."""
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, dict | list):
        for inner in spec.values() if isinstance(spec, dict) else spec:
            yield from _strings(inner)
