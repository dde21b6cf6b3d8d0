"""Go's own verifier (golang.org/x/mod/sumdb) reads a log that Tallystick wrote and served, and refuses a changed one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.go import run_verifier
from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.heads import Heads, HeadsFile, Round
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import event_origin, tree_dir
from tallystick.evidence.serve import LogReader
from tallystick.evidence.tile_path import TileName, tile_width, tiles_of
from tallystick.evidence.trees import TreeFiles

HANDLE = "abcdefghijklmnop"
ORIGIN = event_origin("audit.example.com", HANDLE)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VKEY = vkey(ORIGIN, KEY.public_key())
LINES = [b'{"v":1,"n":%d}' % number for number in range(1300)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log grown over two heads, fetched path by path from the reader that serves it, as a client would."""
    data_dir, served = tmp_path / "data", tmp_path / "served"
    heads = HeadsFile(data_dir)
    tree = TreeFiles(tree_dir(data_dir, HANDLE), 0)
    for first, last in ((0, 700), (700, len(LINES))):
        tree.append(event_hashes(LINES[first:last]))
        heads.append(Round(1, [sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root()), KEY)]))
        heads.publish()
        reader = LogReader(
            data_dir, "audit.example.com", Heads(data_dir), lambda _, start, count: list(enumerate(LINES))[start : start + count]
        )
        served.mkdir(exist_ok=True)
        (served / f"checkpoint-{tree.size}").write_text(reader.checkpoint(HANDLE))
    shutil.copy(served / f"checkpoint-{len(LINES)}", served / "checkpoint")
    bundles = [TileName(None, number, tile_width(None, number, len(LINES))) for number in range(-(-len(LINES) // 256))]
    for name in [*tiles_of(len(LINES)), *bundles]:
        path = served / name.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.tile(HANDLE, name.path()))
    return served


def check(program: Path, log: Path, key: str = VKEY) -> subprocess.CompletedProcess[str]:
    return run_verifier(program, log, key, log / "checkpoint-700")


def test_go_accepts_the_log(go_verifier: Path, log: Path) -> None:
    """Signature, every tile, every entry's inclusion, and consistency with the older head hold in Go."""
    done = check(go_verifier, log)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"ok {ORIGIN} {len(LINES)}\n"


def test_go_refuses_a_changed_log(go_verifier: Path, log: Path) -> None:
    """A changed entry, hash, head or key is refused by the same program."""
    for path, offset in (("tile/entries/002", 10), ("tile/0/001", 40), ("tile/1/000.p/5", 3), ("checkpoint", -10)):
        data = bytearray((log / path).read_bytes())
        data[offset] ^= 1
        kept, _ = (log / path).read_bytes(), (log / path).write_bytes(data)
        assert check(go_verifier, log).returncode == 1, path
        (log / path).write_bytes(kept)
    other = vkey(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    assert check(go_verifier, log, other).returncode == 1
    fork = sign_checkpoint(Checkpoint(ORIGIN, 700, bytes(32)), KEY)
    (log / "checkpoint-700").write_text(fork)
    assert check(go_verifier, log).returncode == 1
