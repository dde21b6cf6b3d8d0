from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick import durable
from tallystick.errors import IntegrityError, OverloadedError
from tallystick.journal import dedupe_run, dedupe_store
from tallystick.journal.dedupe import _FROZEN_MAX, Claim, Dedupe, Digester, First, dedupe_section
from tallystick.journal.dedupe_digest import decode_section, encode_section
from tallystick.privacy.keys import KeyStore

HANDLE = "abcdefghij234567"
PREFIX = "018f3c2a-7b10-7abc-9def-012345"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.create(tmp_path_factory.mktemp("installation") / "keys")


@pytest.fixture(autouse=True)
def _merge_at_32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as many runs as in earnest: each of them costs syncs."""
    monkeypatch.setattr(dedupe_store, "_FAN_IN", 32)


@pytest.fixture
def book(tmp_path: Path, keys: KeyStore) -> Iterator[Book]:
    book = Book(tmp_path, keys)
    yield book
    durable.set_observer(None)
    book.dedupe.close()


class Book:
    """A stand-in for the journal's writer: numbers events, keeps their frames, and can start again from them."""

    def __init__(self, directory: Path, keys: KeyStore, *, events: int = 1_000_000, table_rows: int = 64) -> None:
        self.directory, self.keys, self.events, self.table_rows = directory, keys, events, table_rows
        self.digester = Digester(keys.derive("dedupe"))
        self.next_seq = 1
        self.frames: list[tuple[bytes, int, list[bytes]]] = []
        self.dedupe = self.open()

    def open(self) -> Dedupe:
        return Dedupe.open(self.directory, self.keys, self.events, table_rows=self.table_rows)

    def claim(self, ids: list[str | None], contents: list[bytes] | None = None, prefix: str = "") -> Claim:
        contents = contents or [b"content of " + str(event_id).encode() for event_id in ids]
        digests = [self.digester.ids(HANDLE, [event_id])[0] if event_id else None for event_id in ids]
        hashed = self.digester.contents(contents)
        return self.dedupe.claim(HANDLE, digests, [h if d else None for d, h in zip(digests, hashed, strict=True)], prefix)

    def commit(self, claim: Claim) -> int:
        lines = [f"line {self.next_seq + n}".encode() for n in range(len(claim.new))]
        first = self.next_seq
        self.frames.append((dedupe_section(claim), first, lines))
        self.dedupe.commit(claim, first, first - 1, [leaf(line) for line in lines])
        self.next_seq += len(lines)
        return first

    def add(self, ids: list[str | None], prefix: str = "") -> int:
        claim = self.claim(ids, prefix=prefix)
        assert claim.new == list(range(len(ids)))
        return self.commit(claim)

    def crash(self) -> None:
        """Forget memory without flushing, open the files again and replay the frames."""
        self.dedupe._store.wait_until_flushed(10)
        self.dedupe._active = type(self.dedupe._active)()
        self.dedupe.close()
        self.dedupe = self.open()
        for section, first_seq, lines in self.frames:
            self.dedupe.replay(HANDLE, section, first_seq, first_seq - 1, len(lines), lambda lines=lines: lines)

    def settle(self) -> None:
        self.dedupe.flush()
        assert self.dedupe._store.wait_until_flushed(10)


def leaf(line: bytes) -> bytes:
    return hashlib.sha256(b"\0" + line).digest()


def first(seq: int) -> First:
    return First(seq, seq - 1, leaf(f"line {seq}".encode()))


