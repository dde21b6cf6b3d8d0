"""Trees, signed heads, account entries and the root log over crashes: what was published is extended, and nothing is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from support.crash_model import CODES, SEEDS, CrashModel, ModelError, check_goes_red, check_model
from tallystick.config import DataSettings, Duration, JournalSettings, SealSettings, Size
from tallystick.durable import make_dir, set_observer
from tallystick.errors import IntegrityError
from tallystick.evidence import account, heads, sealer, trees
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import event_hashes, read_entry
from tallystick.evidence.growth import Growth
from tallystick.evidence.heads import Heads, HeadsFile
from tallystick.evidence.merkle import leaf_hashes
from tallystick.evidence.origin import tree_dir
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.evidence.trees import TreeFiles
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import AccountEntry, Append, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.retire import retire_segments
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore

Note = Callable[[str, int, str], None]
JOURNAL = JournalSettings(segment_size=Size("64KiB"), dedupe_events=1000)
DATA = DataSettings(quota=Size("1GiB"), free_min=Size("1MiB"), reserve=Size("64KiB"))
SEAL = SealSettings(interval=Duration("10ms"), root_interval=Duration("0s"), heartbeat=Duration("1h"))
SERVER = "audit.example.com"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trees are synced after a few leaves, and the heads file is written anew when it has a few kilobytes."""
    monkeypatch.setattr(sealer, "_SYNC_LEAVES", 5)
    monkeypatch.setitem(HeadsFile.__init__.__kwdefaults__, "compact_bytes", 4_000)  # type: ignore[arg-type]


@dataclass
class Promised:
    """By handle: lines and ids of account entries that the journal has acknowledged; by tree: size and root of its published head."""

    lines: dict[str, list[bytes]]
    entries: dict[str, list[str]]
    published: dict[str, tuple[int, bytes]]


class Place:
    """One installation: ``data`` and ``keys`` beside it, on the same disk."""

    def __init__(self, directory: Path) -> None:
        self.data, self.keys_dir = directory / "data", directory / "keys"
        self.at_start = Heads(self.data, unpublished=True).state.heads
        self.keys = KeyStore.open(self.keys_dir)

    def sealer(self, *, is_suspect: bool = False) -> Sealer:
        place = SealerPlace(self.data, self.keys_dir, SERVER, "ab" * 32)
        journal = JournalReader(self.data, self.keys, patience_s=0)
        made = Sealer(place, self.keys, SEAL, journal, Cursor(self.data, "sealer"), is_suspect=is_suspect)
        made.start()
        return made

    def write(self, request: Append | None = None) -> None:
        """One life of the journal's writer."""

        async def run() -> None:
            known = Heads(self.data, unpublished=True)
            journal = Journal.open(self.data, self.keys, JOURNAL, DATA, known_sizes=known.sealed_sizes(), known_seq=known.mark())
            try:
                if journal.recovered.damage:
                    raise ModelError(f"the journal is damaged: {journal.recovered.damage}")
                if request is not None:
                    await journal.append(request)
            finally:
                await journal.close()

        asyncio.run(run())


