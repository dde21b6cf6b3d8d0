"""A restore puts everything in place, or nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pyrage
import pytest

from tallystick.archive.backup.objects import FileEntry, Index
from tallystick.archive.backup.restore import checked_path
from tallystick.config import load_config
from tallystick.errors import CheckpointError, ConfigError, FormatRefusedError, IntegrityError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.backup_note import backup_key_name, sign_backup
from tallystick.evidence.heads import read_remembered
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.pipeline.backup import make_backup, open_backups
from tallystick.pipeline.context import open_installation
from tallystick.pipeline.key_scratch import key_scratch
from tallystick.pipeline.restoring import RestoreOptions, restore_backup
from tallystick.pipeline.verify import VerifyOptions, verify_directory
from tallystick.query.engine import QueryEngine
from unit.archive.backup.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two tenants; some events archived, some only in the journal."""
    made = Rig(tmp_path)
    made.write(300)
    made.write(7, "globex")
    made.seal()
    made.archive()
    made.write(20)
    made.seal()
    return made


def options(rig: Rig, **given: Any) -> RestoreOptions:
    return RestoreOptions(**{"store": str(rig.base / "store"), "data": rig.base / "new", "keys": rig.config.keys_dir, **given})


def lines(data: Path, keys: Path, tenant: str) -> list[tuple[int, bytes]]:
    config = load_config(None, {"data": {"dir": str(data)}, "keys": {"dir": str(keys)}})
    return QueryEngine(config, open_installation(config).keys).lines(tenant, 0, 1000)


def tree(path: Path) -> dict[str, bytes]:
    """Every file with its bytes; a lock file has none, and is made by whoever needs it."""
    files = (item for item in path.rglob("*") if item.is_file() and item.suffix != ".lock")
    return {str(item.relative_to(path)): item.read_bytes() for item in files}


def test_what_was_backed_up_is_there_again(rig: Rig) -> None:
    """Every line of every tenant, a log that verifies against the remembered head, and goes on under it."""
    make_backup(rig.installation)
    done = restore_backup(options(rig))
    keys = rig.config.keys_dir
    assert done.report.events == 327
    for tenant, count in (("acme", 320), ("globex", 7)):
        before = lines(rig.config.data_dir, keys, tenant)
        assert len(before) == count
        assert lines(rig.base / "new", keys, tenant) == before
    report = verify_directory(VerifyOptions(rig.base / "new", keys), lambda _: None)
    assert (report.status, report.tier) == (0, "remembered head")
    assert not list(rig.base.glob("*.restoring"))


def test_the_restored_log_goes_on_and_says_that_it_was_restored(rig: Rig) -> None:
    """New events follow the old ones under the same origin, the root log has a `restore` entry, and verify holds."""
    note = make_backup(rig.installation).note
    restore_backup(options(rig))
    shutil.rmtree(rig.config.data_dir)
    (rig.base / "new").rename(rig.config.data_dir)
    rig.installation = open_installation(rig.config)
    rig.write(5)
    rig.seal()
    rig.archive()
    report = verify_directory(VerifyOptions(rig.config.data_dir), lambda _: None)
    assert (report.status, report.events, report.problems) == (0, 332, [])
    log = AccountLog(tree_dir(rig.config.data_dir, ROOT))
    found = [msgspec.json.decode(entry) for entry in log.entries(0, log.count) if entry.startswith(b'{"type":"restore"')]
    assert [entry["backup"] for entry in found] == [note.id]
    assert make_backup(rig.installation).pieces > 0


def test_a_resend_after_a_restore_is_told_as_a_duplicate(rig: Rig) -> None:
    """The dedupe window comes back with the rest: the same events again are no new ones."""
    make_backup(rig.installation)
    restore_backup(options(rig))
    shutil.rmtree(rig.config.data_dir)
    (rig.base / "new").rename(rig.config.data_dir)
    rig.installation = open_installation(rig.config)
    rig.written = 300 + 7
    rig.write(20)
    rig.seal()
    assert verify_directory(VerifyOptions(rig.config.data_dir), lambda _: None).events == 327


def test_a_target_that_is_not_empty_is_left_alone(rig: Rig) -> None:
    """Exit 3, and not a byte is changed."""
    make_backup(rig.installation)
    (rig.base / "new").mkdir()
    (rig.base / "new" / "precious").write_bytes(b"x")
    with pytest.raises(FormatRefusedError, match="nothing is overwritten"):
        restore_backup(options(rig))
    assert tree(rig.base / "new") == {"precious": b"x"}