@pytest.mark.parametrize("place", ["memory", "run", "replayed"])
@pytest.mark.parametrize("count", [3, 200])
def test_same_id_is_duplicate_or_conflict_by_content(book: Book, place: str, count: int) -> None:
    """A stored id with the same content gives its first position, with other content a conflict, wherever it is kept."""
    ids: list[str | None] = [f"id-{n}" for n in range(count)]
    assert book.add(ids) == 1
    if place == "run":
        book.settle()
    elif place == "replayed":
        book.crash()
    claim = book.claim([*ids, "new"])
    assert claim.duplicates == {n: first(n + 1) for n in range(count)}
    assert (claim.new, claim.conflicts, claim.in_flight) == ([count], [], [])
    claim = book.claim(ids[:2], [b"other", b"content of id-1"])
    assert (claim.conflicts, list(claim.duplicates), claim.new) == ([0], [1], [])


def test_id_in_flight_is_told_until_commit_or_release(book: Book) -> None:
    """A second claim of an id in flight claims nothing; after release it is new, after commit a duplicate."""
    held = book.claim(["a", "b"])
    waiting = book.claim(["x", "b"])
    assert (waiting.in_flight, waiting.new, waiting.conflicts) == ([1], [], [])
    other = book.claim(["x"])
    assert other.new == [0]
    book.dedupe.release(other)
    book.dedupe.release(held)
    again = book.claim(["a", "b"])
    assert again.new == [0, 1]
    book.commit(again)
    assert book.claim(["b"]).duplicates == {0: first(2)}


def test_id_twice_in_one_batch(book: Book) -> None:
    """Within a batch the later one is a repeat of the first, or in conflict with it; of a stored id, a duplicate."""
    book.add(["stored"])
    claim = book.claim(
        ["a", "b", "a", "a", "stored", "stored"], [b"1", b"2", b"1", b"other", b"content of stored", b"content of stored"]
    )
    assert claim.new == [0, 1]
    assert claim.repeats == {2: 0}
    assert claim.conflicts == [3]
    assert claim.duplicates == {4: first(1), 5: first(1)}
    book.commit(claim)
    assert book.claim(["b"], [b"2"]).duplicates == {0: first(3)}


def test_tenants_do_not_share_ids(book: Book) -> None:
    """The digest of an id differs by tenant, so another tenant may use the same id."""
    assert book.digester.ids("a" * 16, ["x", PREFIX + "000001"]) != book.digester.ids("b" * 16, ["x", PREFIX + "000001"])


@pytest.mark.parametrize("place", ["memory", "run", "replayed"])
@pytest.mark.parametrize("filler", [1, 100])
def test_id_made_here_is_in_conflict_when_a_sender_uses_it(book: Book, place: str, filler: int) -> None:
    """A sender's id that shares the prefix of a batch made here is a conflict; other UUIDv7 and near misses are new."""
    book.add([None, None, "own"], prefix=PREFIX)
    if place == "run":
        book.settle()
    elif place == "replayed":
        book.crash()
    near = PREFIX[:-1] + "6000001"
    others: list[str | None] = [f"other-{n}" for n in range(filler)]
    claim = book.claim([PREFIX + "000001", near, PREFIX.upper() + "000001", PREFIX, *others])
    assert claim.conflicts == [0]
    assert claim.new == list(range(1, 4 + filler))


def test_uuid7_of_a_sender_are_ordinary_ids(book: Book) -> None:
    """Ids of a sender that share a prefix among themselves are told apart exactly."""
    ids: list[str | None] = [f"{PREFIX}{n:06x}" for n in range(300)]
    book.add(ids)
    book.settle()
    claim = book.claim([*ids, PREFIX + "ffffff"])
    assert claim.duplicates == {n: first(n + 1) for n in range(300)}
    assert claim.new == [300]


def test_all_ids_are_found_after_many_flushes_and_a_merge(book: Book) -> None:
    """Over 40 flushed tables, a merge among them, each id is found with its own position and content, also after a restart."""
    for batch in range(42):
        book.add([f"{batch}-{n}" for n in range(63)] + [None], prefix=f"018f3c2a-7b10-7abc-9def-{batch:06x}")
        book.settle()
    for _ in range(2):
        assert book.dedupe.status()["runs"] == 11
        for batch in range(42):
            claim = book.claim([f"{batch}-{n}" for n in range(63)] + [f"018f3c2a-7b10-7abc-9def-{batch:06x}000000"])
            assert claim.duplicates == {n: first(batch * 64 + n + 1) for n in range(63)}
            assert claim.conflicts == [63]
        assert book.claim(["never seen"]).new == [0]
        book.crash()


