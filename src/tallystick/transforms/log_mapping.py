"""A mapping of records that a product writes in a form of its own (`parse.protocol`): they are read first, then mapped as JSON.

``raw`` stays what the product wrote; one received record may hold several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from itertools import repeat
from typing import Any

from msgspec import UNSET

from tallystick.errors import ConfigError
from tallystick.event.plain import Plain
from tallystick.plugin import Carrier
from tallystick.protocols.postgresql_log import LogRecord, read_log
from tallystick.transforms.mapping import Mapping

_PROTOCOLS: MappingType[str, Callable[[bytes], Iterator[LogRecord]]] = {"postgresql_log": read_log}
"""What `parse.protocol` may name."""


def make_mapping(spec: MappingType[str, Any]) -> Mapping:
    """The mapping that a file describes. Raises ConfigError, and what a damaged table makes `Mapping` raise."""
    return LogMapping(spec) if "protocol" in spec.get("parse", {}) else Mapping(spec)


class LogMapping(Mapping):
    """See above."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        name = spec["parse"]["protocol"]
        if not isinstance(name, str) or name not in _PROTOCOLS:
            raise ConfigError(f"{name!r} is no protocol of records; there are {', '.join(_PROTOCOLS)}")
        self._read = _PROTOCOLS[name]
        super().__init__(spec)

    def map_batch(self, records: Sequence[bytes | Plain], carriers: Sequence[Carrier] | None = None, options: Any = None) -> Any:
        """See `Mapping`."""
        read: list[LogRecord] = []
        places: list[int] = []
        for place, record in enumerate(records):
            found = list(self._read(record.content if isinstance(record, Plain) else record.strip()))
            read += found
            places += [place] * len(found)
        given = list(carriers or repeat(Carrier(), len(records)))
        result = super().map_batch([one.record or one.source for one in read], [given[place] for place in places], options)
        for event, position in zip(result.events, result.positions, strict=True):
            if event.raw is not UNSET:
                event.raw = read[position].source.decode("utf-8", "replace").replace("\0", "\ufffd")
        result.positions = [places[position] for position in result.positions]
        result.problems = [self._told(problem, read[problem.position], places[problem.position]) for problem in result.problems]
        return result

    @staticmethod
    def _told(problem: Any, one: LogRecord, place: int) -> Any:
        """The problem with what reading found, and the product's own bytes."""
        if one.fault:
            problem = problem._replace(code="record_unreadable", message=one.fault)
        return problem._replace(record=one.source, position=place)
