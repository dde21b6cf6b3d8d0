"""Carries out what was approved, and turns the generations of people's keys (`archive.erasure` has the steps)."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import UTC, datetime

from tallystick.api.deps import ApiDeps
from tallystick.archive.certificate import RANGES_MAX, runs_of
from tallystick.archive.erasure import Erasure, Erasures
from tallystick.archive.hold import Holds, held_places
from tallystick.errors import TallystickError, TransientError
from tallystick.event.times import format_utc
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import joined_root
from tallystick.privacy.seal import from_text
from tallystick.query.evaluate import compile_query
from tallystick.query.request import SearchRequest
from tallystick.telemetry import log

_PAGE = 1_000


class Eraser:
    """A task of the api's process; `step` does all that can be done now."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._register: Erasures = deps.erasures
        self._subjects = deps.opener.subjects

    async def run(self) -> None:
        """Until cancelled. What fails is said in the log and in the request, and tried again."""
        settings = self._deps.config.erasure
        while True:
            try:
                await self.step()
            except (TallystickError, OSError) as error:
                log.error("erasures wait", error=str(error))
            await asyncio.sleep(settings.interval.seconds)

    async def step(self) -> None:
        """One look at everything. Raises OSError, IntegrityError, PushbackError."""
        deps, settings = self._deps, self._deps.config.erasure
        erasures = await deps.reads.run(self._register.load)
        if deps.config.privacy or erasures:
            await deps.reads.run(lambda: self._subjects.rotate(settings.rotate.seconds, settings.destroy.seconds))
        for one in erasures:
            if one.state in ("approved", "erasing") and one.due_at <= time.time():
                await self._erase(one)
            elif one.state == "erased":
                await self._finish(one)

    async def _erase(self, one: Erasure) -> None:
        deps = self._deps
        if one.entry is None:
            await deps.searches.run(lambda: self._prepare(one))
            await self._save(one)
            if one.entry is None:
                return
        await deps.door.append_entry(one.tenant, f"erasure:{one.id}", one.entry)
        tombstone_s = deps.config.erasure.tombstone.seconds
        one.generation = await deps.reads.run(
            lambda: self._subjects.erase(one.handle, one.subject, from_text(one.skid), tombstone_s)
        )
        one.erased_at, one.subject = _now(), ""
        await self._save(one)
        log.info("a person's key is destroyed", erasure=one.id, events=one.entry["count"])

    def _prepare(self, one: Erasure) -> None:
        """Step 1: ``entry``, or ``waiting_for`` when a hold keeps an affected event. Blocking."""
        found = self._affected(one)
        indexes, lines = list(found), list(found.values())
        held = held_places(Holds(self._deps.data_dir).load(), one.handle, lines, compile_query)
        if held:
            one.waiting_for = f"{len(held)} of its events are held by {', '.join(sorted(set(held.values())))}"
            return
        ranges = runs_of(indexes)
        one.waiting_for = ""
        one.entry = {
            "type": "erasure",
            "at": _now(),
            "erasure": one.id,
            "subject": one.skid,
            "basis": one.basis,
            "approvals": [{"owner": approval.owner, "by": approval.by, "at": approval.at} for approval in one.approvals],
            "generation": self._subjects.generations().current,
            "count": len(indexes),
            "ranges": ranges[:RANGES_MAX],
            "root": base64.b64encode(joined_root(event_hashes(lines))).decode(),
        }

    def _affected(self, one: Erasure) -> dict[int, bytes]:
        """Index → line of every event with a group of that person, archived or not, in order."""
        found: dict[int, bytes] = {}
        cursor: str | None = None
        while True:
            request = SearchRequest((one.tenant,), f'sealed.subject:"{one.skid}"', None, None, "received_at", "asc", _PAGE, cursor)
            page = self._deps.engine.search(request)
            if page.partial:
                raise TransientError("the affected events could not be found in time", hint="Raise [query] time")
            found |= dict(zip(page.indexes, page.events, strict=True))
            cursor = page.next
            if cursor is None:
                return dict(sorted(found.items()))

    async def _finish(self, one: Erasure) -> None:
        if self._subjects.generations().destroyed < one.generation:
            return
        at = _now()
        entry = {"type": "erasure-final", "at": at, "erasure": one.id, "subject": one.skid, "generation": one.generation}
        await self._deps.door.append_entry(one.tenant, f"erasure-final:{one.id}", entry)
        one.final_at = at
        await self._save(one)

    async def _save(self, one: Erasure) -> None:
        """Replace the request in the register, unless it was cancelled meanwhile: then what was fixed is forgotten."""

        def change(erasures: list[Erasure]) -> None:
            for place, other in enumerate(erasures):
                if other.id == one.id:
                    if other.cancelled_by:
                        one.entry = None
                    else:
                        erasures[place] = one

        await self._deps.reads.run(lambda: self._register.change(change))


def _now() -> str:
    return format_utc(datetime.now(UTC))
