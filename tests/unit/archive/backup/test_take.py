"""Backups are incremental, encrypted, signed last, and never half a backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.archive.backup.take import newest
from tallystick.errors import ConfigError, IntegrityError, NotFoundError
from tallystick.pipeline.backup import make_backup, open_backups
from unit.archive.backup.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path)
    made.write(300)
    made.seal()
    made.archive()
    made.write(20)
    made.seal()
    return made


def objects(rig: Rig) -> set[Path]:
    return {path for path in (rig.base / "store" / "objects").rglob("*") if path.is_file()}


def test_a_backup_is_listed_and_verifies(rig: Rig) -> None:
    """What was made is in the list, signed by our key, with as many bytes as it says."""
    taken = make_backup(rig.installation)
    backups = open_backups(rig.installation)
    (listed,) = backups.listed()
    assert listed.note == taken.note
    assert backups.check(taken.note) == taken.note.bytes
    paths = {entry.path for entry in backups.pieces.get_index(taken.note).files}
    assert {"FORMAT", "trees/heads", "journal/MARK", "cursors/sealer.a", "tenants.a"} <= paths
    assert any(path.startswith("archive/") and path.endswith(".parquet") for path in paths)
    assert not [path for path in paths if path.startswith(("run/", "locks/", "catalog.sqlite"))]


def test_nothing_readable_lies_in_the_store(rig: Rig) -> None:
    """Neither events nor tenant names, handles, and nothing of the key directory."""
    make_backup(rig.installation)
    stored = b"".join(path.read_bytes() for path in (rig.base / "store").rglob("*") if path.is_file())
    for secret in (b"acme", b"a.b", b'"type":"review"', (rig.config.keys_dir / "root.key").read_bytes().split()[1]):
        assert secret not in stored
    names = {path.name for path in (rig.base / "data" / "trees").iterdir()} - {"root", "heads"}
    assert not [name for name in names if name.encode() in stored]


def test_a_second_backup_writes_only_what_is_new(rig: Rig) -> None:
    """Chunks and full pieces are not stored again; the store grows by less than a tenth."""
    first = make_backup(rig.installation)
    before = objects(rig)
    rig.write(5)
    rig.seal()
    second = make_backup(rig.installation)
    assert second.note.mark > first.note.mark
    chunks = [
        entry for entry in open_backups(rig.installation).pieces.get_index(second.note).files if entry.path.endswith("parquet")
    ]
    assert chunks
    assert 0 < second.pieces < first.pieces
    assert before < objects(rig)


def test_damage_in_the_store_is_found_and_named(rig: Rig) -> None:
    """A flipped bit, a cut object and a missing one each end the check with the file's name."""
    note = make_backup(rig.installation).note
    backups = open_backups(rig.installation)
    victim = max(objects(rig), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    for change in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-1], None):
        victim.unlink()
        if change is not None:
            victim.write_bytes(change)
        with pytest.raises(IntegrityError, match="piece of a backup"):
            backups.check(note)


def test_what_the_store_lost_is_stored_again(rig: Rig) -> None:
    """The next backup does not lean on objects that are gone or cut."""
    make_backup(rig.installation)
    victims = sorted(objects(rig))
    victims[0].unlink()
    victims[1].write_bytes(b"short")
    note = make_backup(rig.installation).note
    backups = open_backups(rig.installation)
    assert backups.check(note) == note.bytes


def test_a_forged_note_is_no_backup_and_stops_writing(rig: Rig) -> None:
    """A note of another key is listed with its problem; with it there nothing is written or swept."""
    note = make_backup(rig.installation).note
    path = rig.base / "store" / "backups" / f"{note.id}.note"
    forged = path.with_name("20990101T000000Z-00000000.note")
    forged.write_text(path.read_text().replace(f"mark {note.mark}", f"mark {note.mark + 1}"))
    listed = open_backups(rig.installation).listed()
    assert [item.note is None for item in listed] == [False, True]
    with pytest.raises(ConfigError, match="not this installation's"):
        make_backup(rig.installation)
    assert open_backups(rig.installation).check(note) == note.bytes


def test_old_backups_go_and_the_rest_stays_whole(rig: Rig) -> None:
    """Past `keep` a backup goes with the pieces that only it had; the newest never goes."""
    first = make_backup(rig.installation).note
    rig.write(5)
    rig.seal()
    second = make_backup(rig.installation).note
    backups = open_backups(rig.installation)
    before = objects(rig)
    (rig.base / "store" / "objects" / ".stray.tmp-1").write_bytes(b"half")
    assert backups.prune(0.0, 4e9) == 1
    assert objects(rig) < before
    assert newest(backups.listed()) == second
    assert backups.check(second) == second.bytes
    with pytest.raises(NotFoundError):
        newest(backups.listed(), first.id)
    assert backups.prune(0.0, 4e9) == 0


def test_nothing_sealed_is_nothing_to_back_up(tmp_path: Path) -> None:
    """Before the first root head there is a clear refusal, and no note."""
    rig = Rig(tmp_path)
    rig.write(1)
    with pytest.raises(NotFoundError, match="nothing is sealed yet"):
        make_backup(rig.installation)
    assert open_backups(rig.installation).listed() == []


@pytest.mark.parametrize("store", ["data/backup", "data.keys", "."])
def test_a_store_within_what_it_keeps_is_refused(tmp_path: Path, store: str) -> None:
    """In the data directory, as the key directory, or around both."""
    from tallystick.pipeline.backup import check_backup

    rig = Rig(tmp_path, store=str((tmp_path / store).resolve()))
    with pytest.raises(ConfigError, match="lies in the data or key directory, or around it"):
        check_backup(rig.config)