class SealerModel(CrashModel):
    """The journal is written between the operations and keeps what it has; sealing is cut at every step."""

    @initialize()
    def begin(self) -> None:
        make_dir(self.data / "data" / "run")
        KeyStore.create(self.data / "keys")
        registry = TenantRegistry(self.data / "data")
        self.tenants = [registry.create(name) for name in ("acme", "globex")]
        self.disk.knows_all()
        self.promised = Promised({t.handle: [] for t in self.tenants}, {t.handle: [] for t in self.tenants}, {})
        self.made = 0
        self.start()

    def open(self) -> None:
        self.place = Place(self.data)
        self.place.write()
        self.sealer = self.place.sealer()

    def close(self) -> None:
        if hasattr(self, "sealer"):
            self.sealer.close()

    def expected(self) -> Promised:
        now = Heads(self.place.data).state.heads
        published = {**self.promised.published, **{name: (head.size, head.root) for name, head in now.items()}}
        copied = [{handle: list(items) for handle, items in of.items()} for of in (self.promised.lines, self.promised.entries)]
        return Promised(copied[0], copied[1], published)

    def recover(self, directory: Path) -> Place:
        """As a start does: the journal's writer first, then the sealer, until everything is sealed."""
        place = Place(directory)
        place.write()
        made = place.sealer()
        try:
            while made.seal():
                pass
            made.stop()
        finally:
            made.close()
        return place

    def judge(self, found: Any, expected: Any) -> None:
        state = Heads(found.data, unpublished=True).state
        for name, (size, root) in expected.published.items():
            if name not in found.at_start or found.at_start[name].size < size:
                raise ModelError(f"{name}: a head over {size} leaves was published and is gone")
            with Tree(found, name) as tree:
                if tree.root(size) != root:
                    raise ModelError(f"{name}: the tree does not extend the head over {size} leaves that was published")
        for handle, lines in expected.lines.items():
            self._judge_tree(found, state, handle, [event_hashes([line]) for line in lines])
        for handle, ids in expected.entries.items():
            log = AccountLog(tree_dir(found.data, f"{handle}/account"))
            stored = log.entries(0, log.count) if log.count else []
            log.close()
            if [read_entry(entry)["id"] for entry in stored] != ids:
                raise ModelError(f"{handle}: {len(stored)} account entries, expected {len(ids)}")
            self._judge_tree(found, state, f"{handle}/account", [leaf_hashes([entry]) for entry in stored])

    def _judge_tree(self, found: Place, state: Any, name: str, leaves: list[bytes]) -> None:
        size = state.heads[name].size if name in state.heads else 0
        if size != len(leaves):
            raise ModelError(f"{name}: {size} leaves are sealed, {len(leaves)} were accepted")
        with Tree(found, name) as tree:
            if tree.hashes(0, 0, size) != b"".join(leaves):
                raise ModelError(f"{name}: other leaves than were accepted")

    def adopt(self, found: Any, expected: Any) -> None:
        """What was published stays so; the rest the journal has."""
        self.promised = expected

    @rule(tenant=st.integers(0, 1), lines=st.integers(0, 6), entries=st.integers(0, 3))
    def write(self, tenant: int, lines: int, entries: int) -> None:
        chosen = self.tenants[tenant]
        self.made += 1
        made = [b'{"v":1,"n":"%d.%d"}' % (self.made, number) for number in range(lines)]
        ids = [f"{self.made}.{number}" for number in range(entries)]
        batches = [TenantBatch(chosen, made, [None] * lines, [None] * lines, f"01234567-89ab-7cde-8f01-{self.made:06d}")]
        account = [AccountEntry(handle=chosen.handle, id=name, entry={"type": "delivery", "id": name}) for name in ids]
        set_observer(self.disk)
        try:
            self.place.write(Append(batches if lines else [], account=account))
        finally:
            set_observer(None)
        self.promised.lines[chosen.handle] += made
        self.promised.entries[chosen.handle] += ids

    @rule(seed=SEEDS, is_moving=st.booleans())
    def seal(self, seed: int, is_moving: bool = True) -> None:
        """``is_moving``: the cursor too, when that is due."""
        if not is_moving:
            self.sealer._is_sync_due = lambda: False  # type: ignore[method-assign]
        with self.cutting(seed):
            while self.sealer.seal():
                pass
        vars(self.sealer).pop("_is_sync_due", None)

    @rule(seed=SEEDS)
    def restart(self, seed: int) -> None:
        """In good order; the cursor is moved."""
        with self.cutting(seed):
            self.sealer.stop()
            self.sealer = self.place.sealer()

    @rule()
    def kill(self) -> None:
        self.close()
        set_observer(self.disk)
        try:
            self.sealer = self.place.sealer()
        finally:
            set_observer(None)

    @rule()
    def retire(self) -> None:
        """Segments that the cursor has passed are gone for good."""
        set_observer(self.disk)
        retire_segments(self.place.data, ["sealer"])
        set_observer(None)

    @rule(step=st.integers(0, 12), code=CODES, seed=SEEDS)
    def seal_fails(self, step: int, code: int, seed: int) -> None:
        """A new sealer begins from what is there."""
        with self.failing(step, code) as raised:
            while self.sealer.seal():
                pass
        if raised:
            self.close()
            set_observer(self.disk)
            try:
                self.sealer = self.place.sealer(is_suspect=True)
            finally:
                set_observer(None)
        self.seal(seed)

    @rule(seed=SEEDS)
    def power(self, seed: int) -> None:
        self.cut_now(seed)

    @rule(seed=SEEDS)
    def disk_lies(self, seed: int) -> None:
        """What such a disk has lost is noticed, or made again from the journal; never is something else signed in its place."""
        with self.lying(seed) as image:
            while self.sealer.seal():
                pass
        with suppress(IntegrityError):
            found = self.recover(image)
            self.judge(found, Promised(self.promised.lines, self.promised.entries, {}))
        self.begin_anew()
        self.begin()


