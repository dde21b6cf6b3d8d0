"""What `verify --data` works on: it finds keys, head and archive by itself, and says what it had to do without."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.evidence.verify import Report
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import AccountEntry, Append, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.pipeline.context import open_installation
from tallystick.pipeline.verify import VerifyOptions, verify_directory

SMALL: dict[str, dict[str, Any]] = {
    "data": {"free_min": "1MiB", "reserve": "64KiB"},
    "journal": {"segment_size": "1MiB", "dedupe_events": 1000},
    "seal": {"root_interval": "0s"},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A sealed installation with a few events, not archived yet."""
    config = load_config(None, {**SMALL, "data": {**SMALL["data"], "dir": str(tmp_path / "data")}})
    installation = open_installation(config, create=True)

    async def write() -> None:
        journal = Journal.open(config.data_dir, installation.keys, config.journal, config.data)
        tenant = TenantRegistry(config.data_dir).create("acme")
        lines = [b'{"v":1,"id":"%d","action":"a.b"}' % number for number in range(10)]
        account = [AccountEntry(handle=tenant.handle, id="d1", entry={"type": "review", "by": "me"})]
        for _ in range(2):
            await journal.append(Append([TenantBatch(tenant, lines, [None] * 10, [None] * 10)], account=account))
        await journal.close()

    asyncio.run(write())
    reader = JournalReader(config.data_dir, installation.keys)
    place = SealerPlace(config.data_dir, config.keys_dir, config.server.name, config.hash)
    sealer = Sealer(place, installation.keys, config.seal, reader, Cursor(config.data_dir, "sealer"))
    sealer.start()
    while sealer.seal():
        pass
    sealer.stop()
    return config.data_dir


def verify(data: Path, **options: Any) -> Report:
    return verify_directory(VerifyOptions(data, **options), lambda _: None)


def test_everything_beside_the_data_is_found(data: Path) -> None:
    """Public key and remembered head come from the key directory; all holds, and nothing is written."""
    before = sorted((path, path.stat().st_mtime_ns) for path in data.parent.rglob("*"))
    report = verify(data)
    assert (report.status, report.problems, report.not_proven) == (0, [], [])
    assert report.tier == "remembered head"
    assert report.events == 20
    after = sorted((path, path.stat().st_mtime_ns) for path in data.parent.rglob("*"))
    assert set(after) ^ set(before) == set()


def test_a_repeated_account_entry_is_one_leaf(data: Path) -> None:
    """Handed over twice, sealed once: an auditor counts entries."""
    (entries,) = (data / "trees").glob("*/account/entries")
    assert entries.read_bytes().count(b'"type":"review"') == 1


def test_a_copy_without_keys_is_consistent_and_no_more(data: Path, tmp_path: Path) -> None:
    """Exit 5: who signed it, and what the journal holds, is not proven."""
    copy = tmp_path / "copy" / "data"
    shutil.copytree(data, copy)
    report = verify(copy)
    assert report.status == 5
    assert report.not_proven
    with_key = verify(copy, public_key=(data.parent / "data.keys" / "root.vkey").read_text().strip())
    assert len(with_key.not_proven) < len(report.not_proven)


def test_a_head_of_ones_own_is_taken_instead(data: Path, tmp_path: Path) -> None:
    """One remembered elsewhere counts; a file that cannot be read is an error of the command line."""
    head = tmp_path / "head"
    shutil.copy(data.parent / "data.keys" / "heads", head)
    assert verify(data, heads=head).status == 0
    for bad in (tmp_path / "nosuch", tmp_path / "binary"):
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="cannot be read"):
            verify(data, heads=bad)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(ConfigError, match="no Tallystick data directory"):
        verify(tmp_path)
