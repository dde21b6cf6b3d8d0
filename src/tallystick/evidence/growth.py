"""How the tenants' trees grow from the journal: which leaf each of its entries becomes.

    EVENTS, LOST, damage     leaves of the event tree, by index: what is there already is passed over, a hole becomes lost leaves
    ACCOUNT                  the entry, with its salt, in the account tree
    FILTERED, QUARANTINED    a `filter` entry with the counts, in the account tree

All of it is a function of the journal alone (salts come from the entry's seq), so that reading it again after a crash
writes the same leaves at the same places. Where the journal no longer has what a signed head covers (it was damaged or
retired since, or the cursor is lost), the stored hashes are taken instead of lost leaves; they must give the signed root
before anything is signed again. Nothing here is durable before ``sync``: that is called before the sealer's
cursor moves, and the journal keeps what lies behind the cursor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tallystick.errors import CheckpointError, IntegrityError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import LINE_BYTES_MAX, Salter, build_entry, event_hashes, large_text, lost_hashes
from tallystick.evidence.heads import Head
from tallystick.evidence.merkle import leaf_hashes
from tallystick.evidence.origin import account_origin, tree_dir, tree_name
from tallystick.evidence.trees import TreeFiles
from tallystick.journal.entries import AccountEntry, FilterCount, QuarantinedRecord
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan
from tallystick.telemetry import log

_ENTRY_FRAMES = (FrameType.ACCOUNT, FrameType.FILTERED, FrameType.QUARANTINED)
_OPEN_TREES = 64
_PIECE = 4096
_ADOPT_LEAVES = 2**18


class Growth:
    """The event and account trees of all tenants, by name (`origin.tree_name`)."""

    def __init__(self, data_dir: Path, server_name: str, salter: Salter) -> None:
        self._data_dir = data_dir
        self._server_name = server_name
        self._salter = salter
        self._trees: dict[str, TreeFiles] = {}
        self._accounts: dict[str, AccountLog] = {}
        self._pending: dict[str, list[bytes]] = {}
        self._next: dict[str, int] = {}
        self._made: dict[str, tuple[list[bytes], list[int]]] = {}
        self._signed: dict[str, int] = {}
        self._unsynced: set[str] = set()

    def recover(self, sizes: Mapping[str, int], heads: Mapping[str, Head]) -> None:
        """Go back to the last synced ``sizes``; the journal fills the rest again. Raises IntegrityError for a tree that is cut.

        An account tree takes entries that are stored and signed from its own file, so that a new version of this code
        never has to make an old entry again. Other leaves beyond the synced size are written over with the same bytes.
        """
        for name, size in sizes.items():
            tree = self._tree(name)
            if tree.stored_size() < size:
                raise IntegrityError(
                    f"a tree of {size} leaves is cut to {tree.stored_size()}",
                    place=str(tree.dir / "level-0"),
                    hint="Put the file back from a copy; `tallystick verify` says what else is missing",
                )
            tree.size = self._next[name] = size
        for name, head in heads.items():
            self._signed[name] = head.size
            if name.endswith("/account"):
                self._recover_account(name, sizes.get(name, 0), head)

    def take(self, items: Iterable[Frame | DamagedSpan]) -> set[str]:
        """Grow the trees by what the journal gave; returns the names of those that grew. Raises IntegrityError, OSError."""
        grown: set[str] = set()
        for item in items:
            if isinstance(item, DamagedSpan):
                for handle, (first, count) in item.lost.items():
                    self._lose(handle, first, count)
            elif item.type == FrameType.EVENTS:
                self._take_events(item)
            elif item.type == FrameType.LOST:
                self._lose(item.handle, item.first_index, item.count)
            elif item.type in _ENTRY_FRAMES and item.handle:
                self._take_entries(item)
        for name, (entries, seqs) in self._made.items():
            self._account(name).append(entries, seqs)
            self._pending[name] = [leaf_hashes(entries)]
        for name, parts in self._pending.items():
            self._tree(name).append(b"".join(parts))
            grown.add(name)
        self._pending.clear()
        self._made.clear()
        self._unsynced |= grown
        return grown

    def head(self, name: str, last: Head | None) -> tuple[int, bytes] | None:
        """Size and root to sign, both from the files; None when ``last`` covers all leaves there are (yet).

        Raises CheckpointError unless the tree extends ``last``.
        """
        tree = self._tree(name)
        if last is not None:
            if tree.size < last.size:
                return None
            self._check_extends(name, last)
        return (tree.size, tree.root()) if last is None or tree.size > last.size else None

    def check_reach(self, heads: Iterable[Head]) -> None:
        """After all of the journal was read: every tree must reach its last head. Raises CheckpointError, IntegrityError."""
        for head in heads:
            name = tree_name(head.origin)
            tree = self._tree(name)
            while tree.size < head.size:
                tree.append(self._stored(name, tree.size, min(_ADOPT_LEAVES, head.size - tree.size)))
                self._next[name] = tree.size
                self._unsynced.add(name)
            self._check_extends(name, head)

    def _check_extends(self, name: str, head: Head) -> None:
        """The root must be the signed one. A level above the leaves may be damaged: it is made anew from them once, and asked again."""
        tree = self._tree(name)
        try:
            if tree.root(head.size) == head.root:
                return
        except IntegrityError as error:
            log.warning("a tree cannot be read", tree=name, error=str(error))
        log.warning("the upper levels of a tree are made anew from its leaves", tree=name)
        tree.refold()
        self._unsynced.add(name)
        if tree.root(head.size) != head.root:
            raise _not_extending(tree, head)

    def sizes(self) -> dict[str, int]:
        """Leaves in each tree now."""
        return {name: tree.size for name, tree in self._trees.items()}

    def sync(self) -> None:
        """Make all trees durable up to their sizes. A crash before it returns repeats what the cursor says is not."""
        for name in sorted(self._unsynced):
            if name in self._accounts:
                self._accounts[name].sync()
            self._trees[name].sync()
        self._unsynced.clear()
        self.release()

    def release(self) -> None:
        """Close the files when many are open: descriptors stay bounded whatever the number of tenants."""
        if len(self._trees) + len(self._accounts) > _OPEN_TREES:
            self.close()

    def close(self) -> None:
        """Close all files; they open again when needed."""
        for tree in self._trees.values():
            tree.close()
        for entries in self._accounts.values():
            entries.close()

    def _tree(self, name: str) -> TreeFiles:
        if name not in self._trees:
            self._trees[name] = TreeFiles(tree_dir(self._data_dir, name), 0)
        return self._trees[name]

    def _account(self, name: str) -> AccountLog:
        if name not in self._accounts:
            self._accounts[name] = AccountLog(tree_dir(self._data_dir, name), self._tree(name).size)
        return self._accounts[name]

    def _recover_account(self, name: str, synced: int, head: Head) -> None:
        tree, entries = self._tree(name), self._account(name)
        entries.count = synced
        stored = AccountLog(entries.dir)
        try:
            if stored.count >= head.size:
                for first in range(synced, head.size, _PIECE):
                    tree.append(leaf_hashes(stored.entries(first, min(_PIECE, head.size - first))))
                if tree.root(head.size) == head.root:
                    # Written again, not only counted: whoever wrote them may have been killed before they were synced.
                    for first in range(synced, head.size, _PIECE):
                        entries.append(*stored.rows(first, min(_PIECE, head.size - first)))
                    self._unsynced.add(name)
                    return
        except IntegrityError as error:
            log.warning("stored account entries are made again from the journal", tree=name, error=str(error))
        finally:
            stored.close()
        tree.size = synced

    def _take_events(self, frame: Frame) -> None:
        known = self._reach(frame.handle, frame.first_index) - frame.first_index
        if known >= frame.count:
            return
        lines = frame.lines()
        self._add(frame.handle, event_hashes(lines[known:] if known else lines), frame.count - known)

    def _lose(self, handle: str, first: int, count: int) -> None:
        """Indexes whose events the journal has no more: stored hashes where a head covers them, lost leaves beyond."""
        start, end = max(self._reach(handle, first), first), first + count
        signed = min(end, self._signed.get(handle, 0))
        while start < signed:
            known = min(_ADOPT_LEAVES, signed - start)
            self._add(handle, self._stored(handle, start, known), known)
            start += known
        if start < end:
            log.error("events are lost", tree=handle, first_index=start, count=end - start)
            self._add(handle, lost_hashes(start, end - start), end - start)

    def _reach(self, handle: str, first: int) -> int:
        """The next free index of an event tree, after a hole before ``first`` was filled."""
        start = self._next.get(handle, 0)
        if start < first:
            self._lose(handle, start, first - start)
            return first
        return start

    def _stored(self, name: str, first: int, count: int) -> bytes:
        """Leaf hashes that the files hold beyond the tree's size in force. Raises IntegrityError when they are cut."""
        return self._tree(name).hashes(0, first, count)

    def _add(self, handle: str, hashes: bytes, count: int) -> None:
        self._pending.setdefault(handle, []).append(hashes)
        self._next[handle] = self._next.get(handle, 0) + count

    def _take_entries(self, frame: Frame) -> None:
        name = f"{frame.handle}/account"
        _, seqs = self._made.get(name, ([], []))
        last = seqs[-1] if seqs else self._account(name).last_seq()
        if frame.next_seq - 1 <= last:
            return
        lines, seqs = self._made.setdefault(name, ([], []))
        origin = account_origin(self._server_name, frame.handle)
        for place, (seq, kind, fields) in enumerate(_entries_of(frame)):
            if seq > last:
                lines.append(_bounded(kind, self._salter.salt(origin, f"{seq}.{place}"), fields))
                seqs.append(seq)


