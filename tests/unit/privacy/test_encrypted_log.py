from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick import durable
from tallystick.errors import IntegrityError, KeysMissingError
from tallystick.privacy.encrypted_log import EncryptedLog
from tallystick.privacy.keys import KeyStore

RECORDS = [b"first", b"", b"third record, MARKER-7f3a", b"x" * 3000]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.create(tmp_path_factory.mktemp("installation") / "keys")


def make(path: Path, keys: KeyStore, records: list[bytes] = RECORDS) -> EncryptedLog:
    log = EncryptedLog(path, keys, "test")
    log.append(records)
    log.close()
    return log


def contents(path: Path, keys: KeyStore) -> list[tuple[int, bytes]]:
    return list(EncryptedLog(path, keys, "test").read())


def test_records_come_back_in_order_with_their_ordinals(tmp_path: Path, keys: KeyStore) -> None:
    """Appends over two processes read back in order, from any ordinal, and an absent file is an empty log."""
    path = tmp_path / "deep" / "log"
    assert contents(path, keys) == []
    log = EncryptedLog(path, keys, "test")
    assert log.append(RECORDS[:2]) == [0, 1]
    assert log.append(RECORDS[2:3]) == [2]
    log.close()
    assert EncryptedLog(path, keys, "test").append(RECORDS[3:]) == [3]
    assert contents(path, keys) == list(enumerate(RECORDS))
    assert list(EncryptedLog(path, keys, "test").read(2)) == [(2, RECORDS[2]), (3, RECORDS[3])]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_readable_at_rest(tmp_path: Path, keys: KeyStore) -> None:
    """The marker in a record is not in the file."""
    make(tmp_path / "log", keys)
    assert b"MARKER" not in (tmp_path / "log").read_bytes()


def test_each_append_is_synced_before_it_returns(tmp_path: Path, keys: KeyStore) -> None:
    """The last durable step of an append is the sync of the file that was written."""
    log = make(tmp_path / "log", keys)
    log.append([b"open again"])
    steps: list[str] = []
    durable.set_observer(lambda operation, _path, _fd: steps.append(operation))
    try:
        log.append([b"one more"])
    finally:
        durable.set_observer(None)
    assert steps == ["write", "sync_data"]


def test_file_cut_at_every_byte_keeps_all_whole_records_and_goes_on(tmp_path: Path, keys: KeyStore) -> None:
    """Wherever the file is cut, readers see a prefix, the next append continues, and the cut bytes are kept aside."""
    records = [b"a", b"bb", b"ccc"]
    make(tmp_path / "whole", keys, records)
    data = (tmp_path / "whole").read_bytes()
    whole_counts = set()
    for size in range(len(data)):
        path = tmp_path / f"cut-{size}"
        path.write_bytes(data[:size])
        kept = [record for _, record in contents(path, keys)]
        assert kept == records[: len(kept)]
        whole_counts.add(len(kept))
        log = EncryptedLog(path, keys, "test")
        assert log.append([b"next"]) == [len(kept)]
        log.close()
        assert [record for _, record in contents(path, keys)] == [*kept, b"next"]
        torn = path.with_name(path.name + ".torn")
        assert path.read_bytes().startswith(data[: size - (torn.stat().st_size if torn.exists() else 0)])
    assert whole_counts == {0, 1, 2}


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_flipped_bit_costs_at_most_its_own_record(
    tmp_path_factory: pytest.TempPathFactory, keys: KeyStore, at: int, bit: int
) -> None:
    """Any single flipped bit loses at most one record, none is changed, and one before the last is reported as damage."""
    directory = tmp_path_factory.mktemp("flip")
    records = [b"r%d" % n * 20 for n in range(6)]
    make(directory / "log", keys, records[:3])
    make(directory / "log", keys, records[3:])
    data = bytearray((directory / "log").read_bytes())
    data[at % len(data)] ^= 1 << bit
    (directory / "log").write_bytes(data)
    log = EncryptedLog(directory / "log", keys, "test")
    kept = list(log.read())
    lost = set(enumerate(records)) - set(kept)
    assert set(kept) <= set(enumerate(records))
    assert len(lost) <= 1
    if not lost or next(iter(lost))[0] < 5:
        assert len(log.damage) == 1
        assert log.damage[0].start <= at % len(data) < log.damage[0].end
    shutil.rmtree(directory)


def test_parts_never_share_a_key(tmp_path: Path, keys: KeyStore) -> None:
    """The same text at the same ordinal, written after a cut, gives another ciphertext: the key is new."""
    path = tmp_path / "log"
    make(path, keys, [b"same text"])
    first = path.read_bytes()
    path.write_bytes(first[:-1])
    make(path, keys, [b"same text"])
    assert contents(path, keys) == [(0, b"same text")]
    assert first[-20:] not in path.read_bytes()


@pytest.mark.parametrize("operation", ["write", "sync_data"])
def test_failed_append_leaves_nothing_and_can_be_repeated(tmp_path: Path, keys: KeyStore, operation: str) -> None:
    """After a failed write or sync the records are not in the log; repeating the append stores them once, under a new key."""
    log = make(tmp_path / "log", keys, [b"kept"])
    log.append([b"also kept"])

    def fail(name: str, _path: Path | None, _fd: int) -> None:
        if name == operation:
            raise OSError(errno.EIO, "injected")

    durable.set_observer(fail)
    try:
        with pytest.raises(OSError, match="injected"):
            log.append([b"unlucky"])
    finally:
        durable.set_observer(None)
    assert contents(tmp_path / "log", keys) == [(0, b"kept"), (1, b"also kept")]
    assert log.append([b"unlucky"]) == [2]
    assert contents(tmp_path / "log", keys) == [(0, b"kept"), (1, b"also kept"), (2, b"unlucky")]
    assert (tmp_path / "log").read_bytes().count(b"TSELOG1\n") == 6


def test_purpose_and_key_store_are_bound(tmp_path: Path, keys: KeyStore) -> None:
    """A log renamed to serve another purpose does not open, and another installation's keys are named as missing."""
    make(tmp_path / "log", keys)
    with pytest.raises(IntegrityError):
        list(EncryptedLog(tmp_path / "log", keys, "other").read())
    with pytest.raises(KeysMissingError):
        contents(tmp_path / "log", KeyStore.create(tmp_path / "other keys"))


def test_reader_follows_a_live_writer(tmp_path: Path, keys: KeyStore) -> None:
    """A reader sees each append when it returned, and half a record at the end only as the end."""
    writer = EncryptedLog(tmp_path / "log", keys, "test")
    reader = EncryptedLog(tmp_path / "log", keys, "test")
    writer.append([b"one"])
    assert list(reader.read()) == [(0, b"one")]
    with (tmp_path / "log").open("ab") as file:
        file.write(b"TSr1\0\0")
    assert list(reader.read()) == [(0, b"one")]
    assert reader.damage == []
