"""What an operator may ask of the dispatcher: pause, resume, probe, replay, reconcile, discard, explain.

Every change is durable when its answer is given. Replays are idempotent: a letter that is settled, or waiting in a replay
already, is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tallystick.delivery.dead_letters import DeadLetters, FiledLetter, parse_letter_id
from tallystick.delivery.history import SettledCut, now
from tallystick.delivery.lane import Lane
from tallystick.delivery.reconcile import reconcile_page
from tallystick.delivery.settlement import VOIDED
from tallystick.delivery.state import LaneState, Replay
from tallystick.errors import NotFoundError, TerminalError

REPLAY_EVENTS = 1_000
"""Events in one replay cut."""


class Operations:
    """Over all lanes of a dispatcher. ``handle_of`` turns a tenant's name into its handle, or None."""

    def __init__(
        self, lanes: Mapping[str, Lane], letters: DeadLetters, handle_of: Callable[[str], str | None], status: Callable[[], Any]
    ) -> None:
        self._lanes = lanes
        self._letters = letters
        self._handle_of = handle_of
        self._status = status

    async def handle(self, op: str, args: dict[str, Any]) -> Any:
        """One request of the control socket. Raises NotFoundError, TerminalError; TypeError for wrong arguments."""
        operations: dict[str, Callable[..., Any]] = {
            "pause": self.pause,
            "resume": self.resume,
            "probe": self.probe,
            "replay": self.replay,
            "reconcile": self.reconcile,
            "discard": self.discard,
            "explain": self.explain,
            "status": self.status,
        }
        if op not in operations:
            raise TerminalError(f"the dispatcher has no operation {op!r}", hint=f"It has {', '.join(operations)}")
        return await operations[op](**args)

    async def pause(self, destination: str) -> dict[str, Any]:
        """Send nothing more until resumed; what is under way comes to its end."""
        lane = self._lane(destination)
        lane.sender.pause()
        await lane.change(lambda state: _set_paused(state, is_paused=True))
        return {"state": lane.sender.state}

    async def resume(self, destination: str) -> dict[str, Any]:
        """End a pause, and a park at once."""
        lane = self._lane(destination)
        await lane.change(lambda state: _set_paused(state, is_paused=False))
        lane.sender.resume()
        return {"state": lane.sender.state}

    async def probe(self, destination: str) -> dict[str, Any]:
        """Ask the destination whether it would accept; ends a park when it says so."""
        lane = self._lane(destination)
        answer = await lane.sender.probe()
        return {"answer": answer.kind.value, "reason": answer.reason, "state": lane.sender.state}

    async def replay(
        self,
        destination: str | None = None,
        tenant: str | None = None,
        first_index: int | None = None,
        last_index: int | None = None,
        letters: list[str] | None = None,
    ) -> dict[str, Any]:
        """Send again: dead letters by id, or all open ones of a destination, or a range of one tenant's settled events."""
        if letters is not None:
            return {"events": sum([await self._replay_letters(name, wanted) for name, wanted in _by_destination(letters).items()])}
        if destination is None:
            raise TerminalError("a replay names letters or a destination")
        if first_index is None and last_index is None:
            return {"events": await self._replay_letters(destination, None, tenant)}
        if tenant is None or first_index is None or last_index is None or not 0 <= first_index <= last_index:
            raise TerminalError("a replay of a range names tenant, first_index and last_index")
        return {"events": await self._replay_range(self._lane(destination), tenant, first_index, last_index)}

    async def reconcile(
        self, destination: str, tenant: str | None = None, after: str | None = None, repair: bool = False
    ) -> dict[str, Any]:
        """One page of a comparison of what the destination holds with what was sent, and with ``repair`` what is missing sent again."""
        handle = None if tenant is None else self._handle_of(tenant)
        if tenant is not None and handle is None:
            raise NotFoundError(f"there is no tenant {tenant!r}")
        return await reconcile_page(self._lane(destination), handle, after, is_repairing=repair)

    async def discard(self, letters: list[str], reason: str, by: str) -> dict[str, Any]:
        """Give dead letters up for good, with a reason that is kept."""
        for name, ordinals in _by_destination(letters).items():
            lane = self._lanes.get(name)
            if lane is not None:
                waiting = _waiting_letters(lane.state)
                if waiting & set(ordinals):
                    raise TerminalError("a letter is being replayed", hint="Look again when the replay is done")
                await lane.in_thread(lambda n=name, o=tuple(ordinals): self._letters.discard(n, o, reason=reason, by=by, at=now()))
            else:
                self._letters.discard(name, tuple(ordinals), reason=reason, by=by, at=now())
        return {"letters": len(letters)}

    async def explain(self, handle: str, index: int, destination: str | None = None) -> dict[str, Any]:
        """Where one event is at each destination: outcome, when, where, attempts."""
        names = [destination] if destination else list(self._lanes)
        return {name: await self._explain(self._lane(name), handle, index) for name in names}

    async def status(self) -> Any:
        return self._status()

    def _lane(self, name: str) -> Lane:
        if name not in self._lanes:
            raise NotFoundError(f"there is no destination {name!r}")
        return self._lanes[name]

    async def _replay_letters(self, name: str, ordinals: list[int] | None, tenant: str | None = None) -> int:
        lane = self._lane(name)
        waiting = _waiting_letters(lane.state)

        def select() -> list[FiledLetter]:
            found = [filed for filed in self._letters.read(name, tenant=tenant) if ordinals is None or filed.ordinal in ordinals]
            if ordinals is not None and len(found) != len(set(ordinals)):
                raise NotFoundError(f"not all of these dead letters exist at {name}")
            return [filed for filed in found if filed.status == "open" and filed.ordinal not in waiting]

        chosen = await lane.in_thread(select)
        replays = _make_replays(chosen)
        if replays:
            await lane.change(lambda state: state.replays.extend(replays))
        return len(chosen)

    async def _replay_range(self, lane: Lane, tenant: str, first: int, last: int) -> int:
        handle = self._handle_of(tenant)
        if handle is None:
            raise NotFoundError(f"there is no tenant {tenant!r}")
        end = min(last + 1, lane.first_pending(handle))
        bounds = range(first, end, REPLAY_EVENTS)
        replays = [Replay(handle, tenant, tuple(range(low, min(low + REPLAY_EVENTS, end)))) for low in bounds]
        if replays:
            await lane.change(lambda state: state.replays.extend(replays))
        return max(0, end - first)

    async def _explain(self, lane: Lane, handle: str, index: int) -> dict[str, Any]:
        cuts = await lane.in_thread(lane.history.find, handle, index)
        for cut in cuts:
            if cut.outcome != VOIDED:
                found = _explain_cut(cut, index)
                if not cut.is_replay or found["outcome"] == "delivered":
                    return found
        if index >= lane.first_pending(handle):
            return {"outcome": "pending", "reason": lane.sender.reason or lane.trouble, "state": lane.sender.state}
        return {"outcome": "unknown", "reason": "the history of this destination begins later"}


