"""The settings of the source `kafka`; what it does with a broker is in the integration tests, where one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallystick.errors import ConfigError
from tallystick.sources.kafka import KafkaSettings, configuration_of
from tallystick.sources.kafka_login import SaslSettings
from tallystick.sources.remote import RemoteTlsSettings

SASL = SaslSettings(mechanism="SCRAM-SHA-512", user="u", password="p")


@pytest.mark.parametrize(
    ("sasl", "tls", "protocol"),
    [
        (None, None, "PLAINTEXT"),
        (None, RemoteTlsSettings(), "SSL"),
        (SASL, None, "SASL_PLAINTEXT"),
        (SASL, RemoteTlsSettings(ca="ca.pem", cert="c.pem", key="c.key"), "SASL_SSL"),
    ],
)
def test_the_protocol_follows_from_login_and_tls(
    tmp_path: Path, sasl: SaslSettings | None, tls: RemoteTlsSettings | None, protocol: str
) -> None:
    """Nobody names it twice; paths are relative to the configuration, and offsets are never committed by the library."""
    found = configuration_of(KafkaSettings(topics=("t",), sasl=sasl, tls=tls), "orders", tmp_path)
    assert found["security.protocol"] == protocol
    assert found.get("sasl.password") == ("p" if sasl else None)
    assert found.get("ssl.ca.location") == (str(tmp_path / "ca.pem") if tls and tls.ca else None)
    assert found["enable.auto.commit"] is False


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"servers": ("broker",)}, "servers"),
        ({"servers": ("kafka://127.0.0.1:9092",)}, "servers"),
        ({"servers": ("broker.example.com:9092",)}, "servers"),
        ({"tls": RemoteTlsSettings(ca="missing.pem")}, "tls"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, options: dict[str, Any], place: str) -> None:
    """Each with the name of the setting at fault; a broker elsewhere needs TLS or the word."""
    with pytest.raises(ConfigError) as caught:
        KafkaSettings(topics=("t",), **options).check(tmp_path)
    assert caught.value.place == place
    KafkaSettings(topics=("t",), servers=("broker.example.com:9092",), insecure=True).check(tmp_path)
