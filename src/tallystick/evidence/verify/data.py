"""``verify`` of a data directory: recomputes everything it can read, in numbered steps, and says what it could not.

1. The file of signed heads: every line whole.
2. The root log: its head's signature, level files, entries; the keys and heads in the entries.
3. The head that the key directory remembers is in the root log.
4. Every tenant's trees: head's signature by an introduced key, level files, and every head that the root log quotes.
5. Account entries: each is the leaf it claims to be.
6. The journal: no damage, nothing acknowledged missing at its end, every line the leaf it claims to be.
7. The archive: manifests signed, chunks as their manifests name them, every line the leaf it claims to be.
8. Absences: every leaf without a line is excused by an entry that stands to reason.

Nothing is written. The caller brings keys and a reader of the archive where it has them; what it has not becomes
``not_proven`` and status 5, never a silent pass. A running server can be verified too: heads are read first, and the
journal before the archive, so what leaves the journal meanwhile is found in the archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tallystick.errors import CheckpointError, TallystickError
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from tallystick.evidence.entry import read_entry
from tallystick.evidence.heads import BadLine, Head, HeadState, heads_path, read_header, read_lines
from tallystick.evidence.manifest import manifest_key_name
from tallystick.evidence.note import VerifierKey, parse_vkey
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify.absence import Excuses, check_absences
from tallystick.evidence.verify.journal import check_journal
from tallystick.evidence.verify.levels import check_tree
from tallystick.evidence.verify.lines import ChunkSource, EventTree, check_chunks
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import RootView, checked_entries, read_root
from tallystick.evidence.verify.sealed import Erased, SealedKeys, check_sealed
from tallystick.journal.reader import JournalReader


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verification works on. ``public_key`` is the root log's vkey, from elsewhere; ``remembered`` a root head (note).

    ``journal`` None: the keys are not there. ``chunks`` None: no archive. ``chunks_closed``: why the chunks of ``chunks`` cannot
    be opened, so that only their bytes are held against their manifests. ``progress`` is told each step's title.
    """

    data_dir: Path
    public_key: str | None = None
    remembered: str | None = None
    journal: JournalReader | None = None
    chunks: ChunkSource | None = None
    chunks_closed: str = ""
    sealed_keys: SealedKeys | None = None
    progress: Callable[[str], None] = field(default=lambda title: None)


def verify_data(evidence: Evidence) -> Report:
    """Run all steps. Raises OSError when the directory itself cannot be read; everything else is in the report."""
    return _Verification(evidence).run()


