"""Go's own verifier of transparency logs, built from Debian's golang-golang-x-mod-dev without any module download."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_GOPATH = Path("/usr/share/gocode")
_SOURCE = Path(__file__).resolve().parents[1] / "integration" / "go_tlog" / "main.go"


def build_verifier(directory: Path) -> Path:
    """The program: ``VKEY DIRECTORY OLD_CHECKPOINT``; ``tools/install-test-parts`` installs what it needs."""
    go = shutil.which("go")
    assert go is not None, "Go is missing: run tools/install-test-parts"
    assert (_GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir(), (
        "golang-golang-x-mod-dev is missing: run tools/install-test-parts"
    )
    out = directory / "go_tlog"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOFLAGS": "", "GOCACHE": str(directory / "cache")}
    subprocess.run([go, "build", "-o", str(out), str(_SOURCE)], check=True, env=environment, capture_output=True, text=True)
    return out


def run_verifier(program: Path, log: Path, key: str, old_checkpoint: Path) -> subprocess.CompletedProcess[str]:
    """Check a directory of tiles against a key and an older head."""
    command = [str(program), key, str(log), str(old_checkpoint)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