def test_old_runs_go_and_the_window_stays(tmp_path: Path, keys: KeyStore) -> None:
    """Once more than N newer events are in runs the oldest files are removed; the last N ids stay known."""
    book = Book(tmp_path, keys, events=256)
    for batch in range(12):
        book.add([f"{batch}-{n}" for n in range(64)])
        book.settle()
    files = list((tmp_path / "dedupe").glob("*.run"))
    assert 4 <= len(files) <= 5
    known = book.claim([f"{batch}-{n}" for batch in range(8, 12) for n in range(64)])
    assert len(known.duplicates) == 256
    assert book.claim(["0-0"]).new == [0]
    book.dedupe.close()


def test_durable_seq_rises_only_with_the_files(book: Book) -> None:
    """Before a flush nothing counts as kept; after it, everything up to the last event; a restart says the same."""
    book.add(["a", "b", "c"])
    assert book.dedupe.durable_seq == 0
    book.settle()
    assert book.dedupe.durable_seq == 3
    book.add(["d"])
    book.crash()
    assert book.dedupe.durable_seq == 3
    assert book.claim(["d"]).duplicates == {0: first(4)}


def test_failed_flush_loses_nothing_and_recovers(book: Book) -> None:
    """While the disk refuses, ids stay known from memory and claims are refused past a bound; afterwards all is flushed."""
    is_broken = threading.Event()
    is_broken.set()

    def fail(operation: str, _path: Path | None, _fd: int) -> None:
        if is_broken.is_set() and operation == "sync_file" and threading.current_thread().name == "dedupe":
            raise OSError(28, "no space")

    durable.set_observer(fail)
    for n in range(_FROZEN_MAX):
        book.add([f"id-{n}"])
        book.dedupe.flush()
    with pytest.raises(OverloadedError):
        book.claim(["another"])
    is_broken.clear()
    assert book.dedupe._store.wait_until_flushed(10)
    assert book.claim([f"id-{n}" for n in range(_FROZEN_MAX)]).duplicates == {n: first(n + 1) for n in range(_FROZEN_MAX)}
    assert book.dedupe.status()["failure"] is None


