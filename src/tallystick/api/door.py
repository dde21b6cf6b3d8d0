"""The inner door: how the api process writes.

It owns no file that matters. What it must make durable (audit events, tenants, replayed records) it sends to the intake
process over ``run/intake.sock`` and answers its own caller only after the intake said "on disk".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tallystick.errors import ConflictError, NotAcceptingError, OverloadedError, TerminalError


class InnerDoor:
    """Client of the intake's inner door. Raises PushbackError kinds when the intake refuses for now, TerminalError for good."""

    def __init__(self, data_dir: Path, *, timeout_s: float = 30.0) -> None:
        self._run_dir = data_dir / "run"
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None
        self._directory = -1

    async def append_events(self, tenant: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Append to ``tenant``; the answer has ``accepted`` and ``receipts``. Returns after fdatasync."""
        return await self._call("POST", "/events", {"tenant": tenant, "events": events})

    async def append_records(self, source: str, tenant: str | None, records: list[str]) -> dict[str, Any]:
        """Send raw records through ``source``'s mapping again (a replay out of quarantine). TerminalError when they still are no events."""
        return await self._call("POST", "/records", {"source": source, "tenant": tenant, "records": records})

    async def append_entry(self, tenant: str, entry_id: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Put an entry into the tenant's account tree; one with an id that was used before is stored once."""
        return await self._call("POST", "/account", {"entries": [{"tenant": tenant, "id": entry_id, "entry": entry}]})

    async def create_tenant(self, name: str) -> dict[str, Any]:
        """Make a tenant; the answer has ``name``, ``handle`` and ``created_at``. ConflictError when it exists."""
        return await self._call("POST", "/tenants", {"name": name})

    async def status(self) -> dict[str, Any]:
        """The intake's own status page."""
        return await self._call("GET", "/status", None)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open(self) -> httpx.AsyncClient:
        # A data directory may lie deeper than the 108 bytes of sun_path: go through an open descriptor of run/.
        if self._client is None:
            self._directory = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
            transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{self._directory}/intake.sock")
            self._client = httpx.AsyncClient(transport=transport, base_url="http://intake", timeout=self._timeout_s)
        return self._client

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        content = msgspec.json.encode(body) if body is not None else None
        headers = {"content-type": "application/json"} if content is not None else {}
        try:
            response = await self._open().request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise NotAcceptingError("the intake process does not answer", hint="It is restarting; try again") from error
        if response.status_code < 300:
            answer: dict[str, Any] = msgspec.json.decode(response.content)
            return answer
        raise _error_of(response)


def _error_of(response: httpx.Response) -> Exception:
    detail, code = "", ""
    try:
        problem = msgspec.json.decode(response.content)
        detail, code = str(problem.get("detail", "")), str(problem.get("code", ""))
    except (msgspec.DecodeError, AttributeError):
        detail = f"the intake answered {response.status_code}"
    if response.status_code == 409:
        return ConflictError(detail)
    if response.status_code in (429, 503):
        kind = NotAcceptingError if code == "not_accepting" else OverloadedError
        error = kind(detail, retry_after_s=float(response.headers.get("retry-after", "1")))
        error.code = code or error.code
        return error
    if response.status_code >= 500:
        return NotAcceptingError(detail)
    return TerminalError(detail)
