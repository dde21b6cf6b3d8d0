from __future__ import annotations

import re
from pathlib import Path

import pytest

from tallystick.errors import EventInvalidError, IntegrityError
from tallystick.journal.tenants import SERVER_TENANT, TenantRegistry, is_tenant_name


def test_handles_are_random_and_stay(tmp_path: Path) -> None:
    """A tenant keeps its handle over restarts; two tenants, and the same name elsewhere, have different ones."""
    registry = TenantRegistry(tmp_path)
    acme, other = registry.create("acme"), registry.create("other")
    assert re.fullmatch(r"[a-z2-7]{16}", acme.handle)
    assert acme.handle != other.handle
    again = TenantRegistry(tmp_path)
    assert again.create("acme") == acme
    assert again.by_handle(other.handle) == other
    assert [tenant.name for tenant in again.all()] == ["acme", "other"]
    (tmp_path / "elsewhere").mkdir()
    assert TenantRegistry(tmp_path / "elsewhere").create("acme").handle != acme.handle


def test_other_process_sees_a_new_tenant_after_reload(tmp_path: Path) -> None:
    """A reader that opened before the creation finds the tenant once it reloads."""
    reader = TenantRegistry(tmp_path)
    tenant = TenantRegistry(tmp_path).create("acme")
    assert reader.get("acme") is None
    reader.reload()
    assert reader.get("acme") == tenant


@pytest.mark.parametrize(
    "name", ["", ".", "../../x", "a/b", "x\n", "CON", "%2e%2e", "a" * 64, "\u0430cme", "-a", "_a", "_tallystic", "a b", "a\0"]
)
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    """Names that could escape a path, look alike or end in a line break are refused, and nothing is written."""
    with pytest.raises(EventInvalidError):
        TenantRegistry(tmp_path).create(name)
    assert list(tmp_path.iterdir()) == []


def test_server_tenant_is_reserved(tmp_path: Path) -> None:
    """The server's own tenant can be created, but is no name that a sender may use."""
    assert TenantRegistry(tmp_path).create(SERVER_TENANT).name == "_tallystick"
    assert not is_tenant_name(SERVER_TENANT)
    assert is_tenant_name("a" * 63)


@pytest.mark.parametrize("slot", ["a", "b"])
def test_one_damaged_slot_loses_no_tenant(tmp_path: Path, slot: str) -> None:
    """Either slot alone names every tenant, and a later creation keeps them all."""
    registry = TenantRegistry(tmp_path)
    made = [registry.create(name) for name in ("a", "b", "c")]
    (tmp_path / f"tenants.{slot}").write_bytes(b"damaged")
    again = TenantRegistry(tmp_path)
    assert again.all() == made
    assert len({tenant.handle for tenant in [*made, again.create("d")]}) == 4


def test_lost_register_is_never_started_afresh(tmp_path: Path) -> None:
    """With both slots damaged the registry refuses to open, so no tenant gets a second handle."""
    TenantRegistry(tmp_path).create("a")
    for slot in "ab":
        (tmp_path / f"tenants.{slot}").write_bytes(b"damaged")
    with pytest.raises(IntegrityError):
        TenantRegistry(tmp_path)