def test_full_tables_are_flushed_while_a_merge_goes_on(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge takes seconds at full size: tables that fill meanwhile become runs between its pieces, and every id stays known."""
    merge, entered, resume = dedupe_store.merge_runs, threading.Event(), threading.Event()
    waiting: list[tuple[int, int]] = []

    def slow_merge(runs: list[dedupe_run.Run], path: Path, keys: KeyStore, between: Callable[[], None]) -> int:
        def pause() -> None:
            entered.set()
            assert resume.wait(10)
            between()
            waiting.append((len(book.dedupe._store.view.frozen), book.dedupe.status()["runs"]))

        return merge(runs, path, keys, pause)

    monkeypatch.setattr(dedupe_run, "_SLICE_ROWS", 8)
    monkeypatch.setattr(dedupe_store, "merge_runs", slow_merge)
    for n in range(32):
        book.add([f"id-{n}-{m}" for m in range(3)])
        book.dedupe.flush()
        assert n == 31 or book.dedupe._store.wait_until_flushed(10)
    assert entered.wait(10)
    for n in (32, 33):
        book.add([f"id-{n}-{m}" for m in range(3)])
        book.dedupe.flush()
    resume.set()
    assert book.dedupe._store.wait_until_flushed(10)
    book.dedupe.close()
    assert waiting[:2] == [(1, 33), (0, 34)], "one more run after each piece, while the merge has none to show yet"
    assert len(waiting) >= 12
    assert book.dedupe.status()["runs"] == 3
    book.dedupe = book.open()
    for n in range(34):
        claim = book.claim([f"id-{n}-{m}" for m in range(3)])
        assert claim.duplicates == {m: first(3 * n + m + 1) for m in range(3)}


def test_nothing_is_left_behind_by_failed_tries(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """While writing or registering fails, each try leaves at most one file, and the first success removes it."""
    monkeypatch.setattr(dedupe_store, "_RETRY_S", 0.02)
    failing = ""

    def fail(operation: str, path: Path | None, _fd: int) -> None:
        if operation == failing and threading.current_thread().name == "dedupe":
            raise OSError(5, "input/output error")

    durable.set_observer(fail)
    for number, failing in enumerate(("write", "sync_file", "rename")):
        book.add([f"id-{number}"])
        book.dedupe.flush()
        for _ in range(3):
            _wait_for_failure(book)
        assert len(list((book.directory / "dedupe").glob("*.run"))) <= number + 1, failing
        failing = ""
        assert book.dedupe._store.wait_until_flushed(10)
        assert len(list((book.directory / "dedupe").glob("*.run"))) == number + 1
    book.crash()
    assert book.claim([f"id-{n}" for n in range(3)]).duplicates == {n: first(n + 1) for n in range(3)}


def _wait_for_failure(book: Book) -> None:
    store = book.dedupe._store
    store.failure = None
    deadline = time.monotonic() + 10
    while store.failure is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stop_at_every_durable_step_of_flush_and_merge(tmp_path: Path, keys: KeyStore) -> None:
    """Whichever durable step of flushing and merging is the last one done, a restart knows every id once."""
    steps = 0
    while steps < 200:
        directory = tmp_path / str(steps)
        book = Book(directory, keys)
        for n in range(31):
            book.add([f"id-{n}"])
            book.settle()
        remaining = [steps]

        def stop(_operation: str, _path: Path | None, _fd: int, remaining: list[int] = remaining) -> None:
            if threading.current_thread().name == "dedupe":
                if remaining[0] <= 0:
                    raise OSError("stopped here")
                remaining[0] -= 1

        durable.set_observer(stop)
        book.add(["id-31"])
        book.dedupe.flush()
        book.dedupe._store.close(0.05)
        durable.set_observer(None)
        book.dedupe = book.open()
        for section, first_seq, lines in book.frames:
            book.dedupe.replay(HANDLE, section, first_seq, first_seq - 1, len(lines), lambda lines=lines: lines)
        assert book.claim([f"id-{n}" for n in range(32)]).duplicates == {n: first(n + 1) for n in range(32)}
        book.dedupe.close()
        names = {path.name for path in (directory / "dedupe").glob("*.run")}
        assert len(names) == book.dedupe.status()["runs"]
        if remaining[0] > 0:
            break
        steps += 7
    assert steps > 20


def test_lost_register_is_rebuilt_from_the_runs(book: Book) -> None:
    """Without its register dedupe takes every readable run and knows what it knew."""
    for n in range(3):
        book.add([f"id-{n}"])
        book.settle()
    book.dedupe.close()
    for slot in "ab":
        (book.directory / "dedupe" / f"runs.{slot}").write_bytes(b"damaged")
    book.dedupe = book.open()
    assert book.dedupe.durable_seq == 3
    assert len(book.claim(["id-0", "id-1", "id-2"]).duplicates) == 3


def test_damaged_run_is_reported_and_the_rest_serves(book: Book) -> None:
    """A run with a broken header is counted in the status; ids of other runs are still known and intake goes on."""
    for n in range(2):
        book.add([f"id-{n}"])
        book.settle()
    book.dedupe.close()
    run = min((book.directory / "dedupe").glob("*.run"))
    run.write_bytes(b"\0" * 4096 + run.read_bytes()[4096:])
    book.dedupe = book.open()
    assert book.dedupe.status()["damaged"] == 1
    claim = book.claim(["id-0", "id-1"])
    assert (claim.new, list(claim.duplicates)) == ([0], [1])


def test_flipped_bit_in_a_row_is_found_by_the_next_merge(book: Book) -> None:
    """A merge reads everything and counts the run whose checksum fails; the ids of the others are unharmed."""
    book.add(["first"])
    book.settle()
    run = next((book.directory / "dedupe").glob("*.run"))
    data = bytearray(run.read_bytes())
    data[-40] ^= 1
    run.write_bytes(data)
    for n in range(31):
        book.add([f"id-{n}"])
        book.settle()
    book.dedupe.close()
    assert book.dedupe.status()["runs"] == 1
    assert book.dedupe.status()["damaged"] == 1
    book.dedupe = book.open()
    assert len(book.claim([f"id-{n}" for n in range(31)]).duplicates) == 31


def test_damaged_filter_is_made_again_from_the_keys(book: Book) -> None:
    """A flipped bit in a run's filter hides no id."""
    book.add([f"id-{n}" for n in range(50)])
    book.settle()
    book.dedupe.close()
    run = next((book.directory / "dedupe").glob("*.run"))
    data = bytearray(run.read_bytes())
    data[4096 + 8 : 4096 + 8 + 104] = bytes(104)
    run.write_bytes(data)
    book.dedupe = book.open()
    assert len(book.claim([f"id-{n}" for n in range(50)]).duplicates) == 50


def test_content_digests_are_not_readable_in_a_run(book: Book) -> None:
    """The digest of a content cannot be found in the file, so a copy of it confirms no guess."""
    book.add(["a"])
    book.settle()
    digest = book.digester.contents([b"content of a"])[0]
    assert digest not in next((book.directory / "dedupe").glob("*.run")).read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), count=st.integers(1, 40), has_prefix=st.booleans())
