"""Entries for account trees, handed to the intake process: delivery receipts and statements.

The intake journals them, the sealer puts them into the tenant's account tree. Each has an id of its own that never changes, so one
handed over twice (a lost answer, a crash before it was noted) is stored once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tallystick.delivery.history import SettledCut
from tallystick.errors import ConflictError, NotAcceptingError, PushbackError, TerminalError


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tenant's account tree. ``id`` is unique per tenant and content."""

    tenant: str
    id: str
    entry: dict[str, Any]


class Door(Protocol):
    """Where entries go; returns when they are on disk."""

    async def post(self, entries: list[Entry]) -> None:
        """Raises PushbackError to be tried again, TerminalError when the intake will never take them."""


class InnerDoor:
    """Posts to ``run/intake.sock``."""

    def __init__(self, data_dir: Path, *, timeout_s: float = 30.0) -> None:
        self._run_dir = data_dir / "run"
        self._timeout_s = timeout_s

    async def post(self, entries: list[Entry]) -> None:
        body = {"entries": [{"tenant": e.tenant, "id": e.id, "entry": e.entry} for e in entries]}
        await self._call("/account", body, "an account entry")

    async def post_events(self, tenant: str, events: list[dict[str, Any]]) -> None:
        """Append events of our own. Raises PushbackError, ConflictError when an id is there with other content, else TerminalError."""
        await self._call("/events", {"tenant": tenant, "events": events}, "an event")

    async def _call(self, path: str, body: dict[str, Any], what: str) -> None:
        import httpx  # a follower with nothing to tell does not need it

        try:
            # Through an open descriptor of run/: a data directory may lie deeper than the 108 bytes of sun_path.
            directory = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{directory}/intake.sock")
                async with httpx.AsyncClient(transport=transport, base_url="http://intake", timeout=self._timeout_s) as client:
                    headers = {"content-type": "application/json"}
                    response = await client.post(path, content=msgspec.json.encode(body), headers=headers)
            finally:
                os.close(directory)
        except (httpx.HTTPError, OSError) as error:
            raise NotAcceptingError(f"the intake process does not answer: {error}") from error
        if response.status_code in (429, 503) or response.status_code >= 500:
            raise PushbackError(f"the intake answered {response.status_code}")
        if response.status_code == 409:
            raise ConflictError(f"the intake refused {what}: {response.text[:500]}")
        if response.status_code >= 300:
            raise TerminalError(f"the intake refused {what}: {response.status_code} {response.text[:500]}")


def delivery_entry(destination: str, cut: SettledCut) -> Entry:
    """The delivery receipt of a settled cut: range, digest, what was delivered where, and what was not."""
    entry: dict[str, Any] = {
        "type": "delivery",
        "destination": destination,
        "first_index": cut.first,
        "last_index": cut.last,
        "delivered": cut.delivered,
        "filtered": cut.filtered,
        "dead_lettered": len(cut.dead),
        "sha256": cut.sha256,
        "where": cut.place,
        "answer": cut.outcome,
        "attempts": cut.attempts,
        "replay": cut.is_replay,
        "settled_at": cut.settled_at,
    }
    return Entry(cut.tenant, f"delivery:{destination}:{cut.id}:{cut.first}-{cut.last}:{cut.sha256[:16]}", entry)


def statement_entry(destination: str, tenant: str, digest: str, note: str) -> Entry:
    """The entry of a signed statement; ``digest`` is the SHA-256 of the note, in hexadecimal."""
    return Entry(tenant, f"statement:{destination}:{digest[:32]}", {"type": "statement", "destination": destination, "note": note})
