"""Damage and forgery at rest: `tallystick verify` ends with 4 and names the place; without key or head it ends with 5."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.generate import numbered
from support.server import Server, wait_for

EVENTS = 3_000


@dataclass
class Copy:
    """A stopped installation's directories, to be damaged at will."""

    server: Server
    data: Path
    keys: Path

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done: subprocess.CompletedProcess[str] = self.server.cli("verify", "--data", str(self.data), *arguments, check=None)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def place_of_failure(self) -> str:
        """Verify must fail; returns the places it names, joined."""
        code, report = self.verify()
        assert code == 4, report
        assert report["problems"], report
        return "\n".join(f"{problem['place']} {problem['message']}" for problem in report["problems"])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One installation with events in the archive and more that are only in the journal, stopped."""
    directory = tmp_path_factory.mktemp("original")
    server = Server(directory, '[archive]\nmax_age = "1s"\n[seal]\nroot_interval = "200ms"\n').start()
    server.send_ok(numbered(0, EVENTS))
    wait_for(lambda: server.status()["tenants"]["default"]["archived"] >= EVENTS, "the events to be archived")
    server.stop()
    server.config.write_text(server.config.read_text().replace('max_age = "1s"', 'max_age = "1h"'))
    server.start()
    server.send_ok(numbered(EVENTS, EVENTS))
    server.drain(2 * EVENTS)
    server.stop()
    yield server
    server.close()


@pytest.fixture
def copy(original: Server, tmp_path: Path) -> Copy:
    shutil.copytree(original.data, tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    shutil.copytree(original.keys, tmp_path / "data.keys")
    return Copy(original, tmp_path / "data", tmp_path / "data.keys")


def flip(path: Path, offset: int) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def used_size(path: Path) -> int:
    """Bytes up to the last that is not zero: journal segments are filled ahead with zeros."""
    return len(path.read_bytes().rstrip(b"\0"))


def test_an_untouched_copy_holds(copy: Copy) -> None:
    """Nothing is found where nothing was changed, and every event is checked."""
    code, report = copy.verify()
    assert code == 0, report
    assert report["events"] >= 2 * EVENTS


def test_one_flipped_bit_in_a_segment_is_named(copy: Copy) -> None:
    """The journal segment and the offset are in the report."""
    segment = max(copy.data.glob("journal/*.seg"), key=used_size)
    flip(segment, used_size(segment) // 2)
    assert segment.name in copy.place_of_failure()


def test_one_flipped_bit_in_a_chunk_is_named(copy: Copy) -> None:
    """The chunk is in the report."""
    chunk = random.Random(1).choice(sorted(copy.data.glob("archive/**/*.parquet")))
    flip(chunk, chunk.stat().st_size // 2)
    assert chunk.name in copy.place_of_failure()


@pytest.mark.parametrize("level", ["level-0", "level-1"])
def test_one_flipped_bit_in_a_tree_level_is_named(copy: Copy, level: str) -> None:
    """The tree's level file is in the report."""
    path = next(path for path in sorted(copy.data.glob(f"trees/*/{level}")) if path.parent.name != "root" and path.stat().st_size)
    flip(path, path.stat().st_size // 2)
    assert path.parent.name in copy.place_of_failure()


def test_one_flipped_bit_in_a_head_is_named(copy: Copy) -> None:
    """The file of heads is in the report."""
    path = copy.data / "trees" / "heads"
    flip(path, path.stat().st_size // 2)
    assert "heads" in copy.place_of_failure()


def test_a_removed_chunk_is_named(copy: Copy) -> None:
    """A chunk that is gone leaves indexes with no event behind them."""
    chunk = sorted(copy.data.glob("archive/**/*.parquet"))[0]
    chunk.unlink()
    assert chunk.name in copy.place_of_failure()


def test_a_chunk_removed_with_its_manifest_is_missed(copy: Copy) -> None:
    """Without manifest and catalog too, the tree still knows that events were there."""
    chunk = sorted(copy.data.glob("archive/**/*.parquet"))[0]
    for path in chunk.parent.glob(f"{chunk.stem}*"):
        path.unlink()
    for path in copy.data.glob("catalog.sqlite*"):
        path.unlink()
    for path in copy.data.glob("journal/*.seg"):
        if path.stat().st_mtime < max(p.stat().st_mtime for p in copy.data.glob("journal/*.seg")):
            path.unlink()
    copy.place_of_failure()


def test_a_cut_tree_is_named(copy: Copy) -> None:
    """A level file that is shorter than its signed head."""
    path = next(path for path in sorted(copy.data.glob("trees/*/level-0")) if path.parent.name != "root")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 320)
    assert path.parent.name in copy.place_of_failure()


def test_a_rolled_back_directory_is_found_by_the_remembered_head(copy: Copy, tmp_path: Path) -> None:
    """An older copy of the data with today's keys: the key directory remembers a later head."""
    (tmp_path / "other").mkdir()
    server = Server(tmp_path / "other", '[seal]\nroot_interval = "200ms"\n')
    try:
        server.start()
        server.send_ok(numbered(0, 10))
        server.drain(10)
        server.stop()
        shutil.copytree(server.data, tmp_path / "old", ignore=shutil.ignore_patterns("run"))
        server.start()
        server.send_ok(numbered(10, 10))
        server.drain(20)
        server.stop()
        shutil.rmtree(server.data)
        shutil.copytree(tmp_path / "old", server.data)
        done = server.verify(check=4)
        report = json.loads(done.stdout)
        assert any("remember" in (p["place"] + p["message"]).lower() for p in report["problems"]), report
    finally:
        server.close()


def test_without_keys_and_head_the_limits_are_told(copy: Copy) -> None:
    """Data alone is consistent at best: exit 5, and the report says what is not proven."""
    shutil.rmtree(copy.keys)
    code, report = copy.verify()
    assert code == 5, report
    assert report["not_proven"]


def test_another_servers_public_key_does_not_open_the_heads(copy: Copy, tmp_path: Path) -> None:
    """With a public key that did not sign, nothing counts as signed."""
    (tmp_path / "other").mkdir()
    other = Server(tmp_path / "other", "")
    try:
        other.start()
        other.send_ok(numbered(0, 1))
        other.drain(1)
        other.stop()
        code, report = copy.verify("--public-key", str(other.keys / "root.vkey"))
    finally:
        other.close()
    assert code in (4, 5), report
    assert report["problems"] or report["not_proven"], report
