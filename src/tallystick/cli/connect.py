"""The way from a verb to a server."""

from __future__ import annotations

from tallystick.client import Client

PATIENCE_S = 10.0


def connect(url: str | None, key: str | None) -> Client:
    """A client for a person who waits: it outlasts a restart of the server, and says after ten seconds that none is there."""
    return Client(url, key, patience_s=PATIENCE_S)
