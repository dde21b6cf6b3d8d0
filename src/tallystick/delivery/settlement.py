"""What an answer means for the events of a cut. Pure.

Every event of the range gets exactly one outcome: let through and delivered, let through and refused (dead letter), filtered, or
without content (dead letter). The numbers come from the stored record alone, so they do not depend on what can be read later.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import msgspec

from tallystick.delivery.builder import Planned
from tallystick.delivery.cut import CutRecord
from tallystick.delivery.dead_letters import Letter
from tallystick.delivery.history import Dead, SettledCut
from tallystick.delivery.metrics import EVENTS_SETTLED
from tallystick.delivery.state import LaneState, Replay
from tallystick.plugin import Answer, AnswerKind, Cut

FILTER_NAME = "where"
VOIDED = "voided"
_REASON = re.compile(r"[a-z][a-z0-9_]{0,39}")
NOTHING_TO_SEND = Answer(AnswerKind.DELIVERED)
REPLY_MAX = 2_048
"""Characters of a reply that a dead letter keeps."""


@dataclass(slots=True)
class Settlement:
    """The outcome of one cut, ready to be stored; ``letters`` are filed first, their numbers go into ``row``."""

    planned: Planned
    answer: Answer
    letters: list[Letter]
    row: SettledCut

    @property
    def redeemed(self) -> list[tuple[int, str]]:
        """Of a replay: number and reason of the dead letters whose events arrived."""
        record, cut = self.planned.record, self.planned.cut
        if not record.letters or self.answer.kind is not AnswerKind.DELIVERED:
            return []
        refused = {cut.indexes[at] for at in self.answer.refused} if cut else set()
        missing = refused | record.gaps.keys()
        rows = zip(record.only, record.letters, record.reasons, strict=True)
        return [(letter, reason) for index, letter, reason in rows if index not in missing]

    @property
    def redeemed_letters(self) -> list[int]:
        return [letter for letter, _ in self.redeemed]

    @property
    def redeemed_reasons(self) -> dict[str, int]:
        return dict(Counter(reason for _, reason in self.redeemed))

    @property
    def dead_reasons(self) -> dict[str, int]:
        return dict(Counter(letter.reason for letter in self.letters))

    def number_letters(self, ordinals: list[int]) -> None:
        """Note the numbers under which the letters were filed."""
        dead = tuple(Dead(letter.index, letter.reason, number) for letter, number in zip(self.letters, ordinals, strict=True))
        self.row = msgspec.structs.replace(self.row, dead=dead)


def settle_cut(destination: str, planned: Planned, answer: Answer, at: float) -> Settlement:
    """Outcomes of a cut that was answered DELIVERED or REFUSED, or had nothing to send. ``at`` is Unix seconds."""
    record = planned.record
    refused = _refused(planned.cut, answer)
    letters: list[Letter] = []
    if not record.only:  # an event that a replay could not place keeps the letter it has
        letters += [_letter(destination, planned, index, reason, "", at) for index, reason in sorted(record.gaps.items())]
        letters += [
            _letter(destination, planned, index, reason_code(answer.reason), reply, at, line) for index, reply, line in refused
        ]
    filtered = 0 if record.only else record.count - record.events - len(record.gaps)
    row = SettledCut(
        id=record.id,
        handle=record.handle,
        tenant=record.tenant,
        first=record.first,
        last=record.last,
        is_replay=bool(record.only),
        name=record.name if record.sha256 else "",
        sha256=record.sha256,
        place=answer.where or record.place,
        settled_at=at,
        attempts=planned.attempts,
        delivered=record.events - len(refused),
        filtered={FILTER_NAME: filtered} if filtered else {},
        kept=record.kept,
        dead=(),
        outcome=answer.kind.value,
    )
    return Settlement(planned, answer, letters, row)


def reason_code(text: str) -> str:
    """A destination's reason as a name that accounts and statements count by; other texts count as ``refused``."""
    return text if _REASON.fullmatch(text) else "refused"


def _refused(cut: Cut | None, answer: Answer) -> list[tuple[int, str, bytes]]:
    """(index, reply, line) of the events refused for good."""
    if cut is None:
        return []
    if answer.refused:
        return [(cut.indexes[at], reply, cut.lines[at]) for at, reply in sorted(answer.refused.items())]
    if answer.kind is AnswerKind.REFUSED or answer.kind is AnswerKind.SPLIT:
        return [(index, answer.reply, line) for index, line in zip(cut.indexes, cut.lines, strict=True)]
    return []


def void_row(planned: Planned, at: float) -> SettledCut:
    """The history row of a cut that was given up before it took effect."""
    row = settle_cut("", planned, Answer(AnswerKind.RETRY), at).row
    return msgspec.structs.replace(row, delivered=0, filtered={}, dead=(), place="", outcome=VOIDED)


def apply_plan(state: LaneState, planned: Planned) -> None:
    """A new cut: its record is kept, and the cursor moves behind its range."""
    record = planned.record
    if record.only:
        state.replays.pop(0)
    else:
        state.account(record.handle, record.tenant).next = record.last + 1
    if planned.cut is not None:
        state.cuts[record.id] = record


def apply_replacement(state: LaneState, old: Planned, new: list[Planned]) -> None:
    """Other cuts in the place of one: after a split, or when it was voided."""
    state.cuts.pop(old.record.id, None)
    for planned in new:
        if planned.cut is not None:
            state.cuts[planned.record.id] = planned.record


def apply_settlement(state: LaneState, settlement: Settlement) -> None:
    """The cut is done: its record goes, its counts come."""
    record = settlement.planned.record
    state.cuts.pop(record.id, None)
    state.after = settlement.answer.where or state.after
    account = state.account(record.handle, record.tenant)
    if not record.only:
        account.settle(settlement.row.delivered, settlement.row.filtered, settlement.dead_reasons)
    elif settlement.row.delivered:
        account.redeem(settlement.redeemed_reasons)


def count_settlement(destination: str, settlement: Settlement) -> None:
    """Add to the metrics what became durable."""
    EVENTS_SETTLED.labels(destination, "delivered").inc(settlement.row.delivered)
    EVENTS_SETTLED.labels(destination, "filtered").inc(sum(settlement.row.filtered.values()))
    EVENTS_SETTLED.labels(destination, "dead_lettered").inc(len(settlement.letters))


def replay_of(record: CutRecord) -> Replay:
    """The replay that a replay cut came from."""
    return Replay(record.handle, record.tenant, record.only, record.letters, record.reasons)


def split_replay(replay: Replay) -> list[Replay]:
    """Its two halves."""
    half = (len(replay.indexes) + 1) // 2
    parts = (slice(None, half), slice(half, None))
    return [
        Replay(replay.handle, replay.tenant, replay.indexes[part], replay.letters[part], replay.reasons[part]) for part in parts
    ]


class _Id(msgspec.Struct):
    id: str = ""


def _letter(destination: str, planned: Planned, index: int, reason: str, reply: str, at: float, line: bytes = b"") -> Letter:
    record = planned.record
    return Letter(
        destination=destination,
        tenant=record.tenant,
        handle=record.handle,
        index=index,
        reason=reason,
        reply=reply[:REPLY_MAX],
        attempts=max(planned.attempts, 1),
        cut=f"{record.id}:{record.first}-{record.last}",
        event_id=msgspec.json.decode(line, type=_Id).id if line else "",
        at=at,
    )