class _Verification:
    """The state that one step leaves to the next."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.report = Report()
        self.heads = HeadState()
        self.view = RootView()
        self.trees: dict[str, EventTree] = {}
        self.excuses: dict[str, Excuses] = {}
        self.erased: dict[str, Erased] = {}
        self.chunks_unread = 0

    def run(self) -> Report:
        steps = (
            ("signed heads", self.check_heads),
            ("root log", self.check_root),
            ("remembered head", self.check_remembered),
            ("trees", self.check_trees),
            ("account entries", self.check_accounts),
            ("journal", self.check_journal),
            ("archive", self.check_archive),
            ("sealed members", self.check_sealed),
            ("absences", self.check_absences),
        )
        for title, step in steps:
            self.evidence.progress(title)
            self.report.done(title, step())
        return self.report

    def check_heads(self) -> str:
        """Step 1."""
        path = heads_path(self.evidence.data_dir)
        try:
            data = path.read_bytes()
            _, start = read_header(data, path)
        except (FileNotFoundError, TallystickError) as error:
            self.report.fail(f"the signed heads cannot be read: {error}", str(path))
            return "none"
        rounds = 0
        for found in read_lines(data[start:], start):
            if isinstance(found, BadLine):
                self._bad_line(found, path)
                continue
            rounds += 1
            try:
                self.heads.apply(found)
            except CheckpointError as error:
                self.report.fail(f"a signed head cannot be read: {error.message}", str(path))
        return f"{rounds} rounds, {len(self.heads.heads)} logs"

    def check_root(self) -> str:
        """Step 2."""
        head = self.heads.heads.get(ROOT)
        directory = tree_dir(self.evidence.data_dir, ROOT)
        if head is None:
            self.report.not_proven.append("no root head was signed yet: nothing ties the tenants' logs together")
            return "none"
        self.report.tier = "signer"
        if self.evidence.public_key is None:
            self.report.not_proven.append("signer: no public key of the root log was given, so anyone could have made this data")
        else:
            self._open(head.note, [parse_vkey(self.evidence.public_key)], str(heads_path(self.evidence.data_dir)))
        tree = TreeFiles(directory, head.size)
        check_tree(tree, head, self.report)
        self.view = read_root(directory, head, tree, self.report)
        tree.close()
        return f"{head.size} entries, {len(self.view.keys)} keys"

    def check_remembered(self) -> str:
        """Step 3."""
        note, head = self.evidence.remembered, self.heads.heads.get(ROOT)
        if note is None:
            self.report.not_proven.append(
                "freshness: no remembered head was given, so a cut tail or an older copy would look the same"
            )
            return "none given"
        place = "the remembered head"
        keys = [parse_vkey(self.evidence.public_key)] if self.evidence.public_key else []
        known = self._open(note, keys, place)
        if known is None:
            return "damaged"
        if head is None or head.size < known.size:
            size = head.size if head is not None else 0
            self.report.fail(
                f"this data is older than what was signed: its root log ends at {size}, a head over {known.size} is remembered",
                str(heads_path(self.evidence.data_dir)),
            )
            return "rolled back"
        tree = TreeFiles(tree_dir(self.evidence.data_dir, ROOT), head.size)
        try:
            if tree.root(known.size) != known.root:
                self.report.fail(f"the root log does not extend the remembered head over {known.size} entries", str(tree.dir))
            else:
                self.report.tier = "remembered head"
        except TallystickError as error:
            self.report.fail(error.message, error.place or str(tree.dir))
        finally:
            tree.close()
        return f"size {known.size} of {head.size}"

    def check_trees(self) -> str:
        """Step 4."""
        leaves = 0
        for name in sorted({*self.heads.heads, *self.view.quotes} - {ROOT}):
            head = self.heads.heads.get(name)
            quotes = self.view.quotes.get(name)
            if head is None or (quotes is not None and quotes.sizes and quotes.sizes[-1] > head.size):
                quoted = quotes.sizes[-1] if quotes is not None else 0
                size = head.size if head is not None else 0
                self.report.fail(
                    f"the root log quotes a head over {quoted} of the log {name}, the signed heads end at {size}",
                    str(heads_path(self.evidence.data_dir)),
                )
                continue
            leaves += head.size
            self._check_tenant_tree(name, head)
        return f"{leaves} leaves"

    def check_accounts(self) -> str:
        """Step 5."""
        count = 0
        for name, head in sorted(self.heads.heads.items()):
            if not name.endswith("/account"):
                continue
            handle = name.removesuffix("/account")
            excuses = self.excuses[handle] = Excuses(handle, self.view)
            erased = self.erased[handle] = Erased()
            directory = tree_dir(self.evidence.data_dir, name)
            tree = TreeFiles(directory, head.size)
            for number, line in checked_entries(directory, head.size, tree, self.report):
                count += 1
                place = f"{directory}/entries, entry {number}"
                try:
                    entry = read_entry(line, None)
                    excuses.take(number, entry, place, self.report)
                    erased.take(number, entry, place, self.report)
                except TallystickError as error:
                    self.report.fail(error.message, place)
            tree.close()
        return f"{count} entries"

    def check_journal(self) -> str:
        """Step 6."""
        if self.evidence.journal is None:
            self.report.not_proven.append("content: without its keys the journal was not read")
            return "not read"
        promised = max([self.view.mark, *(head.mark for head in self.heads.heads.values())])
        return check_journal(self.evidence.journal, self.evidence.data_dir, self.trees, promised, self.report)

    def check_archive(self) -> str:
        """Step 7."""
        chunks = self.evidence.chunks
        if chunks is None:
            reason = self.evidence.chunks_closed or "it is not there"
            self.report.not_proven.append(f"content: the archive was not read: {reason}")
            return "not read"
        server = next((head.origin.rpartition("/log/")[0] for name, head in self.heads.heads.items() if name == ROOT), "")
        keys = self.view.keys.get(manifest_key_name(server), [])
        trees = {tree.head.origin: tree for tree in self.trees.values()}
        expired = {chunk for excuses in self.excuses.values() for chunk in excuses.chunks}
        is_open = not self.evidence.chunks_closed
        good = check_chunks(chunks, trees, keys, self.report, is_open=is_open, expired=expired)
        if good and self.evidence.chunks_closed:
            self.chunks_unread = good
            self.report.not_proven.append(f"content: {good} chunks were not opened: {self.evidence.chunks_closed}")
        if not keys and good:
            self.report.not_proven.append("archive: no key for manifests is introduced in the root log")
        return f"{good} chunks"

    def check_sealed(self) -> str:
        """Step 8."""
        keys = self.evidence.sealed_keys
        if keys is None:
            if any(tree.groups for tree in self.trees.values()):
                self.report.not_proven.append("sealed members: without the key store it is not known which can be opened")
            return "not judged"
        verdicts: Counter[str] = Counter()
        for name, tree in sorted(self.trees.items()):
            verdicts += check_sealed(name, tree, self.erased.get(name) or Erased(), keys, self.report)
        return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "none"

    def check_absences(self) -> str:
        """Step 9."""
        evidence = self.evidence
        is_complete = evidence.journal is not None and evidence.chunks is not None and not self.chunks_unread
        for name, tree in sorted(self.trees.items()):
            check_absences(tree, self.excuses.get(name) or Excuses(name, self.view), self.report, is_complete=is_complete)
            tree.tree.close()
        self.report.events = sum(tree.seen.count(1) for tree in self.trees.values())
        waiting = sum(tree.beyond for tree in self.trees.values())
        if waiting:
            self.report.notes.append(f"{waiting} lines are accepted and not sealed yet")
        return f"{self.report.events} events found behind their leaves, {len(self.report.excused)} absences excused"

    def _check_tenant_tree(self, name: str, head: Head) -> None:
        """A head's signature and root, the level files, and every quoted head's root."""
        tree = TreeFiles(tree_dir(self.evidence.data_dir, name), head.size)
        before = len(self.report.problems)
        check_tree(tree, head, self.report)
        keys = self.view.keys.get(head.origin, [])
        if keys:
            self._open(head.note, keys, f"{heads_path(self.evidence.data_dir)}, log {name}")
        else:
            self.report.not_proven.append(f"signer of {head.origin}: the root log has not introduced its key yet")
        quotes = self.view.quotes.get(name)
        if len(self.report.problems) == before and quotes is not None:
            for size, root in zip(quotes.sizes, quotes.roots, strict=True):
                if tree.root(size) != root:
                    self.report.fail(f"the tree does not extend the head over {size} that the root log quotes", str(tree.dir))
                    break
        if "/" not in name:
            self.trees[name] = EventTree(tree, head)
        else:
            tree.close()

    def _open(self, note: str, keys: list[VerifierKey], place: str) -> Checkpoint | None:
        """The checkpoint of a note, its signature checked when there are keys. None, and a problem, when it does not hold."""
        try:
            return open_checkpoint(note, keys) if keys else read_checkpoint(note)
        except CheckpointError as error:
            self.report.fail(f"a head does not hold: {error}", place)
            return None

    def _bad_line(self, found: BadLine, path: Path) -> None:
        place = f"{path}, bytes {found.start} to {found.end - 1}"
        if found.is_torn:
            self.report.notes.append(f"an unfinished round, never published, ends the signed heads ({place})")
        else:
            self.report.fail(found.reason, place)
