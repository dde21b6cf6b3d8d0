"""What walks over a destination's content have in common: cuts first, page by page, then what else lies there, tenant by tenant.

A walk's place is plain data that goes out with a page and comes back with the next call, so that nothing is held between two pages.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tallystick.delivery.history import CutKey, SettledCut
from tallystick.delivery.lane import Lane
from tallystick.delivery.settlement import VOIDED
from tallystick.errors import TerminalError

PAGE_CUTS = 32
PAGE_PLACES = 1_000
PAGE_S = 5.0
"""A page ends after so long, so that its answer comes before the asker gives up."""
NAMED_MAX = 1_000
"""Indexes named in one finding; its count is exact all the same."""

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
    """One step of a walk. ``next`` goes into the next call; None: all was compared. ``uncompared``: events that the log gives no more."""

    cuts: int = 0
    events: int = 0
    objects: int = 0
    uncompared: int = 0
    findings: list[Finding] = []
    next: str | None = None


_Number = Annotated[int, Meta(ge=-1, lt=1 << 62)]


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a walk stands: behind this cut, or, with ``handle``, in the names of that tenant, behind this one."""

    cut: tuple[str, bool, _Number, _Number] | None = None
    handle: str = ""
    name: str = ""


class Walk:
    """Over one lane, for all tenants or the one with this handle. Whoever extends it compares one cut, and one tenant's names."""

    def __init__(self, lane: Lane, handle: str | None, *, is_repairing: bool) -> None:
        self._lane = lane
        self._handle = handle
        self._is_repairing = is_repairing

    async def page(self, after: str | None) -> Page:
        """The next page. Raises TerminalError for a place that no page gave, TransientError when one side cannot be read now."""
        place = read_place(after)
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
                await self._compare(cut, page)
            page.next = write_place(Place(cut=cut.key))
            if time.monotonic() > end:
                return page
        if len(cuts) < PAGE_CUTS:
            page.next = self._tenant_behind("")
        return page

    def _tenant_behind(self, handle: str) -> str | None:
        """The place where the walk over names begins with the next tenant that anything was ever sent of."""
        handles = sorted(self._lane.state.accounts) if self._handle is None else [self._handle]
        following = next((other for other in handles if other > handle), None)
        return None if following is None else write_place(Place(handle=following))

    async def _compare(self, cut: SettledCut, page: Page) -> None:
        """Put into the page what is wrong with this cut."""
        raise NotImplementedError

    async def _page_extras(self, place: Place) -> Page:
        """A page of what lies there of one tenant, against the history."""
        raise NotImplementedError


def make_finding(kind: Kind, cut: SettledCut, detail: str) -> Finding:
    """A finding about a cut as a whole."""
    return Finding(kind=kind, tenant=cut.tenant, place=cut.place, detail=detail, first_index=cut.first, last_index=cut.last)


def read_place(text: str | None) -> Place:
    """The place that a page gave. Raises TerminalError."""
    try:
        return Place() if text is None else msgspec.json.decode(text, type=Place)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TerminalError("`after` is no place of a walk", hint="Give `next` of the page before") from error


def write_place(place: Place) -> str:
    """``place`` as `read_place` takes it."""
    return msgspec.json.encode(place).decode()
