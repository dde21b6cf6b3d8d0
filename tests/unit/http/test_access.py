from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from tallystick.errors import ConfigError, IntegrityError, NotFoundError
from tallystick.http import access as access_module
from tallystick.http.access import PERMISSIONS, AccessKeys, AuthError, ensure_admin_key

GIVEN = "ts_admin1_" + "a" * 43


@pytest.fixture
def access(tmp_path: Path) -> AccessKeys:
    return AccessKeys(tmp_path / "keys")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    real_time, real_monotonic = time.time, time.monotonic
    monkeypatch.setattr(access_module.time, "time", lambda: real_time() + now[0])
    monkeypatch.setattr(access_module.time, "monotonic", lambda: real_monotonic() + now[0])
    return now


def test_key_works_and_only_its_hash_is_stored(access: AccessKeys, tmp_path: Path) -> None:
    """A new secret has the published form, opens its key, and is in no file."""
    key, secret = access.create("ci", "pipeline", ["acme"], ["ingest"])
    assert re.fullmatch(r"ts_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}", secret)
    assert access.verify(f"Bearer {secret}") == key
    assert access.verify(f"bearer {secret}".encode()) == key
    assert key.may("ingest")
    assert not key.may("read")
    assert key.sees("acme")
    assert not key.sees("other")
    secret_part = secret.rsplit("_", 1)[1].encode()
    assert all(secret_part not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ts_x_y",
        "Basic dXNlcjpwYXNz",
        "Bearer " + GIVEN,
        "Bearer " + GIVEN + "\n" + GIVEN,
        "Bearer ts_\u00e9_" + "a" * 43,
    ],
)
def test_no_usable_key_is_401(access: AccessKeys, header: str | None) -> None:
    """Missing, malformed and unknown keys are refused with 401 and a challenge."""
    with pytest.raises(AuthError) as caught:
        access.verify(header)
    assert caught.value.status == 401
    assert caught.value.headers["www-authenticate"].startswith("Bearer")


def test_unknown_id_wrong_secret_and_revoked_are_one_answer(access: AccessKeys) -> None:
    """From outside nobody can tell whether an id exists."""
    key, secret = access.create("a", "b", [], ["read"])
    wrong = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    gone, gone_secret = access.create("a", "b", [], ["read"])
    access.revoke(gone.id)
    answers = set()
    for text in (wrong, gone_secret, f"ts_{key.id[::-1]}_" + "a" * 43):
        with pytest.raises(AuthError) as caught:
            access.verify(f"Bearer {text}")
        answers.add((caught.value.code, caught.value.detail))
    assert answers == {("key_invalid", "no such access key")}


