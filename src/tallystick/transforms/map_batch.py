"""A batch of records through a mapping: flat ones by groups of one shape (`columns`), the others one by one (`map_record`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tallystick.event import Event
from tallystick.event.plain import Plain, read_plain
from tallystick.plugin import Carrier
from tallystick.transforms.columns import GROUP_MIN, Columns, Group, MixedError
from tallystick.transforms.map_record import DEPTH_MAX, RecordRun, keep_raw
from tallystick.transforms.map_result import MapOptions, MapResult

if TYPE_CHECKING:
    from tallystick.transforms.mapping import Mapping


_NO_MEMBERS: dict[str, Any] = {}

Shape = tuple[Columns, bool]
"""The rules for records that are alike, and whether they are lines of text."""


class TextLine(Plain):
    """A line that is no JSON: its only member is the text. Never named by its digest: two lines that are the same may be two events."""

    __slots__ = ()


class BatchRun:
    """One batch on its way through a mapping. What comes out is in the order of the records."""

    def __init__(self, mapping: Mapping, options: MapOptions) -> None:
        self._mapping = mapping
        self._options = options

    def map(self, records: Sequence[bytes | Plain], carriers: Sequence[Carrier]) -> MapResult:
        """All events in ``records``, and a problem for each that does not map."""
        read = [self._read(record) for record in records]
        groups = self._groups(read)
        if len(groups) == 1 and not self._options.keep_raw:
            ((shape, positions),) = groups.items()
            if len(positions) == len(read):
                events = self._map_group(shape, read, carriers)
                if events is not None:
                    return MapResult(events, [plain.content for plain in read], list(positions))  # type: ignore[union-attr]
        made = self._map_flat(groups, read, carriers)
        result = MapResult()
        run = RecordRun(self._mapping, self._options, result)
        for position, plain in enumerate(read):
            event = made[position]
            if event is None or not isinstance(plain, Plain):
                run.take(records[position], position, carriers[position], plain if type(plain) is Plain else None)
                continue
            if self._options.keep_raw:
                keep_raw(event, plain.content if records[position] is plain else records[position].strip())  # type: ignore[union-attr]
            result.events.append(event)
            result.contents.append(plain.content)
            result.positions.append(position)
        return result

    def _read(self, record: bytes | Plain) -> bytes | Plain:
        if isinstance(record, Plain):
            return record
        text = record.strip()
        if text[:1] in (b"{", b"[") or not self._mapping._takes_text:
            return read_plain(text, DEPTH_MAX) or record
        try:
            line = text.decode()
        except UnicodeDecodeError:
            return record
        return record if "\0" in line else TextLine({"message": line}, text)

    def _groups(self, read: Sequence[bytes | Plain]) -> dict[Shape, list[int]]:
        """The positions of flat records, by their shape."""
        mapping, groups = self._mapping, dict[Shape, list[int]]()
        positions = [position for position, plain in enumerate(read) if isinstance(plain, Plain)]
        plains: list[Any] = [read[position] for position in positions]
        found = mapping._rules.columns_of(_NO_MEMBERS if type(plain) is TextLine else plain.value for plain in plains)
        for position, plain, columns in zip(positions, plains, found, strict=True):
            if columns is not None and (not mapping._is_container_possible or mapping._is_record(plain.value)):
                groups.setdefault((columns, type(plain) is TextLine), []).append(position)
        return groups

    def _map_flat(
        self, groups: dict[Shape, list[int]], read: Sequence[bytes | Plain], carriers: Sequence[Carrier]
    ) -> list[Event | None]:
        """The events of the records that could be mapped in groups, each at its record's position."""
        made: list[Event | None] = [None] * len(read)
        for shape, positions in groups.items():
            if len(positions) >= GROUP_MIN:
                places = [read[position] for position in positions]
                events = self._map_group(shape, places, [carriers[position] for position in positions])
                for position, event in zip(positions, events or (), strict=False):
                    made[position] = event
        return made

    def _map_group(self, shape: Shape, plains: Sequence[Any], carriers: Sequence[Carrier]) -> list[Event] | None:
        """The events of records of one shape; None when they are not alike enough."""
        (columns, is_text), options = shape, self._options
        values, contents = [plain.value for plain in plains], [plain.content for plain in plains]
        name = f"{options.source_type or self._mapping.name}.record"
        group = Group(values, contents, carriers, name, names_by_digest=options.names_by_digest and not is_text)
        try:
            return columns.map(group)
        except MixedError:
            return None
