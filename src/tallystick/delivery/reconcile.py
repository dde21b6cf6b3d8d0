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
import time
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import zstandard
from msgspec import Meta

from tallystick.delivery.history import CutKey, SettledCut
from tallystick.delivery.lane import Lane
from tallystick.delivery.settlement import VOIDED
from tallystick.errors import TerminalError, TransientError
from tallystick.plugin import AnswerKind, Cut, ReadsBack

PAGE_CUTS = 32
PAGE_PLACES = 1_000
PAGE_S = 5.0
"""A page ends after so long, so that its answer comes before the asker gives up."""
NAMED_MAX = 1_000
"""Indexes named in one finding; its count is exact all the same."""
_OVERSIZE = 8
_SLACK_BYTES = 64 << 20

Kind = Literal["missing", "changed", "extra"]


class Finding(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One difference. ``indexes`` are the events that it is about, as far as they can be named; ``foreign``: records that no event gives."""

    kind: Kind
    tenant: str
    place: str
    detail: str
    first_index: int | None = None
    last_index: int | None = None
    events: int = 0
    indexes: list[int] = []
    foreign: int = 0
    is_repaired: bool = False


class Page(msgspec.Struct, kw_only=True):
    """One step of a walk. ``next`` goes into the next call; None: all was compared."""

    cuts: int = 0
    events: int = 0
    objects: int = 0
    findings: list[Finding] = []
    next: str | None = None


_Number = Annotated[int, Meta(ge=-1, lt=1 << 62)]


class _Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a walk stands: behind this cut, or, with ``handle``, in the names of that tenant, behind this one."""

    cut: tuple[str, bool, _Number, _Number] | None = None
    handle: str = ""
    name: str = ""


class Reconciler:
    """Over one lane, for all tenants or the one with this handle. Raises TerminalError where nothing can be read back."""

    def __init__(self, lane: Lane, handle: str | None, *, is_repairing: bool) -> None:
        if not isinstance(lane.destination, ReadsBack):
            raise TerminalError(
                f"what {lane.name} holds cannot be read back",
                hint="Destinations of type object_store can; for others `explain` and statements say what was acknowledged",
            )
        self._lane = lane
        self._destination: ReadsBack = lane.destination
        self._handle = handle
        self._is_repairing = is_repairing
        self._bytes_max = _OVERSIZE * lane.builder.limits.max_bytes + _SLACK_BYTES

    async def page(self, after: str | None) -> Page:
        """The next page. Raises TerminalError for a place that no page gave, TransientError when one side cannot be read now."""
        place = _read_place(after)
        if place.handle and self._handle not in (None, place.handle):
            raise TerminalError("`after` is from a walk over another tenant", hint="Give `next` of the page before")
        return await (self._page_extras(place) if place.handle else self._page_cuts(place.cut))

    async def _page_cuts(self, after: CutKey | None) -> Page:
        cuts = await self._lane.in_thread(self._lane.history.page, after, PAGE_CUTS, self._handle)
        page, end = Page(), time.monotonic() + PAGE_S
        for cut in cuts:
            if cut.outcome != VOIDED and cut.delivered and cut.place:
                page.cuts += 1
                page.events += cut.delivered
                if (finding := await self._compare(cut)) is not None:
                    page.findings.append(finding)
            page.next = _write_place(_Place(cut=cut.key))
            if time.monotonic() > end:
                return page
        if len(cuts) < PAGE_CUTS:
            page.next = self._tenant_behind("")
        return page

    def _tenant_behind(self, handle: str) -> str | None:
        """The place where the walk over names begins with the next tenant that anything was ever sent of."""
        handles = sorted(self._lane.state.accounts) if self._handle is None else [self._handle]
        following = next((other for other in handles if other > handle), None)
        return None if following is None else _write_place(_Place(handle=following))

    async def _compare(self, cut: SettledCut) -> Finding | None:
        body = await self._destination.read_back(cut.place, self._bytes_max)
        if body is None:
            return await self._missing(cut, "nothing lies there", range(cut.first, cut.last + 1))
        if hashlib.sha256(body).hexdigest() != cut.sha256:
            return await self._changed(cut, body)
        if await self._destination.proof_at(cut.place, self._bytes_max) is None:
            return await self._missing(cut, "its proof is not there", ())
        return None

    async def _missing(self, cut: SettledCut, detail: str, indexes: Sequence[int]) -> Finding:
        finding = _finding("missing", cut, detail)
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
        finding = _finding("changed", cut, "other bytes than were delivered; they are left as they are")
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

    async def _page_extras(self, place: _Place) -> Page:
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
            page.next = _write_place(_Place(handle=place.handle, name=names[-1]))
        return page

    async def _is_ours(self, handle: str, name: str) -> bool:
        first = self._destination.first_index_of(name)
        return first is not None and await self._lane.in_thread(self._lane.history.has_place, handle, first, name)


def _finding(kind: Kind, cut: SettledCut, detail: str) -> Finding:
    return Finding(kind=kind, tenant=cut.tenant, place=cut.place, detail=detail, first_index=cut.first, last_index=cut.last)


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


def _read_place(text: str | None) -> _Place:
    try:
        return _Place() if text is None else msgspec.json.decode(text, type=_Place)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TerminalError("`after` is no place of a walk", hint="Give `next` of the page before") from error


def _write_place(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


async def reconcile_page(lane: Lane, handle: str | None, after: str | None, *, is_repairing: bool) -> dict[str, Any]:
    """One page as plain data, for the control socket. Raises TerminalError, TransientError."""
    try:
        page = await Reconciler(lane, handle, is_repairing=is_repairing).page(after)
    except OSError as error:
        raise TransientError(f"the history of {lane.name} cannot be read now: {error}") from error
    found: dict[str, Any] = msgspec.to_builtins(page)
    return found
