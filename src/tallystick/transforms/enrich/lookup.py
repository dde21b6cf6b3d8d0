"""Tables of one's own: a value of the event is looked up in one column, and cells of its row are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallystick.errors import ConfigError
from tallystick.transforms.enrich.dataset import BadFileError, Content, DataSet
from tallystick.transforms.enrich.networks import NetworkTable, address_of, network_of
from tallystick.transforms.enrich.rows import read_rows
from tallystick.transforms.enrich.settings import EnrichSettings, LookupSettings
from tallystick.transforms.paths import split_path

DATASET = "dataset"
"""The member that names the set of data in whatever is added."""

COLUMN_DEPTH = 4
"""Parts that the place of a column may have."""


def check_columns(settings: LookupSettings) -> None:
    """Raises ConfigError when two columns would go to one place, one into another, or one where the set is named."""
    if not settings.columns:
        raise ConfigError("`columns` is empty")
    places = [(DATASET,), *(split_path(place) for place in settings.columns.values())]
    for number, place in enumerate(places):
        if len(place) > COLUMN_DEPTH:
            raise ConfigError(f"{'.'.join(place)!r} has more than {COLUMN_DEPTH} parts")
        for other in places[:number]:
            if place[: len(other)] == other or other[: len(place)] == place:
                raise ConfigError(f"nothing can go to {'.'.join(place)!r} beside {'.'.join(other)!r}")


class Table(DataSet):
    """The rows of one file by key."""

    def __init__(self, content: Content, settings: LookupSettings, limits: EnrichSettings) -> None:
        super().__init__(content.path.name, content.date)
        self._ignores_case = settings.match == "ignore_case"
        self._is_network = settings.match == "network"
        self._places = [split_path(place) for place in settings.columns.values()]
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._networks: NetworkTable[tuple[Any, ...]] = NetworkTable()
        wanted = [settings.column, *settings.columns]
        for line, (key, *cells) in read_rows(content, wanted, limits.rows_max, limits.file_max.bytes):
            if key is None:
                continue
            if not self._put(str(key), tuple(_cell(cell, line) for cell in cells), line):
                raise BadFileError(
                    f"line {line}: {settings.column} {str(key)[:100]!r} is there already; its rows contradict each other"
                )

    def _put(self, key: str, cells: tuple[Any, ...], line: int) -> bool:
        if self._is_network:
            network = network_of(key.strip())
            if network is None:
                raise BadFileError(f"line {line}: {key[:100]!r} is no address and no network")
            return self._networks.put(network, cells)
        key = key.casefold() if self._ignores_case else key
        return self._rows.setdefault(key, cells) is cells

    def find(self, value: str) -> dict[str, Any] | None:
        """The cells of the row, each in its place; those that are empty are not."""
        cells = self._cells(value)
        if cells is None:
            return None
        found: dict[str, Any] = {}
        for place, cell in zip(self._places, cells, strict=True):
            if cell is not None:
                _put_at(found, place, cell)
        return {**found, DATASET: self.facts} if found else None

    def _cells(self, value: str) -> Sequence[Any] | None:
        if self._is_network:
            address = address_of(value)
            return None if address is None else next(self._networks.holding(address), None)
        return self._rows.get(value.casefold() if self._ignores_case else value)


def _cell(cell: Any, line: int) -> Any:
    """A cell as JSON may have it: text, number, true, false or None; times and the like become text."""
    if cell is None or isinstance(cell, str | bool):
        found: Any = cell
    else:
        try:
            found = msgspec.to_builtins(cell)
        except (TypeError, ValueError) as error:
            raise BadFileError(f"row {line}: {error}") from error
    if isinstance(found, float) and (found != found or found in (float("inf"), float("-inf"))):
        return None
    if isinstance(found, dict | list) or (isinstance(found, int) and not -(2**63) <= found < 2**64):
        raise BadFileError(f"row {line}: a cell is no text, number, time, true or false")
    if isinstance(found, str) and "\0" in found:
        raise BadFileError(f"row {line}: there is a NUL in a cell")
    return found


def _put_at(holder: dict[str, Any], place: Sequence[str], value: Any) -> None:
    for part in place[:-1]:
        holder = holder.setdefault(part, {})
    holder[place[-1]] = value
