"""What other people's clients read of the trees: checkpoints, tiles, entry bundles (C2SP tlog-tiles), and proofs (tlog-proof).

Nothing beyond the last published head is shown. The lines of events come from the caller, because they lie in the archive
and the journal: ``lines(handle, first, count)`` gives (index, line) pairs, fewer than asked where events are gone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import is_lost, leaf_data, lost_text
from tallystick.evidence.heads import Head, Heads
from tallystick.evidence.merkle import HASH_BYTES, leaf_hash
from tallystick.evidence.origin import ROOT, event_origin, root_origin, tree_dir
from tallystick.evidence.proof import build_proof
from tallystick.evidence.tile_path import TILE_WIDTH, TileName, parse_tile_path, tile_width
from tallystick.evidence.trees import TreeFiles

Lines = Callable[[str, int, int], Sequence[tuple[int, bytes]]]


class LogReader:
    """Serves one data directory. ``name`` below is ``<handle>``, ``<handle>/account`` or ``root``."""

    def __init__(self, data_dir: Path, server_name: str, heads: Heads, lines: Lines) -> None:
        self._data_dir = data_dir
        self._server_name = server_name
        self._heads = heads
        self._lines = lines

    def checkpoint(self, name: str) -> str:
        """The last signed head. Raises NotFoundError."""
        self._heads.refresh()
        return self._head(name).note

    def tile(self, name: str, path: str) -> bytes:
        """A hash tile or entry bundle by its path below the log (``tile/…``). Raises NotFoundError, IntegrityError."""
        tile = parse_tile_path(path)
        self._heads.refresh()
        size = self._head(name).size
        if tile.width > tile_width(tile.level, tile.number, size):
            raise NotFoundError("the log has no such tile yet", place=path)
        if tile.level is None:
            return self._bundle(name, tile, size)
        tree = self._tree(name, size)
        try:
            return tree.tile(tile.level, tile.number, tile.width)
        finally:
            tree.close()

    def prove_event(self, handle: str, index: int) -> str:
        """A tlog-proof of an event to its tenant's last head. Raises NotFoundError while it is not sealed."""
        self._heads.refresh()
        return self._prove(handle, index, self._head(handle))

    def prove_receipt(self, handle: str, index: int) -> str:
        """Two chained proofs: event to tenant head, that head's entry to root head. Raises NotFoundError while it is not quoted."""
        self._heads.refresh()
        found = self._heads.rooted(event_origin(self._server_name, handle))
        root = self._heads.head(root_origin(self._server_name))
        if found is None or root is None or index >= found[0].size:
            raise NotFoundError("the root log does not quote a head with this event yet", place=f"{handle}, index {index}")
        entries = AccountLog(tree_dir(self._data_dir, ROOT), root.size)
        try:
            entry = entries.entry(found[1])
        finally:
            entries.close()
        return self._prove(handle, index, found[0]) + self._prove(ROOT, found[1], root, entry)

    def prove_extension(self, name: str, old: int, new: int) -> list[bytes]:
        """A consistency proof between two sizes up to the last head's. Raises NotFoundError, ProofError."""
        if new > self._head(name).size:
            raise NotFoundError(f"the log has no head over {new} leaves yet", place=name)
        tree = self._tree(name, new)
        try:
            return tree.consistency(old, new)
        finally:
            tree.close()

    def _prove(self, name: str, index: int, head: Head, extra: bytes | None = None) -> str:
        if not 0 <= index < head.size:
            raise NotFoundError("the event is not under a signed head yet", place=f"{name}, index {index}")
        tree = self._tree(name, head.size)
        try:
            return build_proof(index, tree.inclusion(index, head.size), head.note, extra)
        finally:
            tree.close()

    def _bundle(self, name: str, tile: TileName, size: int) -> bytes:
        first = tile.number * TILE_WIDTH
        if name == ROOT or name.endswith("/account"):
            log = AccountLog(tree_dir(self._data_dir, name), size)
            try:
                entries = log.entries(first, tile.width)
            finally:
                log.close()
        else:
            entries = self._event_entries(name, first, tile.width, size)
        return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)

    def _event_entries(self, handle: str, first: int, count: int, size: int) -> list[bytes]:
        """Leaf data of events, each checked against its leaf: what does not belong there is not shown."""
        tree = self._tree(handle, size)
        try:
            hashes = tree.hashes(0, first, count)
        finally:
            tree.close()
        found = dict(self._lines(handle, first, count))
        entries = []
        for place in range(count):
            index, value = first + place, hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES]
            if index in found:
                entry = leaf_data(found[index])
            elif is_lost(index, value):
                entry = lost_text(index)
            else:
                raise NotFoundError("an event of this bundle is no longer kept", place=f"{handle}, index {index}")
            if leaf_hash(entry) != value:
                raise IntegrityError("a stored line is not the one in the tree", place=f"{handle}, index {index}")
            entries.append(entry)
        return entries

    def _head(self, name: str) -> Head:
        head = self._heads.head(f"{self._server_name}/log/{name}")
        if head is None:
            raise NotFoundError("this log has no head yet", place=name)
        return head

    def _tree(self, name: str, size: int) -> TreeFiles:
        return TreeFiles(tree_dir(self._data_dir, name), size)