def _entries_of(frame: Frame) -> list[tuple[int, str, Mapping[str, object]]]:
    """(seq, type, fields) of each account entry that a frame makes."""
    records = frame.records()
    if frame.type == FrameType.ACCOUNT:
        accounts = [msgspec.json.decode(record, type=AccountEntry) for record in records]
        return [
            (frame.first_seq + place, str(item.entry.get("type", "unknown")), item.entry) for place, item in enumerate(accounts)
        ]
    if frame.type == FrameType.FILTERED:
        counts = [msgspec.json.decode(record, type=FilterCount) for record in records]
        return [
            (
                frame.first_seq + place,
                "filter",
                {"outcome": "filtered", "source": item.source, "filter": item.filter, "count": item.count, "at": item.received_at},
            )
            for place, item in enumerate(counts)
        ]
    quarantined = [msgspec.json.decode(record, type=QuarantinedRecord) for record in records]
    groups = Counter((item.source, item.code, item.received_at) for item in quarantined)
    # All records of one frame share one entry per cause, under the frame's last seq: repeats are recognised as a whole.
    seq = frame.first_seq + frame.count - 1
    return [
        (seq, "filter", {"outcome": "quarantined", "source": source, "code": code, "count": count, "at": at})
        for (source, code, at), count in groups.items()
    ]


def _not_extending(tree: TreeFiles, head: Head) -> CheckpointError:
    return CheckpointError(
        f"a tree of {tree.size} leaves does not extend the head over {head.size} that was signed",
        place=str(tree.dir),
        hint="Run `tallystick verify`; nothing is signed until this is explained",
    )


def _bounded(kind: str, salt: bytes, fields: Mapping[str, object]) -> bytes:
    """The entry; one that no entry bundle can hold is replaced by its digest."""
    line = build_entry(kind, salt, fields)
    return line if len(line) <= LINE_BYTES_MAX else build_entry(kind, salt, {"large": large_text(line).decode()})
