"""What sources and destinations that connect to another server share: TLS, and the rule that nothing goes in the clear off this machine."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from tallystick.config.settings import Settings
from tallystick.errors import ConfigError


class RemoteTlsSettings(Settings, frozen=True):
    """`tls = {…}` of a source or destination that connects: the other side's certificate is always checked."""

    ca: Annotated[str | None, Meta(description="CA certificates that the server's must come from, PEM; absent: the system's.")] = (
        None
    )
    cert: Annotated[str | None, Meta(description="Own certificate chain, PEM, for mutual TLS.")] = None
    key: Annotated[str | None, Meta(description="Private key of `cert`, PEM.")] = None


def check_tls(tls: RemoteTlsSettings | None, base_dir: Path) -> None:
    """That the files are there and belong together. Raises ConfigError."""
    if tls is not None:
        client_context(tls, base_dir)


def rooted_tls(tls: RemoteTlsSettings | None, base_dir: Path) -> RemoteTlsSettings | None:
    """The same with absolute paths."""
    if tls is None:
        return None
    files = {name: getattr(tls, name) for name in ("ca", "cert", "key")}
    return RemoteTlsSettings(**{name: None if path is None else str(base_dir / path) for name, path in files.items()})


def client_context(tls: RemoteTlsSettings, base_dir: Path) -> ssl.SSLContext:
    """A client's context, TLS 1.2 or newer. Raises ConfigError."""
    if (tls.cert is None) != (tls.key is None):
        raise ConfigError("`cert` and `key` belong together", place="tls")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    path = base_dir
    try:
        if tls.ca is not None:
            path = base_dir / tls.ca
            context.load_verify_locations(path)
        if tls.cert is not None and tls.key is not None:
            path = base_dir / tls.cert
            context.load_cert_chain(path, base_dir / tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{path} cannot be used: {error}", place="tls", hint="PEM files that this user can read") from error
    return context


def require_safe(host: str, *, is_encrypted: bool, insecure: bool, place: str) -> None:
    """Raises ConfigError for a connection in the clear to another machine, unless ``insecure`` says so."""
    if is_encrypted or insecure or is_local(host):
        return
    raise ConfigError(
        f"{host} would be talked to in the clear",
        place=place,
        hint="Give it `tls = {}`, or say `insecure = true` on a private network",
    )


def is_local(host: str) -> bool:
    """True for this machine: a loopback address, `localhost`, or the path of a Unix socket."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
