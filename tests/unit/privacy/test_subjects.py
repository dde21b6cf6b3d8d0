"""People's keys: durable before use, shared between processes, destroyed for good, over crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.durable import state
from tallystick.errors import NotFoundError
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.subjects import SubjectKeys, SubjectsExceededError

HANDLE = "abcdefghijklmnop"


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore.create(tmp_path / "keys")


def test_two_processes_make_one_key_for_a_person(keys: KeyStore) -> None:
    """Whoever comes second finds what the first one made; another tenant's person of that name is somebody else."""
    one, other = SubjectKeys(keys), SubjectKeys(KeyStore.open(keys.dir))
    names = [f"u_{number}" for number in range(300)]
    made = one.ensure(HANDLE, names, 1_000)
    assert other.ensure(HANDLE, [*names, "u_new"], 1_000) == made | {"u_new": one.find(HANDLE, "u_new")}
    assert len({subject.skid for subject in made.values() if subject}) == 300
    assert other.find("z" * 16, "u_1") is None
    assert len(list((keys.dir / "keystore" / "subjects").glob("*.a"))) == 3


def test_no_name_and_no_key_is_readable_on_disk(keys: KeyStore) -> None:
    """Files of the key store hold neither the person nor the key in clear."""
    subject = SubjectKeys(keys).ensure(HANDLE, ["ana@example.com"], 9)["ana@example.com"]
    assert subject is not None
    for file in (keys.dir / "keystore").rglob("*.[ab]"):
        assert b"ana@example" not in file.read_bytes()
        assert subject.key not in file.read_bytes()


def test_an_erased_key_is_gone_everywhere_and_not_made_anew(keys: KeyStore) -> None:
    """In a process that held it too; until the tombstone is over late events find no key, then a fresh one."""
    clock = Clock()
    one, other = SubjectKeys(keys, clock), SubjectKeys(KeyStore.open(keys.dir), clock)
    subject = one.ensure(HANDLE, ["ana", "bob"], 9)["ana"]
    assert subject is not None
    assert other.key_of(subject.skid) == subject.key
    one.erase(HANDLE, "ana", subject.skid, 100.0)
    for store in (one, other, SubjectKeys(KeyStore.open(keys.dir), clock)):
        with pytest.raises(NotFoundError):
            store.key_of(subject.skid)
        assert store.ensure(HANDLE, ["ana"], 9)["ana"] is None
        assert store.find(HANDLE, "bob") is not None
    clock.now += 101
    again = other.ensure(HANDLE, ["ana"], 9)["ana"]
    assert again is not None
    assert again.skid != subject.skid


@pytest.mark.parametrize("step", range(7))
def test_an_erasure_that_is_cut_short_is_finished_by_asking_again(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """After a crash at any write the key is whole or gone; the second call leaves it in no slot of any page."""
    names = [f"u_{number}" for number in range(200)]
    made = SubjectKeys(keys).ensure(HANDLE, names, 1_000)
    subject = made["u_5"]
    assert subject is not None
    writes = 0
    real = state.replace_file

    def failing(path: Path, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes > step:
            raise OSError(5, "cut")
        real(path, data)

    monkeypatch.setattr(state, "replace_file", failing)
    if step < 6:
        with pytest.raises(OSError, match="cut"):
            SubjectKeys(keys).erase(HANDLE, "u_5", subject.skid, 100.0)
    monkeypatch.setattr(state, "replace_file", real)
    fresh = SubjectKeys(KeyStore.open(keys.dir))
    assert fresh.find(HANDLE, "u_5") in (subject, None)
    fresh.erase(HANDLE, "u_5", subject.skid, 100.0)
    pages = keys.dir / "keystore" / "subjects"
    for kept in ("a", "b"):
        for page in pages.glob(f"*.{kept}"):
            page.rename(page.with_suffix(".aside"))
        with pytest.raises(NotFoundError):
            SubjectKeys(KeyStore.open(keys.dir)).key_of(subject.skid)
        for page in pages.glob("*.aside"):
            page.rename(page.with_suffix(f".{kept}"))
    assert SubjectKeys(KeyStore.open(keys.dir)).ensure(HANDLE, names, 1_000) == {**made, "u_5": None}


def test_generations_turn_and_old_ones_are_destroyed(keys: KeyStore) -> None:
    """Everything is wrapped anew; a page of before cannot be opened once its generation is gone."""
    clock = Clock()
    one, reader = SubjectKeys(keys, clock), SubjectKeys(KeyStore.open(keys.dir), clock)
    subject = one.ensure(HANDLE, ["ana"], 9)["ana"]
    assert one.rotate(10.0, 20.0) == one.generations()
    assert (one.generations().current, one.generations().destroyed) == (1, 0)
    clock.now += 11
    assert one.rotate(10.0, 20.0).current == 2
    assert reader.find(HANDLE, "ana") == subject
    clock.now += 21
    assert (one.rotate(100.0, 20.0).destroyed, reader.generations().destroyed) == (1, 1)
    assert SubjectKeys(KeyStore.open(keys.dir), clock).find(HANDLE, "ana") == subject


def test_a_tenant_has_only_so_many_people(keys: KeyStore) -> None:
    """One more is refused, those who are there go on."""
    store = SubjectKeys(keys)
    store.ensure(HANDLE, ["a", "b"], 2)
    with pytest.raises(SubjectsExceededError):
        store.ensure(HANDLE, ["b", "c"], 2)
    assert store.ensure(HANDLE, ["a"], 2)["a"] is not None
