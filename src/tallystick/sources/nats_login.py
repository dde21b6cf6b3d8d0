"""How a source or a destination finds and logs in to NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client

from tallystick.errors import ConfigError, TallystickError
from tallystick.sources.remote import RemoteTlsSettings, check_tls, client_context, require_safe

_CONNECT_S = 10


class LoginSettings(Protocol):
    """What a settings class needs to have."""

    @property
    def servers(self) -> tuple[str, ...]: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...
    @property
    def nkey(self) -> str | None: ...
    @property
    def credentials(self) -> str | None: ...
    @property
    def tls(self) -> RemoteTlsSettings | None: ...
    @property
    def insecure(self) -> bool: ...


def check_login(settings: LoginSettings, base_dir: Path) -> None:
    """Raises ConfigError for two ways to log in, a file that is not there, what is no URL, and a connection in the clear off this machine."""
    ways = [name for name in ("user", "token", "nkey", "credentials") if getattr(settings, name) is not None]
    if len(ways) > 1:
        raise ConfigError(f"`{ways[0]}` and `{ways[1]}` are two ways to log in", place=ways[1], hint="Give one")
    if settings.credentials is not None and not (base_dir / settings.credentials).is_file():
        raise ConfigError(f"there is no file {base_dir / settings.credentials}", place="credentials")
    for server in settings.servers:
        url = urlsplit(server)
        if url.scheme not in ("nats", "tls") or not url.hostname or url.username is not None:
            hint = 'As in "nats://broker.example.com:4222"; user and password are settings of their own'
            raise ConfigError(f"{url.scheme}://{url.hostname or ''} is no URL of a NATS server", place="servers", hint=hint)
        is_encrypted = url.scheme == "tls" or settings.tls is not None
        require_safe(url.hostname, is_encrypted=is_encrypted, insecure=settings.insecure, place="servers")
    check_tls(settings.tls, base_dir)


async def connect(
    settings: LoginSettings,
    name: str,
    base_dir: Path,
    on_error: Callable[[Exception], Awaitable[None]],
    on_closed: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A connection that stays closed once it breaks. Raises TallystickError when no server can be reached or all refuse us."""
    one = settings
    tls = one.tls or RemoteTlsSettings()
    needs_tls = one.tls is not None or any(server.startswith("tls:") for server in one.servers)
    try:
        return await nats.connect(
            list(one.servers),
            name=f"tallystick {name}",
            connect_timeout=_CONNECT_S,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # tries of each server, before it counts as down
            reconnect_time_wait=0.2,
            error_cb=on_error,
            closed_cb=on_closed,
            tls=client_context(tls, base_dir) if needs_tls else None,
            user=one.user,
            password=one.password,
            token=one.token,
            nkeys_seed_str=one.nkey,
            user_credentials=str(base_dir / one.credentials) if one.credentials else None,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise TallystickError(f"no connection to {', '.join(one.servers)}: {error or type(error).__name__}") from error
