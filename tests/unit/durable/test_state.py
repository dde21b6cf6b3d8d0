"""State files: two generations, of which one always survives."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.durable import StateFile, set_observer


def slots(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name + ".*"))


def test_the_last_payload_comes_back(tmp_path: Path) -> None:
    """Also in another process, and after any number of saves; before the first there is none."""
    path = tmp_path / "cursor"
    state = StateFile(path)
    assert state.load() is None
    for number in range(5):
        state.save(b"%d" % number)
        assert StateFile(path).load() == b"%d" % number
    assert [slot.name for slot in slots(path)] == ["cursor.a", "cursor.b"]
    assert not state.is_damaged()


def test_generations_go_on_after_a_restart(tmp_path: Path) -> None:
    """A new object writes the older slot, not the one that holds the only good state."""
    path = tmp_path / "cursor"
    StateFile(path).save(b"one")
    before = {slot.name: slot.read_bytes() for slot in slots(path)}
    StateFile(path).save(b"two")
    assert {slot.name: slot.read_bytes() for slot in slots(path) if slot.name in before} == before
    assert StateFile(path).load() == b"two"


@settings(max_examples=100, deadline=None)
@given(st.data(), st.binary(max_size=60), st.binary(max_size=60))
def test_any_damage_costs_one_generation_at_most(data: st.DataObject, first: bytes, second: bytes) -> None:
    """A changed, added or missing byte anywhere in the newer slot: the older payload, and never anything else."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cursor"
        state = StateFile(path)
        state.save(first)
        older = slots(path)[0]
        state.save(second)
        (newer,) = (slot for slot in slots(path) if slot != older)
        good = newer.read_bytes()
        at = data.draw(st.integers(0, len(good) - 1))
        damage = data.draw(st.sampled_from(["flip", "cut", "more", "empty"]))
        if damage == "flip":
            bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
        else:
            bad = {"cut": good[:at], "more": good + b"x", "empty": b""}[damage]
        newer.write_bytes(bad)
        again = StateFile(path)
        assert again.load() == first
        assert again.is_damaged()
        again.save(b"third")
        assert older.exists()
        assert StateFile(path).load() == b"third"
        assert not again.is_damaged()


def test_both_slots_damaged_is_no_state_and_says_so(tmp_path: Path) -> None:
    """The caller rebuilds; what it saves then counts."""
    path = tmp_path / "cursor"
    state = StateFile(path)
    state.save(b"one")
    state.save(b"two")
    for slot in slots(path):
        slot.write_bytes(b"TSSTATE1 and no more")
    again = StateFile(path)
    assert again.load() is None
    assert again.is_damaged()
    again.save(b"new")
    assert StateFile(path).load() == b"new"


def test_a_crash_at_any_step_of_a_save_leaves_a_state(tmp_path: Path) -> None:
    """Each durable step fails once: the last payload, or the new one, and the next save works."""
    for fail_at in range(1, 20):
        path = tmp_path / str(fail_at) / "cursor"
        path.parent.mkdir()
        state = StateFile(path)
        state.save(b"old")
        seen = 0

        def fail(operation: str, at: Path | None, fd: int, fail_at: int = fail_at) -> None:
            nonlocal seen
            seen += 1
            if seen == fail_at:
                raise OSError(5, "injected")

        set_observer(fail)
        try:
            state.save(b"new")
            break
        except OSError:
            assert StateFile(path).load() in (b"old", b"new")
        finally:
            set_observer(None)
        state.save(b"newer")
        assert StateFile(path).load() == b"newer"
    assert fail_at > 3


def test_the_bytes_on_disk_are_as_documented(tmp_path: Path) -> None:
    """Magic, generation, length, CRC32C over generation, length and payload, payload."""
    StateFile(tmp_path / "x").save(b"payload")
    (slot,) = slots(tmp_path / "x")
    data = slot.read_bytes()
    assert data[:8] == b"TSSTATE1"
    assert data[8:20] == (0).to_bytes(8, "big") + (7).to_bytes(4, "big")
    assert data[24:] == b"payload"
    assert len(data) == 31


@pytest.mark.parametrize("payload", [b"", b"\0" * 100_000])
def test_small_and_large_payloads(tmp_path: Path, payload: bytes) -> None:
    """Nothing is a payload too."""
    StateFile(tmp_path / "x").save(payload)
    assert StateFile(tmp_path / "x").load() == payload
