"""TLS on the sources' own listeners: contexts that follow their files, and the names that a client certificate gives.

A certificate is renewed by replacing its files: within a second new connections get the new one. Files that cannot be loaded
(half written, say) leave the old context in use, with the reason in status, until they can.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallystick.config import TlsSettings
from tallystick.errors import ConfigError
from tallystick.telemetry import log

_LOOK_S = 1.0


def build_context(settings: TlsSettings, base_dir: Path) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer; with ``client_ca`` every client must show a certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    path = base_dir / settings.cert
    try:
        context.load_cert_chain(path, base_dir / settings.key)
        if settings.client_ca is not None:
            path = base_dir / settings.client_ca
            context.load_verify_locations(path)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{path} cannot be used: {error}", place="tls", hint="PEM files that this user can read") from error
    return context


class TlsFiles:
    """The context in force, made anew when one of its files has changed. ``problem``: why the newest files are not in use."""

    def __init__(self, settings: TlsSettings, base_dir: Path) -> None:
        self.problem = ""
        self._settings = settings
        self._base_dir = base_dir
        self._seen = self._stamp()
        self._context = build_context(settings, base_dir)
        self._looked_at = time.monotonic()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            stamp = self._stamp()
            if stamp != self._seen or self.problem:
                self._reload(stamp)
        return self._context

    def _reload(self, stamp: tuple[Any, ...]) -> None:
        try:
            self._context = build_context(self._settings, self._base_dir)
        except ConfigError as error:
            if not self.problem:
                log.error("new TLS files cannot be used; the old ones stay in force", error=error.message)
            self.problem = error.message
            return
        self._seen, self.problem = stamp, ""

    def _stamp(self) -> tuple[Any, ...]:
        """What tells one version of the files from another."""
        names = (self._settings.cert, self._settings.key, self._settings.client_ca)
        stamps = []
        for name in names:
            try:
                found = (self._base_dir / name).stat() if name is not None else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size) if found else None)
        return tuple(stamps)


def certificate_names(certificate: Mapping[str, Any]) -> list[str]:
    """What a verified certificate (as `ssl` gives it) calls its holder: DNS names, URIs, mail addresses, addresses, common names."""
    alternatives = certificate.get("subjectAltName", ())
    names = [str(value) for wanted in ("DNS", "URI", "email", "IP Address") for kind, value in alternatives if kind == wanted]
    for parts in certificate.get("subject", ()):
        names += [str(value) for key, value in parts if key == "commonName"]
    return names
