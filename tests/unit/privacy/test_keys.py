from __future__ import annotations

from pathlib import Path

import pytest

from tallystick import durable
from tallystick.errors import IntegrityError, KeysMissingError, NotFoundError, StartError
from tallystick.privacy import keys as keys_module
from tallystick.privacy.keys import KeyStore, check_key_place


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore.create(tmp_path / "keys")


def test_wrapped_key_opens_in_another_process(store: KeyStore) -> None:
    """What one object wraps, a second one opened on the same directory unwraps, bound to its purpose."""
    blob = store.wrap(b"k" * 32, b"segment 1")
    other = KeyStore.open(store.dir)
    assert other.unwrap(blob, b"segment 1") == b"k" * 32
    assert len(blob) == 32 + 36
    with pytest.raises(IntegrityError):
        other.unwrap(blob, b"segment 2")


def test_damaged_blob_and_foreign_blob_are_told_apart(store: KeyStore, tmp_path: Path) -> None:
    """A flipped bit is damage; a key of another store means that the wrong key directory was named."""
    blob = store.wrap(b"k" * 32, b"x")
    damaged = blob[:-1] + bytes([blob[-1] ^ 1])
    with pytest.raises(IntegrityError):
        store.unwrap(damaged, b"x")
    with pytest.raises(IntegrityError):
        store.unwrap(blob[:20], b"x")
    with pytest.raises(KeysMissingError):
        KeyStore.create(tmp_path / "others").unwrap(blob, b"x")


def test_derived_keys_are_stable_and_distinct(store: KeyStore) -> None:
    """A derived key is the same after a restart and differs by purpose."""
    assert store.derive("dedupe") == KeyStore.open(store.dir).derive("dedupe")
    assert store.derive("dedupe") != store.derive("cursor")
    assert len(store.derive("dedupe")) == 32


def test_families_persist_over_pages_and_are_found_by_readers(store: KeyStore) -> None:
    """Keys spread over several pages survive a restart, and a reader that missed one finds it when it asks again."""
    reader = KeyStore.open(store.dir)
    with pytest.raises(NotFoundError):
        reader.epoch_key("h000", "standard", "2026-01")
    made = {f"h{n:03d}": store.epoch_key(f"h{n:03d}", "standard", "2026-01", create=True) for n in range(130)}
    assert len(set(made.values())) == 130
    assert {handle: reader.epoch_key(handle, "standard", "2026-01") for handle in made} == made
    again = KeyStore.open(store.dir)
    assert again.epoch_key("h129", "standard", "2026-01", create=True) == made["h129"]
    assert sorted(path.name for path in (store.dir / "keystore" / "epoch").iterdir()) == [
        "000000.a",
        "000000.b",
        "000001.a",
        "000001.b",
    ]


def test_signing_keys_by_name(store: KeyStore) -> None:
    """A signing key is made once and signs the same in another process."""
    assert not store.has_signing_key("a/log/root")
    signature = store.signing_key("a/log/root", create=True).sign(b"text")
    other = KeyStore.open(store.dir)
    assert other.has_signing_key("a/log/root")
    other.signing_key("a/log/root").public_key().verify(signature, b"text")


@pytest.mark.parametrize("slot", ["a", "b"])
def test_one_damaged_slot_of_a_page_loses_no_key(store: KeyStore, slot: str) -> None:
    """Either slot of a page alone still holds every key of it, the newest included."""
    keys = [store.epoch_key(f"h{n}", "standard", "2026-01", create=True) for n in range(3)]
    path = store.dir / "keystore" / "epoch" / f"000000.{slot}"
    path.write_bytes(path.read_bytes()[:-1])
    other = KeyStore.open(store.dir)
    assert [other.epoch_key(f"h{n}", "standard", "2026-01", create=True) for n in range(3)] == keys


def test_page_with_both_slots_damaged_is_never_made_anew(store: KeyStore) -> None:
    """When a page cannot be read, asking to create is an IntegrityError, not a second key for the same name."""
    store.epoch_key("h", "standard", "2026-01", create=True)
    for slot in "ab":
        (store.dir / "keystore" / "epoch" / f"000000.{slot}").write_bytes(b"rubbish")
    with pytest.raises(IntegrityError):
        KeyStore.open(store.dir).epoch_key("h", "standard", "2026-01", create=True)


def test_missing_page_is_found(store: KeyStore) -> None:
    """A page that was removed from the middle is reported instead of being filled again."""
    for n in range(130):
        store.epoch_key(f"h{n}", "standard", "2026-01", create=True)
    for slot in "ab":
        (store.dir / "keystore" / "epoch" / f"000000.{slot}").unlink()
    with pytest.raises(IntegrityError):
        KeyStore.open(store.dir).epoch_key("new", "standard", "2026-01", create=True)


