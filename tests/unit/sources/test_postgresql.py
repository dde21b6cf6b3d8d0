"""The settings of the source `postgresql`; what it does with a server is in the integration tests, where one runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tallystick.errors import ConfigError
from tallystick.sources.postgresql import PostgresqlSettings
from tallystick.sources.postgresql_login import login_of
from tallystick.sources.remote import RemoteTlsSettings


def test_tls_is_all_or_nothing(tmp_path: Path) -> None:
    """With the table the certificate and its name are checked; without it nothing is tried that could be stripped."""
    plain = PostgresqlSettings(database="shop", user="u", password="p")
    assert login_of(plain, "shop", tmp_path)["sslmode"] == "disable"
    secure = PostgresqlSettings(database="shop", user="u", tls=RemoteTlsSettings(ca="ca.pem"))
    login = login_of(secure, "shop", tmp_path)
    assert (login["sslmode"], login["sslrootcert"]) == ("verify-full", str(tmp_path / "ca.pem"))
    assert "password" not in login
    system = PostgresqlSettings(database="shop", user="u", tls=RemoteTlsSettings())
    assert login_of(system, "shop", tmp_path)["sslrootcert"] == "system"


def test_another_machine_needs_tls_or_the_word(tmp_path: Path) -> None:
    """The password would be the lesser loss: all changed rows go over that wire."""
    with pytest.raises(ConfigError) as caught:
        PostgresqlSettings(database="shop", user="u", host="db.example.com").check(tmp_path)
    assert caught.value.place == "host"
    PostgresqlSettings(database="shop", user="u", host="db.example.com", insecure=True).check(tmp_path)
    PostgresqlSettings(database="shop", user="u", host="db.example.com", tls=RemoteTlsSettings()).check(tmp_path)
    PostgresqlSettings(database="shop", user="u", host="/run/postgresql").check(tmp_path)


def test_a_slot_is_named_as_postgresql_wants_it() -> None:
    """Lower-case letters, digits and underscores."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"database": "shop", "user": "u", "slot": "Tally-Stick"}, PostgresqlSettings)