def test_unknown_id_is_compared_too(access: AccessKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an unknown id the hash is computed and compared in constant time as for a known one."""
    key, _secret = access.create("a", "b", [], ["read"])
    compared: list[tuple[int, int]] = []
    watched = SimpleNamespace(compare_digest=lambda a, b: bool(compared.append((len(a), len(b)))))
    monkeypatch.setattr(access_module, "hmac", watched)
    for key_id in (key.id, "unknown12345"):
        with pytest.raises(AuthError):
            access.verify(f"Bearer ts_{key_id}_" + "a" * 43)
    assert compared == [(64, 64)] * 4  # each before and after one more look at the files


def test_expired_key_is_refused(access: AccessKeys, clock: list[float]) -> None:
    """A key works until its expiry and not after it."""
    _key, secret = access.create("a", "b", [], ["read"], datetime.now(UTC) + timedelta(seconds=60))
    access.verify(f"Bearer {secret}")
    clock[0] = 61
    with pytest.raises(AuthError, match="expired"):
        access.verify(f"Bearer {secret}")


def test_other_process_sees_changes_within_a_second(access: AccessKeys, tmp_path: Path, clock: list[float]) -> None:
    """A reader knows a new key, and later that it was revoked, once half a second has passed."""
    reader = AccessKeys(tmp_path / "keys", "intake")
    key, secret = access.create("a", "b", [], ["ingest"])
    clock[0] += 0.6
    assert reader.verify(f"Bearer {secret}").id == key.id
    assert reader.live(key.id) == key
    access.revoke(key.id)
    clock[0] += 0.6
    with pytest.raises(AuthError):
        reader.verify(f"Bearer {secret}")
    assert reader.live(key.id) is None


def test_revoking_twice_and_unknown(access: AccessKeys) -> None:
    """Revoking again changes nothing, and an unknown id is named as missing."""
    key, _secret = access.create("a", "b", [], ["read"])
    first = access.revoke(key.id)
    assert access.revoke(key.id) == first
    with pytest.raises(NotFoundError):
        access.revoke("nobody")


def test_last_use_is_merged_over_processes(access: AccessKeys, tmp_path: Path) -> None:
    """A use in another process shows in the list of this one."""
    key, secret = access.create("a", "b", [], ["ingest"])
    assert access.list()[0].last_used_at is None
    AccessKeys(tmp_path / "keys", "intake").verify(f"Bearer {secret}")
    last = access.list()[0].last_used_at
    assert last is not None
    assert abs(last - time.time()) < 60
    assert key.last_used_at is None


@pytest.mark.parametrize("slot", ["a", "b"])
def test_one_damaged_slot_loses_no_key_and_revives_none(access: AccessKeys, tmp_path: Path, slot: str) -> None:
    """With either slot damaged the live key works and the revoked one does not."""
    _live, secret = access.create("a", "b", [], ["read"])
    gone, gone_secret = access.create("a", "b", [], ["read"])
    access.revoke(gone.id)
    (tmp_path / "keys" / f"access.{slot}").write_bytes(b"damaged")
    again = AccessKeys(tmp_path / "keys")
    again.verify(f"Bearer {secret}")
    with pytest.raises(AuthError):
        again.verify(f"Bearer {gone_secret}")


def test_lost_register_denies_new_starts_and_keeps_running_ones(access: AccessKeys, tmp_path: Path, clock: list[float]) -> None:
    """With both slots damaged a start refuses, and a running process keeps the keys it knows."""
    _key, secret = access.create("a", "b", [], ["read"])
    for slot in "ab":
        (tmp_path / "keys" / f"access.{slot}").write_bytes(b"damaged")
    clock[0] += 1
    access.verify(f"Bearer {secret}")
    with pytest.raises(IntegrityError):
        AccessKeys(tmp_path / "keys")


def test_unknown_permission_is_refused(access: AccessKeys) -> None:
    """A key cannot be given a permission that does not exist."""
    with pytest.raises(ConfigError, match="unknown permission: root"):
        access.create("a", "b", [], ["root"])
    assert access.list() == []


def test_first_start_makes_an_admin_key_for_a_day(tmp_path: Path, clock: list[float]) -> None:
    """The first start writes a working key with every permission, 0600; the next one keeps it; after a day a new one is made."""
    keys_dir = tmp_path / "keys"
    admin = ensure_admin_key(keys_dir, None)
    assert admin.path == keys_dir / "admin.key"
    assert admin.path.stat().st_mode & 0o777 == 0o600
    assert admin.path.read_text().strip() == admin.secret
    key = AccessKeys(keys_dir).verify(f"Bearer {admin.secret}")
    assert (key.permissions, key.tenants, key.id) == (PERMISSIONS, (), admin.key_id)
    assert ensure_admin_key(keys_dir, None) == admin
    clock[0] = 24 * 3600 + 1
    with pytest.raises(AuthError):
        AccessKeys(keys_dir).verify(f"Bearer {admin.secret}")
    renewed = ensure_admin_key(keys_dir, None)
    assert renewed.key_id not in (None, admin.key_id)
    assert len(AccessKeys(keys_dir).list()) == 2


def test_no_admin_key_is_made_beside_another_administrator(tmp_path: Path, clock: list[float]) -> None:
    """While somebody else can manage keys an expired admin key is not replaced."""
    keys_dir = tmp_path / "keys"
    ensure_admin_key(keys_dir, None)
    AccessKeys(keys_dir).create("ops", "administration", [], ["keys"])
    clock[0] = 24 * 3600 + 1
    assert ensure_admin_key(keys_dir, None).secret is None
    assert len(AccessKeys(keys_dir).list()) == 2


def test_given_admin_key_stays_and_replaces_the_one_given_before(tmp_path: Path, clock: list[float]) -> None:
    """A key from the environment does not expire, is the same over restarts, and another one takes its place."""
    keys_dir = tmp_path / "keys"
    assert ensure_admin_key(keys_dir, GIVEN).key_id == "admin1"
    clock[0] = 48 * 3600
    assert ensure_admin_key(keys_dir, GIVEN).secret == GIVEN
    assert len(AccessKeys(keys_dir).list()) == 1
    other = "ts_admin2_" + "b" * 43
    assert ensure_admin_key(keys_dir, other).key_id == "admin2"
    with pytest.raises(AuthError):
        AccessKeys(keys_dir).verify(f"Bearer {GIVEN}")
    with pytest.raises(ConfigError, match="TALLYSTICK_ADMIN_KEY"):
        ensure_admin_key(keys_dir, "letmein")


def test_a_new_key_is_known_to_other_processes_at_once(tmp_path: Path) -> None:
    """A key made by the api process opens the intake without waiting for its next look at the files."""
    writer, reader = AccessKeys(tmp_path), AccessKeys(tmp_path, "intake")
    for _ in range(3):
        key, secret = writer.create("a", "b", [], ["read"])
        assert reader.verify(f"Bearer {secret}").id == key.id
