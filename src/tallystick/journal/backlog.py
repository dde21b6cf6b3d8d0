"""What waits for a commit, by lane: one tenant's requests keep their order, and tenants take turns.

Without this a request behind another tenant's full queue would wait until all of that is compressed, written and synced. A
commit takes a bounded number of bytes, one request of each lane after the other, so a lane that has little waiting is in the
next commit. Whatever the order here, it becomes the order of acceptance.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from tallystick.journal.group import Group

COMMIT_BYTES_MAX: Final = 4 * 2**20


class Backlog:
    """Groups in lanes. Used from one thread."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[Group]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, group: Group) -> None:
        """Put ``group`` behind its lane's others."""
        self._lanes.setdefault(group.lane, deque()).append(group)

    def take(self, bytes_max: int = COMMIT_BYTES_MAX) -> list[Group]:
        """The next commit: until its cost reaches ``bytes_max``, and at least one group when there is one."""
        taken: list[Group] = []
        cost = 0
        while self._lanes and cost < bytes_max:
            lane, waiting = self._lanes.popitem(last=False)
            group = waiting.popleft()
            if waiting:
                self._lanes[lane] = waiting  # at the end: the others come first
            taken.append(group)
            cost += group.cost
        return taken

    def take_all(self) -> list[Group]:
        """Everything, lane by lane."""
        taken = [group for waiting in self._lanes.values() for group in waiting]
        self._lanes.clear()
        return taken
