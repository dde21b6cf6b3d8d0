"""``verify`` of a server: recomputes the logs that it serves (C2SP tlog-tiles), in numbered steps, and says what it could not.

1. The root log: its head's signature, every tile up to the signed root, every entry; the keys and heads in the entries.
2. The remembered head is a smaller tree of the same log.
3. The signed heads: each log that the root log quotes has a head by an introduced key, no smaller than the quoted one.
4. Account logs: every tile up to the signed root, every head that the root log quotes, every entry.
5. Event logs: the same; every line that is served is the leaf it claims to be.
6. Absences: every leaf without a line is excused by an entry that stands to reason.

The list of logs comes from the root log alone, so a server cannot leave one out that it has quoted once. What it has never
quoted, or quotes to others only, cannot be seen from here: that is what ``freshness`` and ``signer`` in ``not_proven`` say.

Memory: about 150 bytes for each head that the root log quotes, one tile a level, and what ``fetch`` holds ahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tallystick.errors import CheckpointError, TallystickError, TerminalError
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from tallystick.evidence.entry import ROOT_TYPES, lost_text, read_entry
from tallystick.evidence.note import VerifierKey, parse_vkey
from tallystick.evidence.origin import ROOT, tree_name
from tallystick.evidence.tile_path import TILE_WIDTH
from tallystick.evidence.verify.absence import Excuses
from tallystick.evidence.verify.report import Report
from tallystick.evidence.verify.root import Quotes, RootView
from tallystick.evidence.verify.served_log import LogCheck, Take, Walked
from tallystick.evidence.verify.walk import Fetch, path_count

_NAME = re.compile(r"[a-z2-7]{16}(/account)?")
_OURS = b"tallystick."
_LARGE = b"tallystick.large/v1 "


@dataclass(frozen=True, slots=True)
class ServedEvidence:
    """What a verification works on. ``url`` names the server in places; ``public_key`` is the root log's vkey, from elsewhere;
    ``remembered`` a root head (note) seen earlier. ``progress`` is told the step, and how many paths of how many are read.
    """

    fetch: Fetch
    url: str
    public_key: str | None = None
    remembered: str | None = None
    progress: Callable[[str, int, int], None] = field(default=lambda title, done, total: None)


def verify_served(evidence: ServedEvidence) -> Report:
    """Run all steps. Raises TerminalError when the server shows no root head to this key, TransientError when it is away."""
    return _Verification(evidence).run()


class _Verification:
    """The state that one step leaves to the next."""

    def __init__(self, evidence: ServedEvidence) -> None:
        self.evidence = evidence
        self.report = Report()
        self.view = RootView()
        self.root: Checkpoint | None = None
        self.remembered: Checkpoint | None = None
        self.remembered_doubt = ""
        self.root_walk = Walked()
        self.heads: dict[str, Checkpoint] = {}
        self.excuses: dict[str, Excuses] = {}
        self.absent: dict[str, list[tuple[int, int]]] = {}
        self.title, self.done, self.total = "", 0, 0

    def run(self) -> Report:
        steps = (
            ("root log", self.check_root),
            ("remembered head", self.check_remembered),
            ("signed heads", self.check_heads),
            ("account logs", self.check_accounts),
            ("event logs", self.check_events),
            ("absences", self.check_absences),
        )
        for title, step in steps:
            self.title = title
            self.evidence.progress(title, self.done, self.total)
            self.report.done(title, step())
        return self.report

    def check_root(self) -> str:
        """Step 1."""
        place = self._place(f"/log/{ROOT}/checkpoint")
        answer = next(iter(self._fetch([f"/log/{ROOT}/checkpoint"])))
        if isinstance(answer, TallystickError):
            raise answer
        keys = [parse_vkey(self.evidence.public_key)] if self.evidence.public_key else []
        if not keys:
            self.report.not_proven.append("signer: no public key of the root log was given, so anyone could have made this log")
        head = self.root = self._open(answer, keys, place)
        if head is None:
            return "damaged"
        if tree_name(head.origin) != ROOT:
            self.report.fail(f"this is the head of {head.origin}, not of a root log", place)
        self.report.tier = "signer"
        self.total = path_count(head.size, with_entries=True)
        self.remembered = self._read_remembered(head.origin, keys)
        older = Quotes()
        if self.remembered is not None and self.remembered.size <= head.size:
            older = Quotes([0], [self.remembered.size], [self.remembered.root])

        def take(number: int, entry: bytes, place: str) -> None:
            try:
                self.view.take(number, read_entry(entry, ROOT_TYPES))
            except (TallystickError, KeyError, TypeError, ValueError) as error:
                self.report.fail(f"an entry of the root log cannot be believed: {error}", f"{place}, entry {number}")

        self.root_walk = self._walk(ROOT, head, older, take)
        return f"{head.size} entries, {len(self.view.keys)} keys"

    def check_remembered(self) -> str:
        """Step 2."""
        known, size = self.remembered, self.root.size if self.root is not None else 0
        if self.evidence.remembered is None:
            self.report.not_proven.append(
                "freshness: no remembered head was given, so a cut tail or an older copy would look the same"
            )
            return "none given"
        if known is None:
            if self.remembered_doubt:
                self.report.fail(f"a head does not hold: {self.remembered_doubt}", "the remembered head")
            return "damaged"
        place = self._place(f"/log/{ROOT}")
        if size < known.size:
            text = f"this log is older than what was signed: it ends at {size}, a head over {known.size} is remembered"
            self.report.fail(text, place)
            return "rolled back"
        if self.root_walk.contradicted is not None:
            self.report.fail(f"the root log does not extend the remembered head over {known.size} entries", place)
        elif self.root_walk.agreed:
            self.report.tier = "remembered head"
        return f"size {known.size} of {size}"

    def check_heads(self) -> str:
        """Step 3."""
        names = sorted(name for name in self.view.quotes if _NAME.fullmatch(name))
        for name in sorted(set(self.view.quotes) - set(names)):
            self.report.fail("the root log quotes a log that cannot be one", f"{self._place('/log')}, {name!r}")
        server = self.root.origin.rpartition("/log/")[0] if self.root is not None else ""
        for name, answer in zip(names, self._fetch(f"/log/{name}/checkpoint" for name in names), strict=True):
            self._take_head(name, f"{server}/log/{name}", answer)
        if self.root is not None and self.root_walk.entries == self.root.size and not names:
            self.report.not_proven.append("content: the root log quotes no other log yet, so nothing but itself was checked")
        self.total += sum(path_count(head.size, with_entries=True) for head in self.heads.values())
        return f"{len(self.heads)} of {len(self.view.quotes)} logs that the root log quotes"

    def check_accounts(self) -> str:
        """Step 4."""
        leaves = entries = 0
        for name in [name for name in self.heads if name.endswith("/account")]:
            handle = name.removesuffix("/account")
            excuses = self.excuses[handle] = Excuses(handle, self.view)

            def take(number: int, entry: bytes, place: str, excuses: Excuses = excuses) -> None:
                try:
                    excuses.take(number, read_entry(entry, None), f"{place}, entry {number}", self.report)
                except TallystickError as error:
                    self.report.fail(error.message, f"{place}, entry {number}")

            walked = self._walk(name, self.heads[name], self.view.quotes[name], take)
            self._report_quotes(name, walked)
            for first, count in walked.absent:
                self.report.fail(
                    f"the entries {first} to {first + count - 1} of an account log are missing", self._place(f"/log/{name}")
                )
            leaves, entries = leaves + walked.leaves, entries + walked.entries
        return f"{leaves} leaves, {entries} entries"

    def check_events(self) -> str:
        """Step 5."""
        leaves = 0
        for name in [name for name in self.heads if not name.endswith("/account")]:
            lines = _Lines()
            walked = self._walk(name, self.heads[name], self.view.quotes[name], lines.take)
            self._report_quotes(name, walked)
            self.absent[name] = walked.absent
            lines.report(self.heads[name].origin, self.report)
            leaves += walked.leaves
            self.report.events += walked.entries - lines.lost
        return f"{leaves} leaves, {self.report.events} events"

    def check_absences(self) -> str:
        """Step 6."""
        for name, runs in self.absent.items():
            excuses = self.excuses.get(name) or Excuses(name, self.view)
            for first, count in runs:
                self._check_absent(self.heads[name].origin, first, count, excuses)
        return f"{len(self.report.excused)} absences excused"

    def _check_absent(self, origin: str, first: int, count: int, excuses: Excuses) -> None:
        """Bundles are served whole or not at all: where one of its events expired, the others of a bundle cannot be read either."""
        if excuses.covers(first, count):
            self.report.excused.append(f"{origin}: indexes {first} to {first + count - 1} expired")
            return
        for start in range(first, first + count, TILE_WIDTH):
            length = min(TILE_WIDTH, first + count - start)
            span = f"indexes {start} to {start + length - 1}"
            rest = excuses.rest(start, length)
            missing = sum(size for _, size in rest)
            if missing == length:
                self.report.fail(f"no line is served for the {span}, and no entry excuses it", origin)
            else:
                self.report.excused.append(f"{origin}: {length - missing} of the {span} expired")
            if 0 < missing < length:
                self.report.not_proven.append(f"content of {origin}: {missing} of the {span} share a bundle with expired ones")

    def _take_head(self, name: str, origin: str, answer: bytes | TallystickError) -> None:
        """A log's head, when it is one that the root log's word of it allows."""
        place, quotes = self._place(f"/log/{name}/checkpoint"), self.view.quotes[name]
        if isinstance(answer, TerminalError):
            self.report.not_proven.append(f"{origin}: the root log quotes it, but it is not shown to this key: {answer.message}")
            return
        if isinstance(answer, TallystickError):
            self.report.fail(answer.message, place)
            return
        head = self._open(answer, self.view.keys.get(origin, []), place)
        if head is None:
            return
        if head.origin != origin:
            self.report.fail(f"this is the head of {head.origin}, not of {origin}", place)
            return
        if head.size < quotes.sizes[-1]:
            text = f"the log is cut: the root log quotes a head over {quotes.sizes[-1]} leaves, the server shows {head.size}"
            self.report.fail(text, place)
        self.heads[name] = head

    def _walk(self, name: str, head: Checkpoint, older: Quotes, take: Take) -> Walked:
        return LogCheck(self._fetch, self.evidence.url, name, head, self.report).run(older, take)

    def _report_quotes(self, name: str, walked: Walked) -> None:
        if walked.contradicted is not None:
            text = f"the log does not extend the head over {walked.contradicted} leaves that the root log quotes"
            self.report.fail(text, self._place(f"/log/{name}"))

    def _read_remembered(self, origin: str, keys: list[VerifierKey]) -> Checkpoint | None:
        """The remembered head, when it is one of this log; step 2 says so when it is not."""
        note = self.evidence.remembered
        if note is None:
            return None
        try:
            head = open_checkpoint(note, keys) if keys else read_checkpoint(note)
        except CheckpointError as error:
            self.remembered_doubt = str(error)
            return None
        if head.origin != origin:
            self.remembered_doubt = f"it is one of {head.origin}, not of {origin}"
            return None
        return head

    def _open(self, answer: bytes, keys: list[VerifierKey], place: str) -> Checkpoint | None:
        """A served head, its signature checked when there are keys. A head that nobody known signed is a problem, and is followed
        all the same: what else does not hold is worth knowing. None when it is no head at all.
        """
        try:
            note = answer.decode("utf-8")
            head = read_checkpoint(note)
        except (CheckpointError, UnicodeDecodeError) as error:
            self.report.fail(f"a head cannot be read: {error}", place)
            return None
        if keys:
            try:
                open_checkpoint(note, keys)
            except CheckpointError as error:
                self.report.fail(f"a head does not hold: {error}", place)
        return head

    def _fetch(self, paths: Iterable[str]) -> Iterator[bytes | TallystickError]:
        for answer in self.evidence.fetch(paths):
            self.done += 1
            self.total = max(self.total, self.done)
            self.evidence.progress(self.title, self.done, self.total)
            yield answer

    def _place(self, path: str) -> str:
        return f"{self.evidence.url}{path}"


class _Lines:
    """Event entries that are no line: declared lost, or too long for a bundle."""

    def __init__(self) -> None:
        self.lost = 0
        self._span = (0, 0)
        self._large = 0

    def take(self, index: int, entry: bytes, _: str) -> None:
        if not entry.startswith(_OURS):
            return
        if entry == lost_text(index):
            self._span = (self._span[0] if self.lost else index, index)
            self.lost += 1
        elif entry.startswith(_LARGE):
            self._large += 1

    def report(self, origin: str, report: Report) -> None:
        if self.lost:
            text = f"{self.lost} events were lost by the disk and declared so: indexes {self._span[0]} to {self._span[1]}"
            report.fail(text, origin)
        if self._large:
            report.not_proven.append(
                f"content: {self._large} long events of {origin} are served as their digest; their lines were not read"
            )
