"""Reading single events back: destinations where each event lies under a name of its own, as rows and documents do.

1. *cuts*: each settled cut is made again from the log, and the destination compares it with what lies under the names of its events.
   A cut whose bytes the log does not give any more is not compared, and its events are counted as such.
2. *extras*: every index that the destination has of a tenant, against the history, where it keeps indexes at all.

A repair writes the missing events alone, under the same names and only where nothing lies, so it may be repeated after a crash at any
place. What was changed is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.delivery.history import SettledCut
from tallystick.delivery.lane import Lane
from tallystick.delivery.settlement import VOIDED
from tallystick.delivery.walk import NAMED_MAX, PAGE_PLACES, Finding, Kind, Page, Place, Walk, make_finding, write_place
from tallystick.plugin import AnswerKind, Cut, ReadsEvents


class EventReconciler(Walk):
    """Over a destination that tells its events apart (`plugin.ReadsEvents`)."""

    def __init__(self, lane: Lane, handle: str | None, destination: ReadsEvents, *, is_repairing: bool) -> None:
        super().__init__(lane, handle, is_repairing=is_repairing)
        self._destination = destination

    async def _compare(self, cut: SettledCut, page: Page) -> None:
        made = await self._lane.in_thread(self._lane.builder.rebuild_settled, cut)
        if made is None:
            page.uncompared += cut.delivered
            return
        compared = await self._destination.compare(made)
        refused = {letter.index for letter in cut.dead}
        if missing := [index for index in compared.missing if index not in refused]:
            page.findings.append(await self._missing(cut, made, missing))
        if changed := [index for index in compared.changed if index not in refused]:
            page.findings.append(_about("changed", cut, "other content than was delivered; it is left as it is", changed))

    async def _missing(self, cut: SettledCut, made: Cut, indexes: Sequence[int]) -> Finding:
        finding = _about("missing", cut, "not there", indexes)
        if self._is_repairing:
            answer = await self._destination.restore(made, indexes)
            finding.is_repaired = answer.kind is AnswerKind.DELIVERED and not answer.refused
            if not finding.is_repaired:
                finding.detail += f"; not repaired: {answer.reason or answer.kind.value}"
        return finding

    async def _page_extras(self, place: Place) -> Page:
        account = self._lane.state.accounts.get(place.handle)
        if account is None:
            return Page(next=self._tenant_behind(place.handle))
        after = int(place.name) if place.name.isdecimal() else -1
        indexes = await self._destination.list_indexes(account.tenant, after, PAGE_PLACES)
        # In this order: a cut that is settled between the two questions is in the history by then.
        unsettled = [index for index in indexes if not self._lane.is_open_at(place.handle, index)]
        strange = await self._lane.in_thread(self._strange, place.handle, unsettled)
        page = Page(objects=len(indexes))
        if strange:
            detail = "nothing that was delivered from here"
            named = strange[:NAMED_MAX]
            finding = Finding(kind="extra", tenant=account.tenant, place=self._lane.name, detail=detail, indexes=named)
            finding.events = len(strange)
            page.findings.append(finding)
        if len(indexes) < PAGE_PLACES:
            page.next = self._tenant_behind(place.handle)
        else:
            page.next = write_place(Place(handle=place.handle, name=str(indexes[-1])))
        return page

    def _strange(self, handle: str, indexes: Sequence[int]) -> list[int]:
        return [index for index in indexes if not any(_holds(cut, index) for cut in self._lane.history.find(handle, index))]


def _about(kind: Kind, cut: SettledCut, detail: str, indexes: Sequence[int]) -> Finding:
    finding = make_finding(kind, cut, detail)
    finding.events, finding.indexes = len(indexes), list(indexes[:NAMED_MAX])
    return finding


def _holds(cut: SettledCut, index: int) -> bool:
    """Whether the cut brought this event to the destination."""
    return cut.outcome != VOIDED and cut.is_kept(index) and all(letter.index != index for letter in cut.dead)