def _explain_cut(cut: SettledCut, index: int) -> dict[str, Any]:
    page: dict[str, Any] = {
        "settled_at": cut.settled_at,
        "attempts": cut.attempts,
        "cut": {"name": cut.name, "first_index": cut.first, "last_index": cut.last, "sha256": cut.sha256},
        "replay": cut.is_replay,
    }
    for dead in cut.dead:
        if dead.index == index:
            return {"outcome": "dead_lettered", "reason": dead.reason, "letter": dead.letter, **page}
    if not cut.is_kept(index):
        return {"outcome": "filtered", "filter": "where", **page}
    return {"outcome": "delivered", "where": cut.place, **page}


def _set_paused(state: LaneState, *, is_paused: bool) -> None:
    state.is_paused = is_paused


def _waiting_letters(state: LaneState) -> set[int]:
    """Letters that a replay which is not settled yet will answer."""
    waiting = {letter for replay in state.replays for letter in replay.letters}
    return waiting | {letter for record in state.cuts.values() for letter in record.letters}


def _by_destination(letters: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, ordinal in map(parse_letter_id, letters):
        found.setdefault(name, []).append(ordinal)
    return found


def _make_replays(chosen: list[FiledLetter]) -> list[Replay]:
    """Replays of one tenant each, ascending by index; an index with several letters goes by its first."""
    by_tenant: dict[tuple[str, str], dict[int, FiledLetter]] = {}
    for filed in chosen:
        by_tenant.setdefault((filed.letter.handle, filed.letter.tenant), {}).setdefault(filed.letter.index, filed)
    replays = []
    for (handle, tenant), by_index in by_tenant.items():
        rows = sorted(by_index.items())
        for at in range(0, len(rows), REPLAY_EVENTS):
            part = rows[at : at + REPLAY_EVENTS]
            replays.append(
                Replay(
                    handle,
                    tenant,
                    tuple(index for index, _ in part),
                    tuple(filed.ordinal for _, filed in part),
                    tuple(filed.letter.reason for _, filed in part),
                )
            )
    return replays
