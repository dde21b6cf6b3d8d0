"""Schema contracts: what a sender promised of an action, as JSON Schema, held at intake.

`[catalog.contracts.NAME]` names an action (or a family of them, ``invoice.*``), a version where there are several, and a schema file. An
event is checked as it was read or mapped, before any transform: the object the schema sees has the members of `docs/formats/event.md` that
the sender can set. What breaks its contract is refused like any invalid event, with the JSON Pointer, or quarantined where that is the way
of the source; a contract in ``shadow`` only marks it (flag ``contract:NAME``).

The contract of an event: the one that names its action; else the longest family that it is of. Among the versions of that, the one that
the event states at ``version_at``; else the contract without a version; with neither, stating no version or an unknown one is the breach.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationError
from prometheus_client import Counter

from tallystick.config import Config
from tallystick.config.load import decode_table, place_of
from tallystick.config.promises import ContractSettings
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event

BREACH = "contract_breach"
_MASK = "the value"
_SHOWN = 3
_SERVERS = ("ingest", "raw", "received_at", "source", "v", "enrichment")
_BREACHES = Counter(
    "tallystick_contract_breaches",
    "Events that broke a schema contract; `shadow` ones were taken all the same.",
    ["contract", "mode"],
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Breach(NamedTuple):
    """One event of a batch, by place, that breaks the contract ``name``."""

    place: int
    name: str
    error: EventInvalidError
    is_shadow: bool


class Contract:
    """One schema, compiled."""

    def __init__(self, name: str, settings: ContractSettings, base_dir: Path) -> None:
        self.name = name
        self.action = settings.action
        self.version = settings.version or ""
        self.is_shadow = settings.shadow
        self._validator = _compile(base_dir / settings.schema)

    def fault(self, event: Mapping[str, Any]) -> EventInvalidError | None:
        """The first fault with its pointer, and how many others there are. No value of the event is in the words: it may be a secret."""
        if self._validator.is_valid(event):
            return None
        faults = sorted(self._validator.iter_errors(event), key=lambda one: (len(one.instance_path), str(one.instance_path)))
        words = f"breaks the contract {self.name}: {faults[0].message}"
        if others := [_pointer(one.instance_path) or "the whole event" for one in faults[1:]]:
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            words += "; further faults at " + ", ".join(others[:_SHOWN]) + more
        return EventInvalidError(words, pointer=_pointer(faults[0].instance_path), code=BREACH)


class Contracts:
    """All contracts of a configuration."""

    def __init__(self, contracts: Iterable[Contract] = (), version_at: str = "") -> None:
        self._version_at = _tokens(version_at)
        self._pointer = version_at
        self._exact: dict[str, dict[str, Contract]] = {}
        self._families: dict[str, dict[str, Contract]] = {}
        for one in contracts:
            table, action = (self._families, one.action[:-1]) if one.action.endswith("*") else (self._exact, one.action)
            table.setdefault(action, {})[one.version] = one
        self._longest_first = sorted(self._families, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._exact or self._families)

    def breaches(self, events: Sequence[Event]) -> list[Breach]:
        """The events of a batch that break theirs. Costs one look per event at its action, and a check where it has a contract."""
        found: list[Breach] = []
        known: dict[str, Mapping[str, Contract] | None] = {}
        for place, event in enumerate(events):
            action = event.action
            if action not in known:
                known[action] = self._versions(action)
            versions = known[action]
            if versions is not None and (breach := self._look(place, event, versions)) is not None:
                _BREACHES.labels(breach.name, "shadow" if breach.is_shadow else "enforced").inc()
                found.append(breach)
        return found

    def _versions(self, action: str) -> Mapping[str, Contract] | None:
        if action in self._exact:
            return self._exact[action]
        return next((self._families[family] for family in self._longest_first if action.startswith(family)), None)

    def _look(self, place: int, event: Event, versions: Mapping[str, Contract]) -> Breach | None:
        value = _decode(_encode(event))
        for name in _SERVERS:
            value.pop(name, None)
        said = _version(value, self._version_at)
        contract = versions.get(said) or versions.get("")
        if contract is not None:
            error = contract.fault(value)
            return None if error is None else Breach(place, contract.name, error, contract.is_shadow)
        some = next(iter(versions.values()))
        what = "a version that has no contract" if said else "no version"
        words = f"states {what} of {some.action}; known are {', '.join(sorted(versions))}"
        error = EventInvalidError(words, pointer=self._pointer, code=BREACH)
        return Breach(place, some.name, error, all(one.is_shadow for one in versions.values()))


def build_contracts(config: Config) -> Contracts:
    """The contracts of `[catalog]`. Raises ConfigError with the line, for a schema that is none, or two for the same action and version."""
    made: dict[tuple[str, str], Contract] = {}
    for name, table in config.catalog.contracts.items():
        settings = decode_table(config, "catalog.contracts", name, table, ContractSettings)
        try:
            contract = Contract(name, settings, config.base_dir)
        except ConfigError as error:
            place = place_of(config, f"catalog.contracts.{name}.schema")
            raise ConfigError(f"catalog.contracts.{name}: {error.message}", place=place, hint=error.hint) from error
        other = made.setdefault((contract.action, contract.version), contract)
        if other is not contract:
            words = f"catalog.contracts.{name}: {other.name} is for the same action and version"
            raise ConfigError(words, place=place_of(config, f"catalog.contracts.{name}"), hint="Give one of them a `version`")
    return Contracts(made.values(), config.catalog.version_at)


def _compile(path: Path) -> jsonschema_rs.Validator:
    """Raises ConfigError. What a schema refers to must be in its own file: nothing is fetched."""
    try:
        schema = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the schema {path} cannot be read: {error.strerror}", hint="Paths start at the configuration file"
        ) from error
    except ValueError as error:
        raise ConfigError(f"the schema {path} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigError(f"the schema {path} is not a JSON object")
    try:
        return jsonschema_rs.validator_for(schema, validate_formats=True, retriever=_fetch_nothing, mask=_MASK)
    except (ValidationError, ValueError) as error:
        words = error.message if isinstance(error, ValidationError) else str(error)
        hint = "It may refer to its own parts, as in #/$defs/name, and to nothing else"
        raise ConfigError(f"the schema {path} is no JSON Schema: {words}", hint=hint) from error


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the file")


def _version(value: Any, tokens: Sequence[str]) -> str:
    """What stands at the pointer, as text: ``2`` and ``"2"`` are the same version; empty when there is nothing of that kind."""
    for token in tokens:
        value = value.get(token) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)
