"""One source's way to the intake service: what `plugin.Intake` promises, kept with the service's ordinary steps.

1. Every commit is one draft in quarantine mode. What the journal or a quota refuses for now is tried again, with growing waits,
   until it is taken or the server stops; status and metrics say so meanwhile.
2. Records that a draft refuses as a whole (one names a tenant that is not its sender's, or a container holds too many events) are
   tried in halves, so that in the end only the record at fault goes to the quarantine and the others keep their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import Counter

from tallystick.delivery.retry import backoff_s
from tallystick.errors import EventInvalidError, NotAcceptingError, PushbackError
from tallystick.journal.entries import AccountEntry, Append
from tallystick.plugin import Decoded, Record, Sender, Taken
from tallystick.sources.intake import DEFAULT_TENANT, IntakeService
from tallystick.sources.naming import name_by_place
from tallystick.sources.plan import SourcePlan
from tallystick.sources.refusal import TOO_MANY_EVENTS
from tallystick.sources.submission import Bad, Draft, ForbiddenTenantError, InvalidBatchError

T = TypeVar("T")

RETRY_MIN_S = 0.05
RETRY_MAX_S = 5.0
_PUSHBACKS = Counter("tallystick_source_pushbacks", "Commits of a source that were refused for now and tried again.", ["source"])


class Inlet:
    """`plugin.Intake` of one source. ``give_up`` ends the waiting; what was not taken by then stays with its sender."""

    def __init__(self, service: IntakeService, plan: SourcePlan, give_up: asyncio.Event) -> None:
        self.pushback = ""  # why the last commit is being waited for, empty when none is
        self._service = service
        self.plan = plan
        self._give_up = give_up
        self._own = Sender("", (plan.tenant or DEFAULT_TENANT,))
        self._pushbacks = _PUSHBACKS.labels(plan.name)

    async def commit_records(self, records: Sequence[Record], sender: Sender | None = None) -> Taken:
        """See `plugin.Intake`."""
        total = _NOTHING
        waiting = [list(records)] if records else []
        while waiting:
            part = waiting.pop()
            try:
                done = await self._commit_mapped(part, sender or self._own)
            except (ForbiddenTenantError, InvalidBatchError) as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                    continue
                fault = error.bad[0].error if isinstance(error, InvalidBatchError) else None
                code = TOO_MANY_EVENTS if fault is not None and fault.code == TOO_MANY_EVENTS else error.code
                message = fault.message if fault is not None else error.message
                done = await self._commit_bad(part, code, message, sender or self._own)
            total = _sum(total, done)
        return total

    async def commit_decoded(self, decode: Callable[[], Decoded], size: int, sender: Sender | None = None, peer: str = "") -> Taken:
        """See `plugin.Intake`."""
        draft = self._draft(sender or self._own, peer)
        await self._service.decode(draft, size, decode)
        return await self._commit(draft)

    async def record_gap(self, gap_id: str, facts: Mapping[str, Any], sender: Sender | None = None) -> None:
        """See `plugin.Intake`."""
        await self._patiently(self._append_gap, gap_id, facts, sender or self._own)

    async def record_own(self, event: Mapping[str, Any]) -> None:
        """See `plugin.Intake`."""
        await self._service.record(dict(event))

    async def _commit_mapped(self, records: list[Record], sender: Sender) -> Taken:
        draft = self._draft(sender, records[0].peer)
        if self.plan.mapping is None:
            self._service.read_records(draft, [record.data for record in records])
            if name_by_place(draft.events, [records[line - 1].id for line in draft.lines]):
                draft.said = ()
        else:
            await self._service.map_records(draft, records)
        return await self._commit(draft)

    async def _commit_bad(self, records: list[Record], code: str, message: str, sender: Sender) -> Taken:
        draft = self._draft(sender, records[0].peer)
        draft.bad = [Bad(record.line, EventInvalidError(message, line=record.line, code=code), record.data) for record in records]
        return await self._commit(draft)

    async def _commit(self, draft: Draft) -> Taken:
        prepared = await self._patiently(self._service.prepare, draft)
        outcome = await self._patiently(self._service.append, prepared)
        return Taken(outcome.accepted, outcome.duplicates, outcome.filtered, len(outcome.bad), outcome.received_at)

    async def _append_gap(self, gap_id: str, facts: Mapping[str, Any], sender: Sender) -> None:
        tenant = self._service.tenant(self.plan.tenant or sender.only_tenant or DEFAULT_TENANT)
        entry = {"type": "gap", "source": self.plan.name, **facts}
        await self._service.journal.append(
            Append(account=[AccountEntry(handle=tenant.handle, id=f"gap:{self.plan.name}:{gap_id}", entry=entry)])
        )

    def _draft(self, sender: Sender, peer: str) -> Draft:
        return self._service.draft(self.plan, sender, peer=peer)

    async def _patiently(self, attempt: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Try until the intake takes it (rule 1). Raises NotAcceptingError when the server stops."""
        failures = 0
        try:
            while True:
                try:
                    return await attempt(*arguments)
                except PushbackError as error:
                    failures += 1
                    self._pushbacks.inc()
                    self.pushback = error.message
                    await self._wait(backoff_s(failures, RETRY_MIN_S, RETRY_MAX_S), error)
        finally:
            self.pushback = ""

    async def _wait(self, seconds: float, error: PushbackError) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._give_up.wait()
        except TimeoutError:
            return
        raise NotAcceptingError(f"the server stops, and could not take this: {error.message}") from error


_NOTHING = Taken(0, 0, 0, 0, "")


def _sum(one: Taken, other: Taken) -> Taken:
    return Taken(
        one.accepted + other.accepted,
        one.duplicates + other.duplicates,
        one.filtered + other.filtered,
        one.quarantined + other.quarantined,
        other.received_at,
    )