def test_a_damaged_backup_is_refused(rig: Rig) -> None:
    """One flipped bit in one object: nothing is in place, and the object is named."""
    make_backup(rig.installation)
    victim = max(
        (path for path in (rig.base / "store" / "objects").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = victim.read_bytes()
    victim.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(IntegrityError, match="damaged"):
        restore_backup(options(rig))
    assert not (rig.base / "new").exists()
    victim.write_bytes(data)
    restore_backup(options(rig))  # what the failed one left is cleared away


def test_a_foreign_backup_is_refused(rig: Rig, tmp_path: Path) -> None:
    """Another installation of the same name cannot pass its backup off as ours."""
    make_backup(rig.installation)
    other = Rig(tmp_path / "other")
    other.write(1)
    other.seal()
    with pytest.raises(IntegrityError, match="no backup in the store is of this installation"):
        restore_backup(options(rig, keys=other.config.keys_dir))
    assert not (rig.base / "new").exists()


def test_an_old_backup_over_a_newer_log_is_noticed(rig: Rig) -> None:
    """The key directory remembers a later head: refused; with `--behind` it can be read, and the sealer signs nothing."""
    make_backup(rig.installation)
    rig.write(5)
    rig.seal()
    with pytest.raises(CheckpointError, match="a root head over"):
        restore_backup(options(rig))
    assert not (rig.base / "new").exists()
    done = restore_backup(options(rig, is_behind=True))
    assert "was signed" in done.behind
    remembered = read_remembered(rig.config.keys_dir)
    shutil.rmtree(rig.config.data_dir)
    (rig.base / "new").rename(rig.config.data_dir)
    rig.installation = open_installation(rig.config)
    with pytest.raises(CheckpointError, match="was signed"):
        rig.seal()
    assert read_remembered(rig.config.keys_dir) == remembered


def test_an_older_backup_than_the_newest_is_behind_too(tmp_path: Path) -> None:
    """Without the key directory the notes in the store tell: a later one names a later head."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "id.txt").write_text(f"# made for this test\n{identity}\n")
    rig = Rig(tmp_path, recipients=[str(identity.to_public())])
    rig.write(3)
    rig.seal()
    first = make_backup(rig.installation).note
    rig.write(3)
    rig.seal()
    make_backup(rig.installation)
    given = {"keys": tmp_path / "new.keys", "identity": tmp_path / "id.txt", "is_last": True}
    with pytest.raises(CheckpointError, match="was signed"):
        restore_backup(options(rig, to=first.id, **given))


def test_both_directories_come_back_from_an_identity(tmp_path: Path) -> None:
    """Data and keys are lost: the key backup opens with the identity, and whoever restores says that no later head is known."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "id.txt").write_text(str(identity))
    (tmp_path / "wrong.txt").write_text(str(pyrage.x25519.Identity.generate()))
    rig = Rig(tmp_path, recipients=[str(identity.to_public())])
    rig.write(30)
    rig.seal()
    make_backup(rig.installation)
    kept = tree(rig.config.keys_dir / "keystore")
    shutil.rmtree(rig.config.keys_dir)
    shutil.rmtree(rig.config.data_dir)
    given = {"data": rig.config.data_dir, "keys": rig.config.keys_dir}
    with pytest.raises(ConfigError, match="does not open"):
        restore_backup(options(rig, identity=tmp_path / "wrong.txt", **given))
    with pytest.raises(CheckpointError, match="nothing shows"):
        restore_backup(options(rig, identity=tmp_path / "id.txt", **given))
    assert not rig.config.keys_dir.exists()
    restore_backup(options(rig, identity=tmp_path / "id.txt", is_last=True, **given))
    assert tree(rig.config.keys_dir / "keystore") == kept
    rig.installation = open_installation(rig.config)
    rig.write(3)
    rig.seal()
    report = verify_directory(VerifyOptions(rig.config.data_dir), lambda _: None)
    assert (report.status, report.events) == (0, 33)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "journal/../../x", "journal//a", "run/x", "FORMAT/", "", "locks/writer", "a\0b", "trees"]
)
def test_a_file_that_does_not_belong_there_is_refused(name: str) -> None:
    """Whatever the index says, nothing is written outside the places that a backup has."""
    with pytest.raises(IntegrityError):
        checked_path(name)


def test_an_index_of_our_own_key_with_a_bad_path_writes_nothing_outside(rig: Rig) -> None:
    """Also when the index is validly encrypted and signed."""
    backups = open_backups(rig.installation)
    note = make_backup(rig.installation).note
    index = backups.pieces.get_index(note)
    index = Index(1, index.piece, [*index.files, FileEntry("../outside", 0, [])])
    name, size, digest = backups.pieces.put_index(index, backups.store.sizes())
    forged = replace(note, id="20990101T000000000000Z-00000000", index=name, index_bytes=size, index_sha256=digest)
    key = backup_key_name(note.server)
    backups.store.put_note(forged, sign_backup(forged, key, rig.installation.keys.signing_key(key)))
    with pytest.raises(IntegrityError, match="does not belong"):
        restore_backup(options(rig))
    assert not (rig.base / "outside").exists()


def test_copies_of_keys_lie_beside_the_keys_and_go(tmp_path: Path) -> None:
    """Never among temporary files; what a killed run left is removed by the next, and nothing stays behind."""
    keys = tmp_path / "data.keys"
    left = tmp_path / ".data.keys.scratch"
    left.mkdir()
    (left / "root.key").write_bytes(b"left by a kill")
    with key_scratch(keys) as scratch:
        assert (scratch, list(scratch.iterdir())) == (left, [])
        assert scratch.stat().st_mode & 0o777 == 0o700
        (scratch / "root.key").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []
