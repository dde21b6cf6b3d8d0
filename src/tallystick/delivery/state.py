"""What one destination remembers: cursors and accounts of all tenants, open cuts, and whether it is paused.

One value in one `StateFile` (``cursors/delivery-<name>``), MessagePack. It is written before cuts are sent (so that they can
be sent again under the same name) and after they are settled; both usually fall into one write. What a crash means:

- before a write: the round did not happen; what was sent was stored by an earlier write and is sent again under its name.
- a damaged newest generation: the older one repeats the last round; names and bytes are the same.
- both damaged or missing: rebuilt from the history of settled cuts (`history`); open cuts are lost and cut anew, which may repeat
  events at destinations that take them twice. Nothing is skipped.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tallystick.delivery.account import Account
from tallystick.delivery.cut import CutRecord
from tallystick.durable import StateFile, make_dir
from tallystick.errors import FormatRefusedError

VERSION = 1


class Replay(msgspec.Struct, frozen=True):
    """Events of one tenant to be sent again, ascending. ``letters`` and ``reasons``, parallel, are those of the dead letters that it
    answers; both are empty for a replay of events that are settled otherwise."""

    handle: str
    tenant: str
    indexes: tuple[int, ...]
    letters: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()


class LaneState(msgspec.Struct):
    """``after`` is the place of the answer settled last; ``accounts`` is keyed by handle."""

    version: int = VERSION
    next_cut: int = 0
    after: str = ""
    is_paused: bool = False
    accounts: dict[str, Account] = msgspec.field(default_factory=dict)
    cuts: dict[int, CutRecord] = msgspec.field(default_factory=dict)
    replays: list[Replay] = msgspec.field(default_factory=list)

    def account(self, handle: str, tenant: str) -> Account:
        """The tenant's account, opened when there is none."""
        return self.accounts.setdefault(handle, Account(tenant))


class LaneStateFile:
    """The durable form of a `LaneState`."""

    def __init__(self, data_dir: Path, destination: str) -> None:
        make_dir(data_dir / "cursors")
        self._file = StateFile(data_dir / "cursors" / f"delivery-{destination}")

    def load(self) -> LaneState | None:
        """The last state; None when there is none or none is readable (`is_damaged` tells which)."""
        payload = self._file.load()
        if payload is None:
            return None
        state = msgspec.msgpack.decode(payload, type=LaneState)
        if state.version > VERSION:
            raise FormatRefusedError(f"delivery state of version {state.version}", place=str(self._file.path))
        return state

    def is_damaged(self) -> bool:
        """A generation exists that cannot be read."""
        return self._file.is_damaged()

    def save(self, state: LaneState) -> None:
        """Durable when it returns. Raises OSError; then the state before still holds."""
        self._file.save(msgspec.msgpack.encode(state))


def copy_state(state: LaneState) -> LaneState:
    """An independent copy."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=LaneState)