def test_pages_of_one_family_do_not_serve_another(store: KeyStore) -> None:
    """A page moved to another family or number does not open: family and page are bound to it."""
    store.epoch_key("h", "standard", "2026-01", create=True)
    store.signing_key("s", create=True)
    for slot in "ab":
        source = store.dir / "keystore" / "epoch" / f"000000.{slot}"
        source.replace(store.dir / "keystore" / "signing" / f"000000.{slot}")
    with pytest.raises(IntegrityError):
        KeyStore.open(store.dir).signing_key("s")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_root_key_that_others_may_read_is_refused(store: KeyStore, mode: int) -> None:
    """A root key readable by group or world stops the start and says what to run."""
    (store.dir / "root.key").chmod(mode)
    with pytest.raises(StartError, match="chmod 600"):
        KeyStore.open(store.dir)


def test_files_are_private(store: KeyStore) -> None:
    """Every file of the key directory is 0600 and the directory is 0700."""
    store.epoch_key("h", "standard", "2026-01", create=True)
    files = [path for path in store.dir.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert store.dir.stat().st_mode & 0o777 == 0o700


def test_absent_keys_are_refused_and_nothing_written(tmp_path: Path) -> None:
    """Opening keys that are not there ends, and the key directory is still not there."""
    with pytest.raises(KeysMissingError):
        KeyStore.open(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


def test_creating_again_opens_what_is_there(store: KeyStore) -> None:
    """A first start that is repeated, because it ended before there was data, goes on with the same keys."""
    assert KeyStore.create(store.dir).derive("x") == store.derive("x")


def test_lost_root_key_or_register_is_never_replaced(store: KeyStore) -> None:
    """With a key store but no root key, or a root key but no register, `open` and `create` refuse as they must."""
    register = [store.dir / "keystore" / f"generations.{slot}" for slot in "ab"]
    kept = [path.read_bytes() for path in register]
    for path in register:
        path.write_bytes(b"damaged")
    with pytest.raises(KeysMissingError):
        KeyStore.open(store.dir)
    with pytest.raises(KeysMissingError):
        KeyStore.create(store.dir)
    for path, data in zip(register, kept, strict=True):
        path.write_bytes(data)
    (store.dir / "root.key").unlink()
    for attempt in (KeyStore.open, KeyStore.create):
        with pytest.raises(KeysMissingError):
            attempt(store.dir)


def test_exchanged_root_key_is_refused(store: KeyStore, tmp_path: Path) -> None:
    """A root key of another installation does not open the store."""
    other = KeyStore.create(tmp_path / "other")
    (other.dir / "root.key").replace(store.dir / "root.key")
    with pytest.raises(KeysMissingError):
        KeyStore.open(store.dir)


def test_first_start_survives_a_stop_at_every_durable_step(tmp_path: Path) -> None:
    """Stopped before each durable step in turn, the next start still ends with one working key store."""
    for step in range(40):
        directory = tmp_path / str(step)
        if _create_stopping_at(directory, step):
            assert step > 8
            return
        store = KeyStore.create(directory)
        assert KeyStore.open(directory).unwrap(store.wrap(b"k" * 32, b""), b"") == b"k" * 32
    pytest.fail("creation never came to its end")


def _create_stopping_at(directory: Path, step: int) -> bool:
    remaining = step

    def stop(_operation: str, _path: Path | None, _fd: int) -> None:
        nonlocal remaining
        if remaining == 0:
            raise OSError("stopped here")
        remaining -= 1

    durable.set_observer(stop)
    try:
        KeyStore.create(directory)
    except OSError:
        return False
    finally:
        durable.set_observer(None)
    return True


def test_key_directory_inside_data_is_refused(tmp_path: Path) -> None:
    """Keys in the data directory, below it, or reached through a link are refused, named or not."""
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for place in (data, data / "keys", data / "a" / "b", tmp_path / "link" / "keys"):
        with pytest.raises(KeysMissingError):
            check_key_place(data, place, is_named=True)
    check_key_place(data, tmp_path / "data.keys", is_named=False)


def test_mount_point_needs_a_named_key_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the data directory is a mount point, the default place beside it is refused and a named one is taken."""
    monkeypatch.setattr(keys_module.os.path, "ismount", lambda path: Path(path) == tmp_path / "data")
    with pytest.raises(KeysMissingError, match="mount point"):
        check_key_place(tmp_path / "data", tmp_path / "data.keys", is_named=False)
    check_key_place(tmp_path / "data", tmp_path / "data.keys", is_named=True)


def test_destroyed_root_key_is_gone(store: KeyStore) -> None:
    """After destruction nothing of the store opens any more."""
    store._root.destroy()
    with pytest.raises(KeysMissingError):
        KeyStore.open(store.dir)
