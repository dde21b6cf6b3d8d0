"""The watcher is watched (promise P12): what is done through the api is itself an event.

Each search, export, tail session, key change, tenant creation, replay and discard is appended as ``tallystick.*`` to the log
of the tenant it concerns, or to ``_tallystick`` when it concerns the server. The append comes first: a caller gets
an answer only after the intake accepted the audit event, and 503 otherwise. There is no switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from tallystick.api.caller import Caller
from tallystick.journal.tenants import SERVER_TENANT

_TEXT_MAX = 1_024


class EventDoor(Protocol):
    """The part of the inner door that auditing needs."""

    async def append_events(self, tenant: str, events: list[dict[str, Any]]) -> dict[str, Any]: ...


class Auditor:
    """Writes audit events; raises what the door raises, so that the caller's request fails closed."""

    def __init__(self, door: EventDoor) -> None:
        self._door = door

    async def record(
        self,
        caller: Caller,
        action: str,
        *,
        tenants: Iterable[str] = (),
        target: tuple[str, str] | None = None,
        outcome: str = "success",
        reason: str = "",
        request_id: str = "",
        severity: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Append ``tallystick.<action>`` to each of ``tenants`` (none: the server's own log). ``details`` go to metadata."""
        event: dict[str, Any] = {
            "action": f"tallystick.{action}",
            "category": "system",
            "actor": {"type": "user", "id": caller.owner, "credential": caller.key_id},
            "outcome": outcome,
        }
        if severity is not None:
            event["severity"] = severity
        if target:
            event["targets"] = [{"type": target[0], "id": _fit(target[1])}]
        if reason:
            event["reason"] = _fit(reason, 2_048)
        if request_id:
            event["context"] = {"request_id": request_id}
        event["metadata"] = {
            "via": caller.via,
            **{key: _fit(value) for key, value in (details or {}).items() if value not in (None, "")},
        }
        for tenant in tuple(tenants) or (SERVER_TENANT,):
            await self._door.append_events(tenant, [event])


def _fit(value: Any, length_max: int = _TEXT_MAX) -> Any:
    """A text as an event may hold it: cut, and what no event takes (NUL, halves of surrogate pairs) replaced by U+FFFD."""
    if not isinstance(value, str):
        return value
    return value[:length_max].replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
