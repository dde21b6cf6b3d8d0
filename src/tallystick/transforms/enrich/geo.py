"""Where an address is: from any MMDB file, or from the package `iptocc`, which knows the country of registration.

Databases agree on their container but not on their records, so each member has a list of places where the usual ones have it
(MaxMind and DB-IP nest them, IPinfo, IPLocate and ip-location-db do not), and `fields` names places for any other.
The reader maps its file into memory, and a file that is written over or cut short under it would end the process; so it gets a copy of
its own, in memory.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tallystick.errors import ConfigError
from tallystick.transforms.enrich.dataset import BadFileError, Content, DataSet
from tallystick.transforms.enrich.lookup import DATASET
from tallystick.transforms.enrich.networks import address_of, is_public
from tallystick.transforms.paths import split_path

IPTOCC = "iptocc"
_USUAL: Mapping[str, Sequence[str]] = {
    "country": ("country.iso_code", "country_code", "registered_country.iso_code", "country"),
    "region": ("subdivisions.0.iso_code", "region_code", "region", "state1"),
    "city": ("city.names.en", "city"),
    "latitude": ("location.latitude", "latitude", "lat"),
    "longitude": ("location.longitude", "longitude", "lng"),
    "asn": ("autonomous_system_number", "asn"),
    "as_name": ("autonomous_system_organization", "as_name", "org"),
}
_PLAIN = str | int | float


class Database(DataSet):
    """One MMDB file. ``fields``: name → path in its records; empty: the usual ones."""

    def __init__(self, content: Content, fields: Mapping[str, str]) -> None:
        reader = optional("maxminddb")
        try:
            self._reader = _opened(reader, content.data)
            facts = self._reader.metadata()
            built = datetime.fromtimestamp(facts.build_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except (reader.InvalidDatabaseError, ValueError, OSError, OverflowError) as error:
            raise BadFileError(f"it is no MMDB file: {error}") from error
        super().__init__(facts.database_type or content.path.name, built)
        self._is_v4 = facts.ip_version == 4
        self._bad = reader.InvalidDatabaseError
        places = {name: (path,) for name, path in fields.items()} or _USUAL
        self._places = {name: [split_path(path) for path in paths] for name, paths in places.items()}

    def find(self, value: str) -> dict[str, Any] | None:
        """What the database says of a public address."""
        address = address_of(value)
        if address is None or not is_public(address) or (self._is_v4 and address.version == 6):
            return None
        try:
            record = self._reader.get(address)
        except self._bad:
            return None  # the record is damaged; the rest of the file may be good
        found = {name: told for name, places in self._places.items() if (told := _first(record, places)) is not None}
        return {**found, DATASET: self.facts} if found else None


class Registries(DataSet):
    """The country to whose registry an address was given, from the data in the package `iptocc`."""

    def __init__(self) -> None:
        self._code_of = optional(IPTOCC).country_code
        number = version(IPTOCC)
        super().__init__(IPTOCC, number)

    def find(self, value: str) -> dict[str, Any] | None:
        """The country's code of a public address."""
        address = address_of(value)
        if address is None or not is_public(address):
            return None
        code = self._code_of(str(address))
        return None if code is None else {"country": code, DATASET: self.facts}


def optional(module: str) -> Any:
    """A module of the extra `enrich`. Raises ConfigError when it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"the package for {module} is not installed", hint="pip install 'tallystick[server,enrich]'") from error


def _opened(reader: Any, data: bytes) -> Any:
    held = os.memfd_create("tallystick-mmdb")
    try:
        with open(held, "wb", closefd=False) as file:
            file.write(data)
        return reader.open_database(f"/proc/self/fd/{held}")
    finally:
        os.close(held)  # the reader has its own mapping of it


def _first(record: Any, places: Sequence[Sequence[str]]) -> Any:
    """The first plain value that the record has at one of the places."""
    for place in places:
        found = record
        for part in place:
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isdigit():
                found = found[int(part)] if int(part) < len(found) else None
            else:
                found = None
        if isinstance(found, _PLAIN) and found != "" and "\0" not in str(found):
            return found
    return None
