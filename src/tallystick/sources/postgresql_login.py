"""How a source or a destination logs in to PostgreSQL: its settings as libpq's connection parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tallystick.sources.remote import RemoteTlsSettings


class LoginSettings(Protocol):
    """What a settings class needs to have."""

    @property
    def database(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str | None: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> RemoteTlsSettings | None: ...


def login_of(settings: LoginSettings, name: str, base_dir: Path) -> dict[str, Any]:
    """libpq's connection parameters."""
    login: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "dbname": settings.database,
        "user": settings.user,
        "application_name": f"tallystick {name}",
        "client_encoding": "UTF8",
        "connect_timeout": 10,
        "sslmode": "disable",
    }
    if settings.password is not None:
        login["password"] = settings.password
    if settings.tls is not None:
        files = {"sslcert": settings.tls.cert, "sslkey": settings.tls.key}
        login |= {key: str(base_dir / path) for key, path in files.items() if path is not None}
        root = str(base_dir / settings.tls.ca) if settings.tls.ca is not None else "system"
        login |= {"sslmode": "verify-full", "sslrootcert": root, "ssl_min_protocol_version": "TLSv1.2"}
    return login