def test_section_round_trip(data: st.DataObject, count: int, has_prefix: bool) -> None:
    """What a frame keeps reads back the same for any mixture of own and made ids, and a cut section is refused."""
    positions = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    digests = [bytes([n]) * 16 for n in positions]
    prefix = b"p" * 13 + b"\0\0\0" if has_prefix else b""
    section = encode_section(prefix, count, positions, digests, digests[::-1])
    found = decode_section(section, count)
    assert (found.prefix, list(found.positions), found.ids, found.contents) == (prefix, positions, digests, digests[::-1])
    with pytest.raises(IntegrityError):
        decode_section(section[:-1], count)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=12), max_size=14),
    data=st.data(),
)
def test_matches_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, keys: KeyStore, batches: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Over random batches, flushes and restarts the answers equal those of a plain dictionary."""
    book = Book(tmp_path_factory.mktemp("model"), keys, table_rows=8)
    model: dict[int, tuple[int, int]] = {}
    for batch in batches:
        claim = book.claim([f"id-{n}" for n, _ in batch], [b"%d" % content for _, content in batch])
        new: dict[int, int] = {}
        for position, (event_id, content) in enumerate(batch):
            if event_id in model:
                expected = "duplicate" if model[event_id][1] == content else "conflict"
            elif event_id in new:
                expected = "repeat" if batch[new[event_id]][1] == content else "conflict"
            else:
                expected, new[event_id] = "new", position
            assert _told(claim, position) == expected
            if expected == "duplicate":
                assert claim.duplicates[position] == first(model[event_id][0])
        start = book.commit(claim)
        for place, position in enumerate(claim.new):
            model[batch[position][0]] = (start + place, batch[position][1])
        action = data.draw(st.sampled_from(["go on", "flush", "crash"]))
        if action == "flush":
            book.settle()
        elif action == "crash":
            book.crash()
    book.dedupe.close()


def _told(claim: Claim, position: int) -> str:
    if position in claim.new:
        return "new"
    if position in claim.duplicates:
        return "duplicate"
    return "repeat" if position in claim.repeats else "conflict"
