"""How a source or a destination finds and logs in to Kafka, as librdkafka's configuration; and where that library's log lines go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta

from tallystick.config.settings import Settings
from tallystick.errors import ConfigError
from tallystick.sources.remote import RemoteTlsSettings, require_safe
from tallystick.telemetry import log


class SaslSettings(Settings, frozen=True, kw_only=True):
    """`sasl = {…}` of a source or destination `kafka`."""

    mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="SASL mechanism.")]
    user: Annotated[str, Meta(description="User name.")]
    password: Annotated[str, Meta(description="Password.")]


class LoginSettings(Protocol):
    """What a settings class needs to have."""

    @property
    def servers(self) -> tuple[str, ...]: ...
    @property
    def sasl(self) -> SaslSettings | None: ...
    @property
    def tls(self) -> RemoteTlsSettings | None: ...


def check_servers(servers: Sequence[str], *, is_encrypted: bool, insecure: bool) -> None:
    """Raises ConfigError for what is no address, and for one off this machine that would be talked to in the clear."""
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or "/" in server:
            raise ConfigError(f"{server} is no address", place="servers", hint='As in "broker.example.com:9092"')
        require_safe(host, is_encrypted=is_encrypted, insecure=insecure, place="servers")


def login_of(settings: LoginSettings, base_dir: Path) -> dict[str, Any]:
    """Brokers, TLS and SASL."""
    found: dict[str, Any] = {"bootstrap.servers": ",".join(settings.servers)}
    encrypted = settings.tls is not None
    protocol = (
        ("SASL_SSL" if encrypted else "SASL_PLAINTEXT") if settings.sasl is not None else ("SSL" if encrypted else "PLAINTEXT")
    )
    found["security.protocol"] = protocol
    if settings.sasl is not None:
        found |= {
            "sasl.mechanism": settings.sasl.mechanism,
            "sasl.username": settings.sasl.user,
            "sasl.password": settings.sasl.password,
        }
    if settings.tls is not None:
        files = {
            "ssl.ca.location": settings.tls.ca,
            "ssl.certificate.location": settings.tls.cert,
            "ssl.key.location": settings.tls.key,
        }
        found |= {key: str(base_dir / path) for key, path in files.items() if path is not None}
    return found


def our_logger(role: str, name: str) -> logging.Logger:
    """A logger for librdkafka, whose lines go into our log. ``role``: `source` or `destination`."""
    logger = logging.getLogger(f"tallystick.kafka.{role}.{name}")
    logger.handlers, logger.propagate = [_ToOurLog(role, name)], False
    return logger


class _ToOurLog(logging.Handler):
    def __init__(self, role: str, name: str) -> None:
        super().__init__(logging.INFO)
        self._role, self._of = role, name

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("kafka", **{self._role: self._of}, message=record.getMessage())
