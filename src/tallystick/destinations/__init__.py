"""Destinations: one small class per kind (`plugin.Destination`), loaded when a configuration names it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import cast

from tallystick.config import Config, DestinationSettings
from tallystick.config.load import decode_table, place_of
from tallystick.destinations.encodings import EncodingSettings
from tallystick.errors import ConfigError, QueryError
from tallystick.plugin import Destination
from tallystick.query.evaluate import compile_query

DESTINATIONS: dict[str, str] = {
    "clickhouse": "tallystick.destinations.clickhouse:ClickHouseDestination",
    "datadog": "tallystick.destinations.datadog:DatadogDestination",
    "email": "tallystick.destinations.email:EmailDestination",
    "file": "tallystick.destinations.file:FileDestination",
    "forward": "tallystick.destinations.forward:ForwardDestination",
    "iceberg": "tallystick.destinations.iceberg:IcebergDestination[iceberg]",
    "loki": "tallystick.destinations.loki:LokiDestination",
    "kafka": "tallystick.destinations.kafka:KafkaDestination[kafka]",
    "nats": "tallystick.destinations.nats:NatsDestination[nats]",
    "object_store": "tallystick.destinations.object_store:ObjectStoreDestination",
    "opensearch": "tallystick.destinations.opensearch:OpenSearchDestination",
    "otlp": "tallystick.destinations.otlp:OtlpDestination",
    "pagerduty": "tallystick.destinations.pagerduty:PagerDutyDestination",
    "postgresql": "tallystick.destinations.postgresql:PostgresqlDestination[postgresql]",
    "slack": "tallystick.destinations.slack:SlackDestination",
    "splunk_hec": "tallystick.destinations.splunk_hec:SplunkHecDestination",
    "syslog": "tallystick.destinations.syslog:SyslogDestination",
    "webhook": "tallystick.destinations.webhook:WebhookDestination",
}
"""Type → module and class, and behind them in brackets the extra that brings its packages, when it needs one."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def load_destination(kind: str) -> type[Destination]:
    """The class behind a ``type``. Raises ConfigError for an unknown one, and for one whose packages are not installed."""
    try:
        place, _, extra = DESTINATIONS[kind].rstrip("]").partition("[")
    except KeyError:
        known = ", ".join(sorted(DESTINATIONS))
        raise ConfigError(f"unknown destination type {kind!r}", hint=f"Known are {known}") from None
    module, name = place.split(":")
    try:
        return cast("type[Destination]", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("tallystick"):
            raise
        hint = f"pip install 'tallystick[{extra}]'"
        raise ConfigError(f"a destination of type {kind!r} needs the package {error.name}", hint=hint) from error


def read_settings(config: Config) -> dict[str, tuple[type[Destination], DestinationSettings]]:
    """Class and checked settings of every ``[destinations.*]`` table; opens nothing. Raises ConfigError."""
    found: dict[str, tuple[type[Destination], DestinationSettings]] = {}
    for name, table in config.destinations.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"destinations.{name}: a destination's name is made of a-z, 0-9, _ and -",
                place=place_of(config, f"destinations.{name}"),
                hint='As in [destinations.lake] with type = "object_store"',
            )
        try:
            kind = load_destination(str(table.get("type", "")))
        except ConfigError as error:
            place = place_of(config, f"destinations.{name}.type")
            raise ConfigError(f"destinations.{name}: {error.message}", place=place, hint=error.hint) from error
        settings = decode_table(config, "destinations", name, table, kind.settings)
        _check_where(config, name, settings)
        _check_encoding(config, name, settings)
        try:
            root_paths(settings, config.base_dir).check()
        except ConfigError as error:
            raise _placed(config, name, error) from error
        found[name] = kind, settings
    return found


def _placed(config: Config, name: str, error: ConfigError) -> ConfigError:
    place = error.place or place_of(config, f"destinations.{name}")
    return ConfigError(f"destinations.{name}: {error.message}", place=place, hint=error.hint)


def _check_where(config: Config, name: str, settings: DestinationSettings) -> None:
    try:
        compile_query(settings.where or "")
    except QueryError as error:
        place = place_of(config, f"destinations.{name}.where")
        raise ConfigError(f"destinations.{name}.where: {error.message}", place=place, hint=error.hint) from error


def _check_encoding(config: Config, name: str, settings: DestinationSettings) -> None:
    if isinstance(settings, EncodingSettings):
        try:
            settings.check_encoding()
        except ConfigError as error:
            place = place_of(config, f"destinations.{name}.encoding")
            raise ConfigError(f"destinations.{name}.encoding: {error.message}", place=place, hint=error.hint) from error


def build_destinations(config: Config) -> dict[str, tuple[Destination, DestinationSettings]]:
    """Every configured destination, ready to send. Relative paths start at the configuration file. Raises ConfigError."""
    built: dict[str, tuple[Destination, DestinationSettings]] = {}
    for name, (kind, settings) in read_settings(config).items():
        try:
            built[name] = kind(name, root_paths(settings, config.base_dir)), settings
        except ConfigError as error:
            raise _placed(config, name, error) from error
    return built


def root_paths(settings: DestinationSettings, base_dir: Path) -> DestinationSettings:
    """The settings with their relative paths made absolute, where the class has any (``rooted``)."""
    rooted = getattr(settings, "rooted", None)
    return cast("DestinationSettings", rooted(base_dir)) if rooted else settings
