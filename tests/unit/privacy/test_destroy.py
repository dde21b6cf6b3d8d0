"""Destroying a key: gone from both slots, for every process, and a crash in between is repaired by asking again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.durable import StateFile
from tallystick.errors import NotFoundError
from tallystick.privacy.keys import KeyStore

NAME = ("a" * 16, "standard", "2026-01")


def slots(keys_dir: Path) -> list[set[str]]:
    """The names that a reader finds who has one slot alone, for each slot."""
    found = []
    for lost in "ab":
        path = keys_dir / "keystore" / "epoch" / f"000000.{lost}"
        kept = path.read_bytes()
        path.unlink()
        found.append({month for _, _, month in KeyStore.open(keys_dir).epoch_names()})
        path.write_bytes(kept)
    return found


def test_a_destroyed_key_is_nowhere(tmp_path: Path) -> None:
    """Neither slot has it, another process forgets it, its neighbours stay, and the name can get a new key."""
    keys = KeyStore.create(tmp_path / "keys")
    first = keys.epoch_key(*NAME, create=True)
    other = keys.epoch_key("a" * 16, "standard", "2026-02", create=True)
    reader = KeyStore.open(tmp_path / "keys")
    assert reader.epoch_key(*NAME) == first
    keys.destroy_epoch_key(*NAME)
    assert slots(tmp_path / "keys") == [{"2026-02"}, {"2026-02"}]
    for store in (keys, reader):
        with pytest.raises(NotFoundError):
            store.epoch_key(*NAME)
        assert store.epoch_key("a" * 16, "standard", "2026-02") == other
    assert keys.epoch_key(*NAME, create=True) != first


def test_a_crash_between_the_slots_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older slot still has the key; destroying it again, by a process that does not see it any more, cleans that too."""
    keys = KeyStore.create(tmp_path / "keys")
    keys.epoch_key(*NAME, create=True)
    save, calls = StateFile.save, [0]

    def die_at_the_second(state: StateFile, payload: bytes) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError("killed")
        save(state, payload)

    monkeypatch.setattr(StateFile, "save", die_at_the_second)
    with pytest.raises(OSError, match="killed"):
        keys.destroy_epoch_key(*NAME)
    monkeypatch.undo()
    assert sorted(map(len, slots(tmp_path / "keys"))) == [0, 1]
    again = KeyStore.open(tmp_path / "keys")
    assert again.epoch_names() == []
    again.destroy_epoch_key(*NAME)
    assert slots(tmp_path / "keys") == [set(), set()]
