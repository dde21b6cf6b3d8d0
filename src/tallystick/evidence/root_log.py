"""The root log: one tree over all tenants' heads, and what the server says of itself.

Its entries cannot be made anew (they quote signatures and times), so unlike a tenant's trees it is durable before it is
signed: entries and level files are synced, then the head. From that follows how it recovers:

1. Entries beyond the last head were synced but not signed, or signed and the head lost. Either way they stay, so no root
   head that anyone may have seen can be contradicted. Only an unreadable rest at the end is written over.
2. The level files up to the last head must give its root; hashes beyond are taken from the entries again.
3. The head that the key directory remembers must be in the log: at least its size, and its root at that size. Otherwise
   the data directory is older than its keys, and nothing may be signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError, IntegrityError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.entry import ROOT_TYPES, Salter, build_entry, read_entry
from tallystick.evidence.heads import Head
from tallystick.evidence.merkle import leaf_hashes
from tallystick.evidence.origin import ROOT, root_origin, tree_dir
from tallystick.evidence.trees import TreeFiles

_PIECE = 4096


class RootLog:
    """The sealer's hold on the root log."""

    def __init__(self, data_dir: Path, server_name: str, key: Ed25519PrivateKey, salter: Salter) -> None:
        self.origin = root_origin(server_name)
        self._key = key
        self._salter = salter
        self._entries = AccountLog(tree_dir(data_dir, ROOT))
        self._tree = TreeFiles(tree_dir(data_dir, ROOT), 0)

    @property
    def size(self) -> int:
        """Entries in the log, signed or not."""
        return self._tree.size

    def recover(self, head: Head | None, remembered: Checkpoint | None) -> None:
        """Find the log's end and check it against both heads. Raises IntegrityError, CheckpointError; then nothing may be signed."""
        signed = head.size if head is not None else 0
        if remembered is not None:
            signed = max(signed, remembered.size)
        if self._entries.count < signed:
            raise CheckpointError(
                f"the root log has {self._entries.count} entries, but a head over {signed} was signed",
                place=str(self._tree.dir),
                hint="This data directory is older than its keys: put the newer copy back, or begin a new data directory",
            )
        kept = self._readable(signed)
        beyond = self._entries.entries(signed, kept - signed) if kept > signed else []
        self._entries.count = signed
        # Written again, not only counted: whoever wrote them may have been killed before they were synced.
        self._entries.append(beyond)
        self._entries.sync()
        self._rebuild(signed)
        for known in (head, remembered):
            if known is not None and self._tree.root(known.size) != known.root:
                raise CheckpointError(
                    f"the root log does not extend the head over {known.size} entries that was signed",
                    place=str(self._tree.dir),
                    hint="Run `tallystick verify`; nothing is signed until this is explained",
                )

    def append(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
        """Add (type, fields) entries durably; returns the index of the first."""
        first = self._entries.count
        lines = [
            build_entry(kind, self._salter.salt(self.origin, first + position), fields)
            for position, (kind, fields) in enumerate(entries)
        ]
        self._entries.append(lines)
        # A crash before both syncs returned leaves entries that no head covers; `recover` keeps the readable ones.
        self._entries.sync()
        self._tree.append(leaf_hashes(lines))
        self._tree.sync()
        return first

    def entry(self, number: int) -> dict[str, Any]:
        """One entry. Raises NotFoundError, IntegrityError."""
        return read_entry(self._entries.entry(number), ROOT_TYPES)

    def sign(self) -> str:
        """The signed head over everything appended; its root is read back from the files."""
        return sign_checkpoint(Checkpoint(self.origin, self.size, self._tree.root()), self._key)

    def close(self) -> None:
        self._entries.close()
        self._tree.close()

    def _readable(self, signed: int) -> int:
        """How many entries are whole; all up to ``signed`` must be."""
        count = signed
        while count < self._entries.count:
            try:
                read_entry(self._entries.entry(count), ROOT_TYPES)
            except IntegrityError:
                break
            count += 1
        return count

    def _rebuild(self, signed: int) -> None:
        """Append the leaf hashes that the level files may lack, from the entries. All of them when the files are cut."""
        self._tree.size = signed if self._tree.stored_size() >= signed else 0
        for first in range(self._tree.size, self._entries.count, _PIECE):
            lines = self._entries.entries(first, min(_PIECE, self._entries.count - first))
            self._tree.append(leaf_hashes(lines))
        self._tree.sync()