class Tree:
    """A tree's files, closed at the end."""

    def __init__(self, place: Place, name: str) -> None:
        self._tree = TreeFiles(tree_dir(place.data, name))

    def __enter__(self) -> TreeFiles:
        return self._tree

    def __exit__(self, *_: object) -> None:
        self._tree.close()


def test_sealer(note: Note) -> None:
    """Every published head is there and extended; every event and account entry has its leaf, once and in order."""
    check_model(SealerModel, examples=6, steps=10)


@pytest.mark.slow_fault
@pytest.mark.timeout(3600)
def test_sealer_deep(note: Note) -> None:
    """The same for longer, with each durable step cut, and each recovery."""
    note(
        "model of trees, heads and entries: a cut before every durable step",
        1,
        check_model(SealerModel, examples=8, steps=10, is_deep=True),
    )


def trees_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor moves on before the trees are on disk."""
    monkeypatch.setattr(trees, "sync_data", lambda fd: None)


def heads_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are published before they are on disk."""
    monkeypatch.setattr(heads, "sync_data", lambda fd: None)


def entries_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root log's entries are signed before they are on disk."""
    monkeypatch.setattr(account, "sync_data", lambda fd: None)


def entries_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that a killed sealer left unsynced are counted, and neither written again nor synced."""
    real = Growth._recover_account

    def recover(self: Growth, name: str, synced: int, head: Any) -> None:
        real(self, name, synced, head)
        self._account(name)._is_dirty = False

    monkeypatch.setattr(Growth, "_recover_account", recover)


STANDINS = [trees_unsynced, heads_unsynced, entries_unsynced]


@pytest.mark.parametrize("standin", STANDINS, ids=lambda made: made.__name__)
def test_sealer_goes_red(note: Note, monkeypatch: pytest.MonkeyPatch, standin: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each careless way of storing is found."""
    standin(monkeypatch)
    check_goes_red(SealerModel)
    note(f"model of trees, heads and entries, stand-in `{standin.__name__}`", 1, "goes red")


def test_adopted_entries_go_red(note: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in one order of operations, that chance seldom finds: seal, kill, move the cursor, and cut the power."""
    entries_adopted(monkeypatch)
    with pytest.raises(ModelError):
        _adopt_and_cut()
    note("model of trees, heads and entries, stand-in `entries_adopted`", 1, "goes red")


def _adopt_and_cut() -> None:
    for seed in range(20):
        model = SealerModel()
        try:
            model.begin()
            model.write(0, 0, 3)
            model.seal(seed, is_moving=False)
            model.kill()
            model.seal(seed)
            model.power(seed)
        finally:
            model.teardown()
