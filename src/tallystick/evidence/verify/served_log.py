"""One served log against its signed head: every tile, every older head, and every entry that is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tallystick.errors import IntegrityError, NotFoundError, TallystickError, TerminalError
from tallystick.evidence.checkpoint import Checkpoint
from tallystick.evidence.merkle import HASH_BYTES, leaf_hashes
from tallystick.evidence.tile_path import TILE_WIDTH, TileName
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import Quotes
from tallystick.evidence.verify.walk import Fetch, LeafTile, TileWalk, split_bundle

Take = Callable[[int, bytes, str], None]
"""What is done with an entry that is the leaf it claims to be: its index, its bytes, and where it was served."""


@dataclass(slots=True)
class Walked:
    """What one pass over a log left to later steps.

    ``agreed`` counts the older heads that are smaller trees of this log; ``contradicted`` is the size of the first that is none.
    ``absent``: (first, count) of leaves whose entries are not served any more.
    """

    leaves: int = 0
    entries: int = 0
    agreed: int = 0
    contradicted: int | None = None
    absent: list[tuple[int, int]] = field(default_factory=list)


class LogCheck:
    """One pass over the log ``name`` (as in ``origin.tree_name``) of the server ``url``. Problems go into the report."""

    def __init__(self, fetch: Fetch, url: str, name: str, head: Checkpoint, report: Report) -> None:
        self._fetch = fetch
        self._url = url
        self._prefix = f"/log/{name}"
        self._head = head
        self._report = report
        self._walked = Walked()

    def run(self, older: Quotes, take: Take) -> Walked:
        """Check everything; ``take`` is given each entry that holds."""
        walk = TileWalk(self._fetch, self._prefix, self._head, with_entries=self._shows_entries())
        heads = _OlderHeads(older, walk, self._walked)
        try:
            for item in walk.leaves():
                if isinstance(item, IntegrityError):
                    self._fail(item.message, item.place)
                    heads.stop()
                    continue
                self._walked.leaves += item.count
                heads.reach(item.first + item.count)
                self._check_entries(item, take)
        except IntegrityError as error:
            self._fail(error.message, error.place)
        return self._walked

    def _shows_entries(self) -> bool:
        """Whether this key may read the entries at all; one that is merely gone is another matter."""
        if not self._head.size:
            return False
        first = TileName(None, 0, min(TILE_WIDTH, self._head.size)).path()
        answer = next(iter(self._fetch([f"{self._prefix}/{first}"])))
        if not isinstance(answer, TerminalError) or isinstance(answer, NotFoundError):
            return True
        self._report.not_proven.append(f"content: the entries of {self._head.origin} are not shown to this key: {answer.message}")
        return False

    def _check_entries(self, tile: LeafTile, take: Take) -> None:
        if tile.bundle is None:
            return
        if isinstance(tile.bundle, NotFoundError):
            self._miss(tile.first, tile.count)
            return
        try:
            if isinstance(tile.bundle, TallystickError):
                raise IntegrityError(f"a bundle of entries is not served: {tile.bundle.message}")
            entries = split_bundle(tile.bundle, tile.count)
        except IntegrityError as error:
            self._fail(error.message, tile.bundle_path)
            return
        made, wrong = leaf_hashes(entries), []
        for number, entry in enumerate(entries):
            span = slice(number * HASH_BYTES, (number + 1) * HASH_BYTES)
            if made[span] == tile.hashes[span]:
                self._walked.entries += 1
                take(tile.first + number, entry, f"{self._url}{tile.bundle_path}")
            else:
                wrong.append(tile.first + number)
        if wrong:
            which = f"index {wrong[0]}" if len(wrong) == 1 else f"{len(wrong)} indexes from {wrong[0]} to {wrong[-1]}"
            self._fail(f"the entry of {which} is not the one in the tree of {self._head.origin}", tile.bundle_path)

    def _miss(self, first: int, count: int) -> None:
        runs = self._walked.absent
        if runs and sum(runs[-1]) == first:
            start, length = runs.pop()
            first, count = start, length + count
        runs.append((first, count))

    def _fail(self, message: str, path: str | None) -> None:
        self._report.fail(message, f"{self._url}{path or self._prefix}")


class _OlderHeads:
    """Older heads of a log, in ascending order: each is recomputed when the walk has come to its size."""

    def __init__(self, older: Quotes, walk: TileWalk, walked: Walked) -> None:
        self._heads = zip(older.sizes, older.roots, strict=True)
        self._next = next(self._heads, None)
        self._walk = walk
        self._walked = walked
        self.reach(0)

    def reach(self, end: int) -> None:
        """The walk has passed the leaves up to ``end``."""
        while self._next is not None and self._next[0] <= end:
            size, root = self._next
            if self._walk.root_at(size) != root:
                self._walked.contradicted = size
                self.stop()
                return
            self._walked.agreed += 1
            self._next = next(self._heads, None)

    def stop(self) -> None:
        """A tile was wrong: nothing behind it can be recomputed."""
        self._next = None
