"""`tallystick doctor` over real directories, each hurt in one way."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.durable import RoleLock, StateFile
from tallystick.http.access import PERMISSIONS, AccessKeys
from tallystick.pipeline.context import open_installation
from tallystick.pipeline.doctor import DoctorOptions, examine
from tallystick.pipeline.doctor_disk import Mount, judge_syncs, measure_syncs, mount_of
from tallystick.pipeline.finding import Finding
from tallystick.pipeline.role import overrides_from

Examine = Callable[[], dict[str, list[Finding]]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with `data` and `data.keys` as a first start leaves them."""
    config = load_config(None, overrides_from(str(tmp_path / "data"), None, None))
    open_installation(config, create=True)
    AccessKeys(config.keys_dir).create("ops", "administration", (), PERMISSIONS)
    state = StateFile(tmp_path / "data" / "tenants")
    state.save(b"{}")
    state.save(b"{}")
    (tmp_path / "data" / "journal").mkdir()
    return tmp_path


@pytest.fixture
def look(place: Path) -> Examine:
    """Findings by check."""

    def look() -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in examine(DoctorOptions(data=str(place / "data"))):
            found.setdefault(finding.check, []).append(finding)
        return found

    return look


def states(findings: dict[str, list[Finding]], check: str) -> set[str]:
    return {finding.state for finding in findings[check]}


def test_a_fresh_installation_is_sound(look: Examine) -> None:
    """No check fails; only what the machine is like may give a warning."""
    found = look()
    for check, findings in found.items():
        allowed = {"ok", "warn", "fail"} if check in {"clock", "syncs", "file system", "free space"} else {"ok"}
        assert {finding.state for finding in findings} <= allowed, findings


def test_every_trouble_has_a_hint(place: Path, look: Examine) -> None:
    """Whatever is not ok says what to do."""
    (place / "data.keys" / "root.key").chmod(0o644)
    (place / "data" / "tenants.a").write_bytes(b"x")
    troubles = [finding for findings in look().values() for finding in findings if finding.state != "ok"]
    assert len(troubles) >= 2
    assert all(finding.hint for finding in troubles)


def test_readable_keys_fail(place: Path, look: Examine) -> None:
    """A key file that others may read is named; the public key may be public."""
    (place / "data.keys" / "root.vkey").write_text("public")
    (place / "data.keys" / "root.vkey").chmod(0o644)
    assert states(look(), "key directory") == {"ok"}
    (place / "data.keys" / "keystore").chmod(0o755)
    assert states(look(), "key directory") == {"fail"}


def test_missing_keys_fail(place: Path, look: Examine) -> None:
    """Data without its key directory cannot be read."""
    (place / "data.keys").rename(place / "elsewhere")
    assert states(look(), "key directory") == {"fail"}


def test_a_foreign_root_key_fails(place: Path, look: Examine) -> None:
    """The key store is opened, not only looked at."""
    text = (place / "data.keys" / "root.key").read_text().split("\n")
    (place / "data.keys" / "root.key").write_text(f"{text[0]}\n{'0' * 64}\n")
    assert states(look(), "key store") == {"fail"}


def test_a_damaged_copy_of_a_state_file_is_found(place: Path, look: Examine) -> None:
    """One flipped byte in one copy is a warning that names the file."""
    assert states(look(), "state files") == {"ok"}
    path = place / "data" / "tenants.a"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (finding,) = look()["state files"]
    assert finding.state == "warn"
    assert str(place / "data" / "tenants") in finding.detail


def test_a_key_about_to_expire_is_found(place: Path, look: Examine) -> None:
    """Two days are a warning, a month is not."""
    keys = AccessKeys(place / "data.keys")
    keys.create("later", "", (), ("ingest",), time.time() + 30 * 86_400)
    assert states(look(), "API keys") == {"ok"}
    soon, _ = keys.create("payments", "", (), ("ingest",), time.time() + 2 * 86_400)
    assert any(finding.state == "warn" and soon.id in finding.detail for finding in look()["API keys"])


def test_damaged_files_of_the_journal_and_catalog_fail(place: Path, look: Examine) -> None:
    """A segment without a header and a catalog that is no database are named."""
    (place / "data" / "journal" / "00000000000000000001-00000000.seg").write_bytes(b"nothing")
    (place / "data" / "catalog.sqlite").write_bytes(b"nothing" * 100)
    found = look()
    assert "fail" in states(found, "journal")
    assert states(found, "databases") == {"fail"}


def test_locks_are_read_and_never_taken(place: Path, look: Examine) -> None:
    """A held role without a supervisor is a warning, a stale file is not; the doctor itself holds nothing."""
    lock = RoleLock(place / "data", "writer")
    lock.acquire()
    (finding,) = look()["locks"]
    assert finding.state == "warn"
    assert str(os.getpid()) in finding.detail
    lock.release()
    assert states(look(), "locks") == {"ok"}
    fd = os.open(place / "data" / "locks" / "writer", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_nothing_is_changed(place: Path, look: Examine) -> None:
    """Files, their content and their times stay as they were."""

    def image() -> dict[Path, tuple[int, bytes]]:
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}

    before = image()
    look()
    assert image() == before


def test_a_bad_configuration_ends_it(tmp_path: Path) -> None:
    """With file and line."""
    path = tmp_path / "tallystick.toml"
    path.write_text("[data]\nqota = 1\n")
    found = list(examine(DoctorOptions(config=path)))
    assert (found[-1].check, found[-1].state) == ("configuration", "fail")
    assert f"{path}:2" in found[-1].hint


DISK = Mount("/dev/sda1", "/", "ext4", frozenset())


@pytest.mark.parametrize(
    ("median_s", "mount", "queue", "state"),
    [
        (4e-3, DISK, {"rotational": "1", "write_cache": "write back"}, "ok"),
        (2e-4, DISK, {"rotational": "1"}, "warn"),
        (2e-4, DISK, {"rotational": "0"}, "ok"),
        (5e-6, DISK, {"rotational": "0"}, "warn"),
        (5e-6, Mount("/dev/vda", "/", "ext4", frozenset()), {"rotational": "0"}, "warn"),
    ],
)
def test_a_sync_sooner_than_the_medium_is_not_believed(median_s: float, mount: Mount, queue: dict[str, str], state: str) -> None:
    """20 microseconds for flash, a millisecond for a turning disk; and what cannot be told is said so."""
    finding = judge_syncs(median_s, median_s * 4, mount, queue)
    assert finding.state == state
    if mount.device == "/dev/vda":
        assert "cannot tell" in finding.detail


def test_syncs_are_measured_and_leave_nothing(tmp_path: Path) -> None:
    """Real calls on a file without a name."""
    assert min(measure_syncs(tmp_path)) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_mount_is_found() -> None:
    """/proc is a file system of its own."""
    assert mount_of(Path("/proc/self")).kind == "proc"
