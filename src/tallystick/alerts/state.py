"""What state an alert is in: told by the log itself, and kept nowhere else. Pure.

An alert is an event (`tallystick.alert`), and so is every change of its state: `tallystick.alert.acknowledge`, `.close`, `.reopen`, in the
log of the same tenant, with who did it and a note. The last change by index decides; without one the alert is open. So the state
has the promises of every event (durable before the answer, sealed, searchable, delivered), there is no second copy that could
differ from it, and nothing has to be rebuilt after a crash. The price is a search for the changes each time it is asked: these are made by
people, and few.

Only what the server itself wrote counts: a sender may call its events anything, but the source's name is the server's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from tallystick.alerts.engine import ACTION
from tallystick.alerts.rule import SEVERITIES

State = Literal["open", "acknowledged", "closed"]
Verb = Literal["acknowledge", "close", "reopen"]

LEADS_TO: Final[dict[Verb, State]] = {"acknowledge": "acknowledged", "close": "closed", "reopen": "open"}
FROM: Final[dict[Verb, tuple[State, ...]]] = {
    "acknowledge": ("open",),
    "close": ("open", "acknowledged"),
    "reopen": ("acknowledged", "closed"),
}
"""In which states something can be done at all."""
OWN: Final = "source.name:tallystick"
QUERY: Final = f"action:{ACTION} AND {OWN}"
CHANGES: Final = f"action:{ACTION}.* AND {OWN}"
_WORDS: Final = {number: name for name, number in SEVERITIES.items()}


class _Actor(msgspec.Struct):
    id: str = ""


class _Target(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""


class _Line(msgspec.Struct):
    id: str
    action: str
    received_at: str
    occurred_at: str
    actor: _Actor
    tenant: str = ""
    severity: int = 0
    targets: list[_Target] = []
    reason: str = ""
    metadata: dict[str, Any] = {}


_read = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True, slots=True)
class Change:
    """One step of an alert: ``by`` is the owner of the key, ``at`` when it was received."""

    state: State
    by: str
    at: str
    note: str


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """An alert as it was raised. ``severity`` in words, ``events`` the ids of what fired it, ``actor`` who did the last of them."""

    id: str
    tenant: str
    rule: str
    title: str
    description: str
    severity: str
    level: int
    raised_at: str
    first_at: str
    last_at: str
    count: int
    group: dict[str, str]
    actor: str
    action: str
    events: list[str]
    attack: list[str]


def read_alert(line: bytes) -> RaisedAlert:
    """An alert out of its line."""
    event = _read(line)
    facts = event.metadata
    return RaisedAlert(
        id=event.id,
        tenant=event.tenant,
        rule=str(facts.get("rule", "")),
        title=event.targets[0].name if event.targets else "",
        description=event.reason,
        severity=str(facts.get("severity") or _WORDS.get(event.severity, "")),
        level=event.severity,
        raised_at=event.received_at,
        first_at=str(facts.get("first_at", "")),
        last_at=str(facts.get("last_at", event.occurred_at)),
        count=int(facts.get("count", 1)),
        group={str(name): str(value) for name, value in (facts.get("group") or {}).items()},
        actor=str((facts.get("actor") or {}).get("id", "")),
        action=str(facts.get("action", "")),
        events=[str(one) for one in facts.get("events") or []],
        attack=[str(one) for one in facts.get("attack") or []],
    )


def read_changes(lines: Iterable[bytes]) -> dict[str, list[Change]]:
    """Changes by alert, in the order of ``lines``, which is the order of the log."""
    found: dict[str, list[Change]] = {}
    for line in lines:
        event = _read(line)
        state = LEADS_TO.get(event.action.rpartition(".")[2])  # type: ignore[call-overload]
        alert = str(event.metadata.get("alert", ""))
        if state is not None and alert:
            found.setdefault(alert, []).append(Change(state, event.actor.id, event.received_at, event.reason))
    return found
