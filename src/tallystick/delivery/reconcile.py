"""Reading a destination back and comparing it with the log: what is missing there, changed, or was never sent from here.

Two walks, page by page, so that a large destination holds up nobody and a broken connection costs one page:

1. *cuts*: every settled cut of the history, against what lies at its place. Equal digest: done, nothing else is read. Other bytes: the
   cut is made again from the log, and both are compared record by record, so that the finding names events.
2. *extras*: every name at the destination, against the history. A name that the history has not is an object that nobody here wrote.

A repair sends what is missing again through the destination's own `send`, and only if the log still gives the same bytes: it goes under
the same name, create-only, and never over something else. A crash in the middle of a repair leaves the object there or not; the
next run finds which. Nothing of ours is changed by either walk.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import zstandard

from tallystick.delivery.history import SettledCut
from tallystick.delivery.lane import Lane
from tallystick.delivery.reconcile_events import EventReconciler
from tallystick.delivery.walk import NAMED_MAX, PAGE_PLACES, Finding, Page, Place, Walk, make_finding, write_place
from tallystick.errors import TerminalError, TransientError
from tallystick.plugin import AnswerKind, Cut, ReadsBack, ReadsEvents

_OVERSIZE = 8
_SLACK_BYTES = 64 << 20


class Reconciler(Walk):
    """Over a destination whose cuts lie at places of their own (`plugin.ReadsBack`)."""

    def __init__(self, lane: Lane, handle: str | None, destination: ReadsBack, *, is_repairing: bool) -> None:
        super().__init__(lane, handle, is_repairing=is_repairing)
        self._destination = destination
        self._bytes_max = _OVERSIZE * lane.builder.limits.max_bytes + _SLACK_BYTES

    async def _compare(self, cut: SettledCut, page: Page) -> None:
        if (finding := await self._look_at(cut)) is not None:
            page.findings.append(finding)

    async def _look_at(self, cut: SettledCut) -> Finding | None:
        body = await self._destination.read_back(cut.place, self._bytes_max)
        if body is None:
            return await self._missing(cut, "nothing lies there", range(cut.first, cut.last + 1))
        if hashlib.sha256(body).hexdigest() != cut.sha256:
            return await self._changed(cut, body)
        if await self._destination.proof_at(cut.place, self._bytes_max) is None:
            return await self._missing(cut, "its proof is not there", ())
        return None

    async def _missing(self, cut: SettledCut, detail: str, indexes: Sequence[int]) -> Finding:
        finding = make_finding("missing", cut, detail)
        finding.events = cut.delivered if indexes else 0
        if self._is_repairing:
            made = await self._lane.in_thread(self._lane.builder.rebuild_settled, cut)
            if made is None:
                finding.detail += "; the log does not give the same bytes any more, so it was not sent again"
            else:
                await self._send_again(made, finding)
        return finding

    async def _send_again(self, made: Cut, finding: Finding) -> None:
        answer = await self._lane.destination.send(made)
        finding.is_repaired = answer.kind is AnswerKind.DELIVERED and answer.where == finding.place
        if not finding.is_repaired:
            finding.detail += f"; not repaired: {answer.reason or answer.kind.value}"

    async def _changed(self, cut: SettledCut, body: bytes) -> Finding:
        finding = make_finding("changed", cut, "other bytes than were delivered; they are left as they are")
        finding.events = cut.delivered
        made = await self._lane.in_thread(self._lane.builder.rebuild_settled, cut)
        if made is None:
            finding.detail += ", and the log does not give the same bytes any more to compare with"
            return finding
        expected = _records(made.body, made.suffix, len(made.body) * _OVERSIZE + _SLACK_BYTES)
        found = _records(body, made.suffix, self._bytes_max)
        if expected is None or found is None or len(expected) != len(made.indexes):
            finding.detail += "; their records cannot be told apart"
            return finding
        there = set(found)
        indexes = [index for index, record in zip(made.indexes, expected, strict=True) if record not in there]
        finding.events, finding.indexes = len(indexes), indexes[:NAMED_MAX]
        finding.foreign = len(there - set(expected))
        return finding

    async def _page_extras(self, place: Place) -> Page:
        account = self._lane.state.accounts.get(place.handle)
        if account is None:
            return Page(next=self._tenant_behind(place.handle))
        names = await self._destination.list_places(account.tenant, place.name, PAGE_PLACES)
        page = Page(objects=len(names))
        for name in names:
            # In this order: a cut that is settled between the two questions is in the history by then.
            if not self._lane.is_under_way(name) and not await self._is_ours(place.handle, name):
                detail = "nothing that was sent from here"
                page.findings.append(Finding(kind="extra", tenant=account.tenant, place=name, detail=detail))
        if len(names) < PAGE_PLACES:
            page.next = self._tenant_behind(place.handle)
        else:
            page.next = write_place(Place(handle=place.handle, name=names[-1]))
        return page

    async def _is_ours(self, handle: str, name: str) -> bool:
        first = self._destination.first_index_of(name)
        return first is not None and await self._lane.in_thread(self._lane.history.has_place, handle, first, name)


def _records(body: bytes, suffix: str, bytes_max: int) -> list[bytes] | None:
    """The lines of a body; None when it has no lines, is no whole frame, or grows beyond ``bytes_max``."""
    try:
        if suffix.endswith(".zst"):
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
                text = reader.read(bytes_max + 1)
        elif suffix.endswith(".gz"):
            text = zlib.decompressobj(wbits=31).decompress(body, bytes_max + 1)
        else:
            text = body
    except (zstandard.ZstdError, zlib.error):
        return None
    if len(text) > bytes_max or not text.endswith(b"\n"):
        return None
    return text[:-1].split(b"\n")


async def reconcile_page(lane: Lane, handle: str | None, after: str | None, *, is_repairing: bool) -> dict[str, Any]:
    """One page as plain data, for the control socket. Raises TerminalError, TransientError."""
    try:
        page = await _walk_over(lane, handle, is_repairing=is_repairing).page(after)
    except OSError as error:
        raise TransientError(f"the history of {lane.name} cannot be read now: {error}") from error
    found: dict[str, Any] = msgspec.to_builtins(page)
    return found


def _walk_over(lane: Lane, handle: str | None, *, is_repairing: bool) -> Walk:
    destination = lane.destination
    if isinstance(destination, ReadsBack):
        return Reconciler(lane, handle, destination, is_repairing=is_repairing)
    if isinstance(destination, ReadsEvents):
        return EventReconciler(lane, handle, destination, is_repairing=is_repairing)
    raise TerminalError(
        f"what {lane.name} holds cannot be read back",
        hint="docs/reconcile.md says which types can; for others `explain` and statements say what was acknowledged",
    )
