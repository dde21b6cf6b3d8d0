"""The retention policy in force: the last `policy` entry of the root log, and how the next one follows from the configuration.

    {"type":"policy","salt","at","classes":{class: period, …},"tenants":{handle: {class: period, …}, …},"coming":[…]}

``tenants`` has those with periods of their own. Rules:

1. A longer period is in force at once, and a new class too.
2. A shorter one is announced in ``coming`` as ``{"tenant": handle or "", "class", "period", "from"}`` and is in force from
   then on: whoever wants to be rid of events by a change of the configuration has to wait, in the open. Naming another period
   begins the wait anew; taking the change back ends it.
3. A class or a tenant's own period that the configuration does not name any more stays as it was, or is shortened by rule 2: so
   removing a class and naming it again is no way around the wait.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.config.units import Duration


class Coming(msgspec.Struct, frozen=True):
    """A shorter period that waits. ``tenant``: a handle, "" for all; ``at``: RFC 3339, when it will be in force."""

    tenant: str
    retention_class: str = msgspec.field(name="class")
    period: str
    at: str = msgspec.field(name="from")


class Policy(msgspec.Struct, frozen=True):
    """Periods as durations ("400d") by class, and by handle and class for tenants with their own."""

    classes: dict[str, str] = {}
    tenants: dict[str, dict[str, str]] = {}
    coming: tuple[Coming, ...] = ()

    def period(self, handle: str, retention_class: str) -> str | None:
        """How long events of a tenant and class are kept; None: for ever."""
        return self.tenants.get(handle, {}).get(retention_class, self.classes.get(retention_class))

    def seconds(self, handle: str, retention_class: str) -> float | None:
        """The same in seconds."""
        period = self.period(handle, retention_class)
        return None if period is None else Duration(period).seconds


def read_policy(entry: dict[str, Any]) -> Policy:
    """The policy in a `policy` entry. Raises ValueError."""
    try:
        policy = msgspec.convert(entry, Policy)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    for period in [*policy.classes.values(), *(one for own in policy.tenants.values() for one in own.values())]:
        Duration(period)
    return policy


def next_policy(current: Policy | None, wanted: Policy, now: float, delay_s: float) -> Policy:
    """What is in force at Unix second ``now`` when the configuration says ``wanted``."""
    if current is None:
        return Policy(wanted.classes, wanted.tenants)
    step = _Step(current, now, delay_s)
    classes = {name: step.take("", name, period, current.classes.get(name)) for name, period in wanted.classes.items()}
    tenants: dict[str, dict[str, str]] = {}
    for handle in sorted(wanted.tenants.keys() | current.tenants.keys()):
        asked, had = wanted.tenants.get(handle, {}), current.tenants.get(handle, {})
        own: dict[str, str] = {}
        for name in sorted(asked.keys() | had.keys()):
            period = asked.get(name) or wanted.classes.get(name)
            own[name] = had[name] if period is None else step.take(handle, name, period, current.period(handle, name))
            if name not in asked and own[name] == period:
                del own[name]  # the tenant is as all others again
        if own:
            tenants[handle] = own
    return Policy({**current.classes, **classes}, tenants, tuple(step.coming))


class _Step:
    """One look at all periods."""

    def __init__(self, current: Policy, now: float, delay_s: float) -> None:
        self._waiting = {(one.tenant, one.retention_class): one for one in current.coming}
        self._now = now
        self._delay_s = delay_s
        self.coming: list[Coming] = []

    def take(self, handle: str, name: str, wanted: str, current: str | None) -> str:
        """The period in force now: ``wanted``, or ``current`` while a shorter one waits."""
        if current is None or Duration(wanted).seconds >= Duration(current).seconds:
            return wanted
        waiting = self._waiting.get((handle, name))
        if waiting is None or waiting.period != wanted:
            waiting = Coming(handle, name, wanted, time_text(self._now + self._delay_s))
        if datetime.fromisoformat(waiting.at).timestamp() <= self._now:
            return wanted
        self.coming.append(waiting)
        return current


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
