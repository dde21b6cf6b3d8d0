"""What notifications for people share: the facts that they tell of an event, and their manners. Pure, but for `Manners`' memory.

Manners, beside `where` (what is told at all) and `batch` (how many events share a message, and how long one waits for more):

interval    least time between two messages.
repeat      for so long after an alert was told, further alerts of its rule and group make no message of their own. They ride along
            with the next message that has anything new; a cut with nothing new is settled as delivered, and its `where` names
            the message that told of it. Alarms and changes of state are always new. The memory is the process's: after a restart an
            alert may be told once more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

ALERT: Final = "tallystick.alert"
_MEMORY = 10_000
_LEVELS: Final = ("", "informational", "low", "medium", "high", "critical", "fatal")


class Thing(msgspec.Struct):
    """An actor or a target, as far as people are told of it."""

    type: str = ""
    id: str = ""
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.id or self.type


class Notice(msgspec.Struct):
    """An event, as far as people are told of it."""

    tenant: str
    action: str
    occurred_at: str
    id: str
    actor: Thing
    severity: int = 0
    targets: list[Thing] = []
    outcome: str = "unknown"
    reason: str = ""
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}

    @property
    def level(self) -> str:
        """The severity in words; empty for 0."""
        return _LEVELS[self.severity] if 0 <= self.severity < len(_LEVELS) else ""

    @property
    def subject(self) -> str:
        """What it is about: of an alert the rule's title, with what was done about it; of an alarm its name; else the action."""
        if self.action.startswith(ALERT + "."):
            return f"{self.metadata.get('title', '')}: {self.action.rpartition('.')[2]}"
        is_own = self.action.startswith((ALERT, "tallystick.alarm"))
        return self.targets[0].called if is_own and self.targets else self.action

    @property
    def alert(self) -> str:
        """The id of the alert that it is, or that it changes the state of; empty for other events."""
        if self.action == ALERT:
            return self.id
        return str(self.metadata.get("alert", "")) if self.action.startswith(ALERT + ".") else ""

    @property
    def group(self) -> tuple[str, ...]:
        """Tenant, rule and values of the group that an alert is about, also of a change of its state; else tenant and id."""
        values = self.metadata.get("group")
        if not self.alert or not isinstance(values, dict):
            return self.tenant, "", self.id
        return self.tenant, str(self.metadata.get("rule", "")), *(f"{name}={value}" for name, value in values.items())


read_notice = msgspec.json.Decoder(Notice).decode
"""One canonical line."""


class Manners:
    """The pace of one destination's messages and what they told lately; for one task at a time."""

    def __init__(self, interval_s: float, repeat_s: float) -> None:
        self._interval_s = interval_s
        self._repeat_s = repeat_s
        self._free_at = 0.0
        self._told: OrderedDict[tuple[str, ...], tuple[float, str]] = OrderedDict()

    async def wait(self) -> None:
        """Until the next message may go."""
        await asyncio.sleep(max(0.0, self._free_at - _now()))

    def sent(self, lines: Iterable[bytes], name: str, *, is_delivered: bool) -> None:
        """A message called ``name`` went out just now, and was taken or not."""
        self._free_at = _now() + self._interval_s
        if not is_delivered or not self._repeat_s:
            return
        for notice in map(read_notice, lines):
            if notice.action == ALERT and notice.group not in self._still_told():
                self._told[notice.group] = (_now() + self._repeat_s, name)
        while len(self._told) > _MEMORY:
            self._told.popitem(last=False)

    def told_by(self, lines: Iterable[bytes]) -> str:
        """The name of the message that told of all of these lately; empty when one of them is news."""
        told = self._still_told()
        if not told:
            return ""
        name = ""
        for notice in map(read_notice, lines):
            if notice.action != ALERT or notice.group not in told:
                return ""
            name = told[notice.group][1]
        return name

    def _still_told(self) -> OrderedDict[tuple[str, ...], tuple[float, str]]:
        """All live as long, so the oldest end first."""
        while self._told and next(iter(self._told.values()))[0] <= _now():
            self._told.popitem(last=False)
        return self._told


def _now() -> float:
    return asyncio.get_running_loop().time()


def one_line(text: str, longest: int = 120) -> str:
    """Without breaks and control characters, and cut."""
    flat = "".join(" " if not letter.isprintable() else letter for letter in text)
    flat = " ".join(flat.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
